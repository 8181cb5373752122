// The certificate of the converged N-D prox. With the duals p_a of an iterate and y = x - sum p_a,
// any c has an objective of at most dual_value + gap.
#pragma once

#include "converged/iterate.hpp"
#include "converged/tiles.hpp"

namespace jaxtv::cpu {

// |x|^2 / 2 - |y|^2 / 2, a lower bound of the optimal value.
template <class T>
double dual_value(const Pool& pool, const Strips& strips, const Iterate<T>& it);

// The gap of c: |c - y|^2 / 2 + sum_a (TV_a(c) - <p_a, c>), by terms that vanish where c = z_a.
template <class T>
double gap_of(const Pool& pool, const Strips& strips, const Iterate<T>& it, const T* c);

// The part of each tile in the gap of a polished c, one that is constant on every component of the
// edges with the code kInside. The duals of all others are +-w, so the terms of the gap are
// |c - y|^2 / 2 and w (|Dc| - +-Dc), all >= 0.
template <class T>
std::vector<double> polished_gap(const Pool& pool, const Tiles& tiles, const Iterate<T>& it,
                                 const T* c);

}  // namespace jaxtv::cpu
