// How the work on one element is split: into strips, whole slices along its first dim in memory.
// Only edges along that dim lead from one strip to another.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layout.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// Strips do not depend on the number of threads, so neither do sums over them.
struct Strips {
  std::int64_t size, length;  // of the element, of all strips but the last

  explicit Strips(const std::vector<Shape>& shapes) : size(shapes[0].size()) {
    constexpr std::int64_t kSamples = 16384, kSlices = 4;
    std::int64_t slice = 1;  // no edge but those of the first dim leaves a slice
    for (const Shape& s : shapes)
      if (s.outer == 1) slice = std::max(slice, s.inner);
    length = slice * std::max(kSlices, kSamples / slice);
  }
  std::int64_t count() const { return (size + length - 1) / length; }
  std::int64_t begin(std::int64_t strip) const { return strip * length; }
  std::int64_t end(std::int64_t strip) const { return std::min(size, (strip + 1) * length); }
};

// Sum of f(begin, end) over the strips, in order.
template <class F>
double sum_strips(const Pool& pool, const Strips& strips, F f) {
  std::vector<double> parts(strips.count());
  parallel_for(pool, strips.count(),
               [&](std::int64_t s) { parts[s] = f(strips.begin(s), strips.end(s)); });
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

template <class F>
void for_strips(const Pool& pool, const Strips& strips, F f) {
  parallel_for(pool, strips.count(), [&](std::int64_t s) { f(strips.begin(s), strips.end(s)); });
}

// Calls f(first, last, outer) for runs of the samples of [begin, end) that have an edge along s: to
// the sample s.inner further on. `outer` is the same for a run.
template <class F>
void for_edge_runs(const Shape& s, std::int64_t begin, std::int64_t end, F f) {
  const std::int64_t block = s.n * s.inner, edges = block - s.inner;
  for (std::int64_t o = begin / block; o * block < end; ++o) {
    const std::int64_t first = std::max(begin, o * block), last = std::min(end, o * block + edges);
    if (first < last) f(first, last, o);
  }
}

}  // namespace jaxtv::cpu
