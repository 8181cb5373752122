// Allocations of the handlers that fail.
#pragma once

#include <cstdint>

namespace jaxtv::fuzz {

// From now on the allocation number `countdown` (from 0) of handlers fails once, on whatever
// thread; -1: none.
void fail_allocation(std::int64_t countdown);

}  // namespace jaxtv::fuzz
