// Long signals, by all lanes and threads: windows of one signal side by side, joined at cuts.
#pragma once

#include "parallel.hpp"
#include "sweep.hpp"

namespace jaxtv::cpu {

// Whether signals of length n are worth it.
bool worth_windows(std::int64_t n, std::int64_t signals);

// Solves every signal of the sweep; fills neither gap nor iterations.
template <class T>
void prox_windows(const Pool& pool, const Sweep<T>& sweep);

// How many long signals this process has solved, by taut strings and by windows.
struct LongSignals {
  std::int64_t strings, windows;
};
LongSignals long_signals();

// Solves one signal, of samples side by side and one weight, by taut strings into z. False, and
// nothing of use in z, where they are not the method for this signal.
template <class T>
bool prox_strings(const Pool& pool, const Sweep<T>& sweep, T* z);

}  // namespace jaxtv::cpu
