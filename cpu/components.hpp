// Connected components of the solution on a grid, and means over them: the Jacobian of the
// converged N-D prox. Also how one batch element, whose axes may lie anywhere in an array, is
// taken out of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "jaxtv/edge_code.hpp"
#include "parallel.hpp"
#include "sweep.hpp"

namespace jaxtv::cpu {

// Where the samples of one element are in an array.
struct Layout {
  std::int64_t base;
  std::vector<std::int64_t> dims, strides;

  // Calls f(offset, row) for each row (last dim) in row-major order; samples of a row are
  // strides.back() apart.
  template <class F>
  void rows(F f) const {
    const std::size_t last = dims.size() - 1;
    std::int64_t count = 1;
    for (std::size_t d = 0; d < last; ++d) count *= dims[d];
    for (std::int64_t row = 0; row < count; ++row) {
      std::int64_t offset = base, rest = row;
      for (std::size_t d = last; d-- > 0; rest /= dims[d]) offset += rest % dims[d] * strides[d];
      f(offset, row);
    }
  }
};

template <class A, class B>
void gather(const Layout& l, const A* array, B* element) {
  const std::int64_t n = l.dims.back(), stride = l.strides.back();
  l.rows([=](std::int64_t offset, std::int64_t row) {
    for (std::int64_t i = 0; i < n; ++i) element[row * n + i] = B(array[offset + i * stride]);
  });
}

template <class A, class B>
void scatter(const Layout& l, const A* element, B* array) {
  const std::int64_t n = l.dims.back(), stride = l.strides.back();
  l.rows([=](std::int64_t offset, std::int64_t row) {
    for (std::int64_t i = 0; i < n; ++i) array[offset + i * stride] = B(element[row * n + i]);
  });
}

// An array as a batch of elements: one for each index along the dims that are not among the axes.
struct Elements {
  std::vector<std::int64_t> dims, axes;  // axes in sweep order

  std::int64_t count() const;           // of elements
  std::int64_t size() const;            // samples of an element
  Shape shape(std::size_t a) const;     // of an element taken out, along axes[a]
  Layout layout(std::int64_t e) const;  // of element e in an array of these dims
  Layout layout(std::int64_t e, std::size_t a,
                std::int64_t length) const;  // `length` along axes[a]
  // Masks have 2 bits per sample and axis, 4 axes to a plane; planes come before the first axis.
  std::int64_t planes() const { return code_bytes(axes.size()); }
  Layout plane(std::int64_t e, std::int64_t plane) const;
};

// Calls f(i, j, k): the edge from sample i to sample j, k its place in a weight array.
template <class F>
void each_edge(const Shape& s, bool per_edge, F f) {
  const std::int64_t length = per_edge ? s.n - 1 : 1;
  for (std::int64_t o = 0; o < s.outer; ++o)
    for (std::int64_t e = 0; e + 1 < s.n; ++e)
      for (std::int64_t c = 0; c < s.inner; ++c) {
        const std::int64_t i = (o * s.n + e) * s.inner + c;
        f(i, i + s.inner, (o * length + (per_edge ? e : 0)) * s.inner + c);
      }
}

// Samples joined by edges; the label of a component is its first sample.
class Components {
 public:
  explicit Components(std::int64_t size);  // below 2^31: labels are int32
  void join(std::int64_t a, std::int64_t b) {
    const std::int32_t p = root(std::int32_t(a)), q = root(std::int32_t(b));
    if (p != q) parent_[std::max(p, q)] = std::min(p, q);
  }
  // v: the mean over its component. Sums run in the order of the samples.
  void average(double* v);

 private:
  std::int32_t root(std::int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  std::vector<std::int32_t> parent_;
};

// ty = P(tx - sum_a D_a^T(s_a tw_a)), from the masks of the solution.
template <class T>
void components_push(const Pool& pool, const Elements& elements, const std::uint8_t* masks,
                     const T* tx, const std::vector<Weights<T>>& tw, T* ty);
// gx = P g, gw_a = -s_a D_a P g, summed over a signal unless per edge.
template <class T>
void components_pull(const Pool& pool, const Elements& elements, const std::uint8_t* masks,
                     const T* g, T* gx, const std::vector<T*>& gw,
                     const std::vector<bool>& per_edge);

// ---- the solver (accelerated.cpp) ----

struct Stop {
  double tol;
  std::int64_t max_iterations;
};

template <class T>
struct Accelerated {
  const T* x;
  std::vector<const T*> start;  // duals of all axes but the first
  std::vector<Weights<T>> w;
  T *y, *gap;
  std::int32_t* iterations;
  bool* converged;
  std::vector<T*> dual;
};

// The converged prox of every element; jaxtv/_converged.py has the method, in plain JAX.
template <class T>
void accelerated(const Pool& pool, const Elements& elements, const Stop& stop, const Solver& inner,
                 const Accelerated<T>& op);

// Elements over threads where there are enough of them, else threads inside each.
template <class F>
void for_elements(const Pool& pool, std::int64_t count, F f) {
  const Pool alone{1, nullptr};
  if (count >= pool.threads)
    parallel_for(pool, count, [=](std::int64_t e) { f(e, alone); });
  else
    for (std::int64_t e = 0; e < count; ++e) f(e, pool);
}

}  // namespace jaxtv::cpu
