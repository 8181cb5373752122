// Long signals by windows that are solved alone and then joined.
#pragma once

#include <cstdint>

#include "parallel.hpp"
#include "pass.hpp"

namespace jaxtv::cpu {

constexpr std::int64_t kWindow = 1024;  // samples of a window

// Solves the shape.inner signals of a pass with shape.outer = 1 into z, laid out as its arrays.
template <class T>
void prox_by_windows(const Pool& pool, const Pass<T>& pass, T* z);

}  // namespace jaxtv::cpu
