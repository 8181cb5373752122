// Dykstra on samples of any size (jaxtv/overflow.hpp): elements of the batch that are large are
// solved from a smaller copy.
#pragma once

#include <algorithm>
#include <cmath>

#include "jaxtv/overflow.hpp"
#include "prox.hpp"

namespace jaxtv::cpu {

// Which elements have samples beyond kDykstraLimit.
template <class T>
std::vector<char> find_large(const Pool& pool, std::int64_t batch, std::int64_t size, const T* x) {
  constexpr std::int64_t kBlock = 1 << 16;
  const std::int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<char> part(batch * blocks), element(batch);
  parallel_for(part_of(pool, batch * size, kBlock), batch * blocks, [&](std::int64_t k) {
    const std::int64_t begin = k % blocks * kBlock, end = std::min(size, begin + kBlock);
    const T* from = x + k / blocks * size;
    bool large = false;
    for (std::int64_t i = begin; i < end; ++i) large |= std::abs(from[i]) > kDykstraLimit<T>;
    part[k] = large;
  });
  for (std::size_t k = 0; k < part.size(); ++k) element[k / blocks] |= part[k];
  return element;
}

// As dykstra.
template <class T>
void dykstra_of_any_size(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
                         std::vector<Weights<T>> w, T* y, std::uint8_t* mask) {
  const std::int64_t size = it.core_size();
  if (it.batch * size == 0) return;
  const std::vector<char> large = find_large(pool, it.batch, size, x);
  if (std::none_of(large.begin(), large.end(), [](char v) { return v; }))
    return dykstra(pool, it, inner, x, w, y, mask);
  std::vector<std::vector<T>> weights;
  for (std::size_t a = 0; a < w.size(); ++a) {
    const std::int64_t length = size / it.shape(a).n * w[a].length(it.shape(a).n);
    std::vector<T>& copy = weights.emplace_back(w[a].data, w[a].data + it.batch * length);
    for (std::int64_t i = 0; i < it.batch * length; ++i)
      copy[i] = DykstraScaling<T>(large[i / length]).weight(copy[i]);
    w[a].data = copy.data();
  }
  std::vector<T> samples(x, x + it.batch * size);
  for (std::int64_t i = 0; i < it.batch * size; ++i)
    samples[i] = DykstraScaling<T>(large[i / size]).sample(samples[i]);
  dykstra(pool, it, inner, samples.data(), w, y, mask);
  for (std::int64_t i = 0; i < it.batch * size; ++i)
    y[i] = DykstraScaling<T>(large[i / size]).result(y[i], x[i]);
}

}  // namespace jaxtv::cpu
