// Connected components of a solution on a grid, and means over them: the derivatives of the
// converged N-D prox. Free of XLA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "elements.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// Samples joined by edges (union-find); the label of a component is its first sample.
class Components {
 public:
  explicit Components(std::int64_t size);  // below 2^31: labels are int32
  void join(std::int64_t a, std::int64_t b) {
    const std::int32_t p = label(std::int32_t(a)), q = label(std::int32_t(b));
    if (p != q) parent_[std::max(p, q)] = std::min(p, q);
  }
  // v: the mean over its component. Sums run in the order of the samples.
  void average(double* v);

 private:
  std::int32_t label(std::int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  std::vector<std::int32_t> parent_;
};

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
