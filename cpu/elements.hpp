// How one batch element, whose axes may lie anywhere in an array, is taken out of it and put back.
#pragma once

#include <cstdint>
#include <vector>

#include "jaxtv/edge_code.hpp"
#include "layout.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// Where the samples of one element are in an array.
struct ElementLayout {
  std::int64_t base;  // offset of its first sample
  std::vector<std::int64_t> dims, strides;

  // Calls f(offset, row) for each row (last dim) in row-major order; samples of a row are
  // strides.back() apart.
  template <class F>
  void for_rows(F f) const {
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
void gather(const ElementLayout& l, const A* array, B* element) {
  const std::int64_t n = l.dims.back(), stride = l.strides.back();
  l.for_rows([=](std::int64_t offset, std::int64_t row) {
    for (std::int64_t i = 0; i < n; ++i) element[row * n + i] = B(array[offset + i * stride]);
  });
}

template <class A, class B>
void scatter(const ElementLayout& l, const A* element, B* array) {
  const std::int64_t n = l.dims.back(), stride = l.strides.back();
  l.for_rows([=](std::int64_t offset, std::int64_t row) {
    for (std::int64_t i = 0; i < n; ++i) array[offset + i * stride] = B(element[row * n + i]);
  });
}

// An array as a batch of elements: one for each index along the dims that are not among the axes.
struct Elements {
  std::vector<std::int64_t> dims, axes;  // of the array; axes in sweep order

  std::int64_t count() const;                  // of elements
  std::int64_t size() const;                   // samples of an element
  Shape shape(std::size_t a) const;            // of an element taken out, along axes[a]
  ElementLayout layout(std::int64_t e) const;  // of element e in an array of these dims
  // The same in an array that has `length` values along axes[a], as weights have.
  ElementLayout layout(std::int64_t e, std::size_t a, std::int64_t length) const;
  // Edge codes of one sweep: bytes per sample, and the layout of one of these bytes.
  std::int64_t code_arrays() const { return code_bytes(std::int64_t(axes.size())); }
  ElementLayout code_layout(std::int64_t e, std::int64_t byte) const;
};

// Calls f(i, j, k): the edge from sample i to sample j, with its weight at k.
template <class F>
void for_edges(const Shape& s, bool per_edge, F f) {
  const std::int64_t length = per_edge ? s.n - 1 : 1;
  for (std::int64_t o = 0; o < s.outer; ++o)
    for (std::int64_t e = 0; e + 1 < s.n; ++e)
      for (std::int64_t c = 0; c < s.inner; ++c) {
        const std::int64_t i = (o * s.n + e) * s.inner + c;
        f(i, i + s.inner, (o * length + (per_edge ? e : 0)) * s.inner + c);
      }
}

// Calls f(element, pool for inside it): elements over threads where there are enough of them, else
// threads inside each.
template <class F>
void for_elements(const Pool& pool, std::int64_t count, F f) {
  const Pool alone{1, nullptr};
  if (count >= pool.threads)
    parallel_for(pool, count, [=](std::int64_t e) { f(e, alone); });
  else
    for (std::int64_t e = 0; e < count; ++e) f(e, pool);
}

}  // namespace jaxtv::cpu
