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

}  // namespace jaxtv::cpu
