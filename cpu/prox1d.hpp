// The 1D prox along an axis and its derivatives, of all signals of an array, over the threads of a
// pool. Free of XLA.
#pragma once

#include "parallel.hpp"
#include "pass.hpp"

namespace jaxtv::cpu {

template <class T>
void prox1d(const Pool& pool, const Pass<T>& pass, const Solver& solver);
// The values that `kept_duals` of this pass needs; 0 where passes do not start from cuts.
template <class T>
std::int64_t kept_duals_length(const Pool& pool, const Pass<T>& pass, const Solver& solver);
template <class T>
void segment_jvp(const Pool& pool, const SegmentJvp<T>& op);
template <class T>
void segment_vjp(const Pool& pool, const SegmentVjp<T>& op);
template <class T>
void dykstra_vjp_pass(const Pool& pool, const DykstraVjpPass<T>& op);

}  // namespace jaxtv::cpu
