// Connected components of a solution on a grid, and means over them: the derivatives of the
// converged N-D prox. Free of XLA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "elements.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// ty = P(tx - sum_a D_a^T(s_a tw_a)), from the edge codes of the solution.
template <class T>
void components_jvp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* tx, const std::vector<Weights<T>>& tw, T* ty);
// gx = P g, gw_a = -s_a D_a P g, summed over a signal unless per edge.
template <class T>
void components_vjp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* g, T* gx, const std::vector<T*>& gw,
                    const std::vector<bool>& per_edge);

}  // namespace jaxtv::cpu
