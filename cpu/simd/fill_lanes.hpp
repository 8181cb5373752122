// From the rows of a bundle to the lane-major copy that IntervalString reads.
#pragma once

#include <cstdint>

#include "simd/bundle.hpp"
#include "simd/interval_string.hpp"
#include "simd/signals.hpp"
#include "simd/transpose.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Copies the s-th signal of every lane of vector g, less its first sample and divided by its λ.
// Writes its extremes.
template <class T, int kVectors>
void fill_lanes(Bundle<T, kVectors>& bundle, std::int64_t s, int g) {
  using V = typename Vectors<T>::V;
  constexpr int kQuad = kQuadSamples<T>;
  const VectorSignals<T, kVectors, false> signals(bundle, s, g);
  const std::int64_t n = bundle.n, pitch = bundle.pitch();
  T* lanes = bundle.lanes + g * kLanes<T> * pitch + s * (n + 1);
  const V zero = {}, largest = zero + kLargest<T>, first = signals.row(signals.x, 0);
  const V factor = T(1) / signals.weight(0);
  std::int64_t at[kLanes<T>];
  for (int l = 0; l < kLanes<T>; ++l) at[l] = l * pitch;
  V low = first, high = first;
  const auto take = [&](std::int64_t k) {
    const V x = signals.row(signals.x, k);
    low = vmin(x, low);
    high = vmax(x, high);
    return vmin(vmax((x - first) * factor, -largest), largest);  // of a NaN: a number
  };
  std::int64_t k = 0;
  for (; k + kQuad <= n; k += kQuad) {
    V v[kQuad];
    for (int i = 0; i < kQuad; ++i) v[i] = take(k + i);
    transpose_quads(v);
    for (int i = 0; i < kQuad; ++i) Quads<T>::store(lanes + k, at + i, v[i]);
  }
  for (; k < n; ++k) {
    const V v = take(k);
    for (int l = 0; l < kLanes<T>; ++l) lanes[l * pitch + k] = v[l];
  }
  bundle.low[s * kVectors + g] = low;
  bundle.high[s * kVectors + g] = high;
}

// Writes the extremes of these signals, and no copy.
template <class T, int kVectors>
void find_extremes(Bundle<T, kVectors>& bundle, std::int64_t s, int g) {
  using V = typename Vectors<T>::V;
  const VectorSignals<T, kVectors, false> signals(bundle, s, g);
  V low = signals.row(signals.x, 0), high = low;
  for (std::int64_t k = 1; k < bundle.n; ++k) {
    const V x = signals.row(signals.x, k);
    low = vmin(x, low);
    high = vmax(x, high);
  }
  bundle.low[s * kVectors + g] = low;
  bundle.high[s * kVectors + g] = high;
}

// Ends signals and lanes: the dual is 0 on both sides of a signal, where the string takes it to be
// the weight; NaN after the last row.
template <class T, int kVectors>
void end_lanes(Bundle<T, kVectors>& bundle) {
  const std::int64_t n = bundle.n, per_lane = bundle.per_lane, pitch = bundle.pitch();
  for (int l = 0; l < Bundle<T, kVectors>::kSignals; ++l) {
    T* x = bundle.lanes + l * pitch;
    for (std::int64_t s = 0; s < per_lane; ++s, x += n + 1) {
      x[0] -= 1;
      x[n - 1] -= 1;
      x[n] = kSeparator<T>;
    }
    for (int i = 0; i < kPadding; ++i) x[i] = T(__builtin_nanf(""));
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
