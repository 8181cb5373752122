// Connected components of a solution on a grid, and means over them: the polish of the converged
// N-D prox, and its derivatives. Free of XLA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "elements.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {

// means: of v, one element, over the components of the edges with the code kInside. Byte p of the
// codes of sample i is at codes[p * size + i]. The memory is the caller's, of Components::bytes.
template <class V>
void component_means(const Pool& pool, const std::vector<Shape>& shapes, const std::uint8_t* codes,
                     const V* v, Arena memory, V* means);

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
