// What one iteration of the converged N-D prox has found for one element, and sums over it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layout.hpp"
#include "strips.hpp"

namespace jaxtv::cpu {

template <class T>
struct Iterate {
  std::int64_t size;  // samples
  const T* x;
  std::vector<Shape> shapes;  // of the element, along each axis
  std::vector<Weights<T>> w;
  std::vector<const T*> z, p;  // of each axis: the result of its pass, and its dual
  const T* y;                  // x - sum p. With two axes it is the z of the last.
  const std::uint8_t* codes;   // of the edges of the z, as in components.hpp
};

// Sum of f(i) for i in [begin, end): short sums in T, in lanes that can share a vector, added up in
// double.
template <class F>
double sum_of(std::int64_t begin, std::int64_t end, F f) {
  using T = decltype(f(begin));
  constexpr int kLanes = 16, kLength = 16;
  double total = 0;
  std::int64_t i = begin;
  while (i + kLanes <= end) {
    const std::int64_t steps = std::min<std::int64_t>(kLength, (end - i) / kLanes);
    T lane[kLanes] = {};
    for (std::int64_t s = 0; s < steps; ++s, i += kLanes)
      for (int k = 0; k < kLanes; ++k) lane[k] += f(i + k);
    for (T v : lane) total += double(v);
  }
  for (; i < end; ++i) total += double(f(i));
  return total;
}

// The same as for_edge_runs, with weight(k) the weight of the edge after sample k: f(first, last,
// weight).
template <class T, class F>
void for_weighted_edges(const Shape& s, const Weights<T>& w, std::int64_t begin, std::int64_t end,
                        F f) {
  for_edge_runs(s, begin, end, [&](std::int64_t first, std::int64_t last, std::int64_t outer) {
    if (w.per_edge)
      return f(first, last, [of = w.data - outer * s.inner](std::int64_t k) { return of[k]; });
    if (s.inner == 1)
      return f(first, last, [value = w.data[outer]](std::int64_t) { return value; });
    for (std::int64_t i = first; i < last; i += s.inner)
      f(i, i + s.inner, [of = w.data + outer * s.inner - i](std::int64_t k) { return of[k]; });
  });
}

}  // namespace jaxtv::cpu
