// Solves one signal at a time, in double.
#pragma once

#include "sweep.hpp"

namespace jaxtv::cpu {

// Solves signals [begin, end) of a sweep with its named method, one after the other.
template <class T>
void prox_serial(const Sweep<T>& sweep, const Solver& solver, std::int64_t begin, std::int64_t end);

// Fills gap, iterations and converged of signals [begin, end) from x, w and y of the sweep.
template <class T>
void report_gap(const Sweep<T>& sweep, std::int64_t begin, std::int64_t end);

}  // namespace jaxtv::cpu
