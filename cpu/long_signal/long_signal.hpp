// Long signals, each solved by all lanes of all threads: by taut strings that start at many samples
// at once (taut_strings.cpp), or by windows that are solved alone and then joined (windows.cpp).
#pragma once

#include <cstdint>

#include "parallel.hpp"
#include "pass.hpp"

namespace jaxtv::cpu {

// Whether signals of length n are worth it.
bool is_long(std::int64_t n, std::int64_t signals);

// Solves every signal of the pass; fills neither gap nor iterations.
template <class T>
void prox_long_signals(const Pool& pool, const Pass<T>& pass);

// How many long signals this process has solved by each method.
struct LongSignalCounts {
  std::int64_t by_taut_strings, by_windows;
};
LongSignalCounts long_signal_counts();

}  // namespace jaxtv::cpu
