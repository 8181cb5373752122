// Dykstra on samples of any size. Its states are sums of samples, which overflow where these are
// near the largest number. Such elements of the batch are solved at a power of two of their size,
// all others as they are: no bit of them changes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "prox.hpp"

namespace jaxtv::cpu {
namespace large_detail {

// Sums of 2^32 samples up to kMost are in range; kFactor leaves as much for those beyond.
template <class T>
constexpr T kMost = std::numeric_limits<T>::max() * T(0x1p-32);
template <class T>
constexpr T kFactor = sizeof(T) == 4 ? T(0x1p-40) : T(0x1p-100);

// Which elements have samples beyond kMost.
template <class T>
std::vector<char> find_large(const Pool& pool, std::int64_t batch, std::int64_t size, const T* x) {
  constexpr std::int64_t kBlock = 1 << 16;
  const std::int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<char> part(batch * blocks), element(batch);
  parallel_for(pool, batch * blocks, [&](std::int64_t k) {
    const std::int64_t begin = k % blocks * kBlock, end = std::min(size, begin + kBlock);
    const T* from = x + k / blocks * size;
    bool large = false;
    for (std::int64_t i = begin; i < end; ++i) large |= std::abs(from[i]) > kMost<T>;
    part[k] = large;
  });
  for (std::size_t k = 0; k < part.size(); ++k) element[k / blocks] |= part[k];
  return element;
}

template <class T>
T smaller(T w) {  // a weight, which keeps its sign
  const T small = w * kFactor<T>;
  return std::abs(small) < std::numeric_limits<T>::min() && w != 0
             ? std::copysign(std::numeric_limits<T>::min(), w)
             : small;
}

}  // namespace large_detail

// As dykstra.
template <class T>
void dykstra_of_any_size(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
                         std::vector<Weights<T>> w, T* y, std::uint8_t* mask) {
  using namespace large_detail;
  const std::int64_t size = it.core_size();
  if (it.batch * size == 0) return;
  const std::vector<char> large = find_large(pool, it.batch, size, x);
  if (std::none_of(large.begin(), large.end(), [](char v) { return v; }))
    return dykstra(pool, it, inner, x, w, y, mask);
  std::vector<char> idle(it.batch, true);  // no weight but 0: y is x, bit for bit
  std::vector<std::vector<T>> weights;
  for (std::size_t a = 0; a < w.size(); ++a) {
    const std::int64_t length = size / it.shape(a).n * w[a].length(it.shape(a).n);
    std::vector<T>& copy = weights.emplace_back(w[a].data, w[a].data + it.batch * length);
    for (std::int64_t i = 0; i < it.batch * length; ++i) {
      idle[i / length] &= copy[i] == 0;
      if (large[i / length]) copy[i] = smaller(copy[i]);
    }
    w[a].data = copy.data();
  }
  const auto scale = [&](std::int64_t i) { return large[i / size] && !idle[i / size]; };
  std::vector<T> samples(x, x + it.batch * size);
  for (std::int64_t i = 0; i < it.batch * size; ++i)
    if (scale(i)) samples[i] *= kFactor<T>;
  dykstra(pool, it, inner, samples.data(), w, y, mask);
  constexpr T kMax = std::numeric_limits<T>::max();  // the sweeps may go beyond the samples
  for (std::int64_t i = 0; i < it.batch * size; ++i)
    if (scale(i)) y[i] = std::clamp(y[i] / kFactor<T>, -kMax, kMax);
}

}  // namespace jaxtv::cpu
