// A group: the signals that one thread solves together, one in each lane of a few vectors.
#pragma once

#include <cstdint>
#include <cstring>

#include "jaxtv/overflow.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// A row of a group has up to kMostVectors vectors. Loops over the samples are bound by the latency
// of one vector's operations, and the other vectors of the row fill the wait.
constexpr int kMostVectors = kBytes == 64 ? 4 : 2;

// The scratch memory of a group, as arrays of rows: row k holds a value for sample k of every
// signal, with signal l in lane l. Lane l is lane l % kLanes of vector g = l / kLanes.
template <class T, int kVectors>
struct SignalGroup {
  static constexpr int kSignals = kVectors * kLanes<T>;
  std::int64_t n;  // samples of a signal
  bool per_edge;

  // n rows: the input, as `prepare` leaves it.
  T* samples;
  // n rows: the messages of the decomposition, then the solution.
  T* messages;
  // n rows, used for one thing after the other: thresholds of regions; values of segments, at their
  // first samples; a mask of undecided segments; edge codes.
  T* values;
  // n + 1 rows: the dual of edge (k - 1, k) where it is cut, so plus or minus its weight; else NaN.
  T* duals;
  // n - 1 rows, or one.
  T* weights;

  // Per signal: what `prepare` subtracted from its samples; max |sample| before that; whether it is
  // left to the solver of one signal in double.
  alignas(64) T offset[kSignals], magnitude[kSignals];
  bool unsolved[kSignals];

  SignalGroup(std::int64_t n, bool per_edge, void* scratch) : n(n), per_edge(per_edge) {
    samples = static_cast<T*>(scratch);
    messages = samples + n * kSignals;
    values = messages + n * kSignals;
    duals = values + n * kSignals;
    weights = duals + (n + 1) * kSignals;
  }
};

// Marks signals that vectors cannot solve as unsolved (a sample is not finite or near overflow, or
// a weight is bad) and sets their samples to 0. If all samples of a signal lie within a factor of
// two of each other, subtracts the first one, which is exact, so that a large offset costs no
// accuracy. Returns the samples as they were: in `copy` if it changed any.
template <class T, int kVectors>
T* prepare(SignalGroup<T, kVectors>& group, T* copy) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  constexpr int L = SignalGroup<T, kVectors>::kSignals;
  const std::int64_t n = group.n, edges = group.per_edge ? n - 1 : 1;
  const T limit = simd_limit<T>(n);
  bool changed = false;
  for (int g = 0; g < kVectors; ++g) {
    V* x = reinterpret_cast<V*>(group.samples) + g;
    const V* w = reinterpret_cast<const V*>(group.weights) + g;
    V low = x[0], high = x[0], not_finite = {};
    for (std::int64_t k = 0; k < n; ++k) {
      low = vmin(low, x[k * kVectors]);
      high = vmax(high, x[k * kVectors]);
      not_finite += x[k * kVectors] - x[k * kVectors];
    }
    M bad = {};
    for (std::int64_t e = 0; e < edges; ++e) bad |= ~(w[e * kVectors] >= T(0));
    for (int l = 0; l < kLanes<T>; ++l) {
      const int lane = g * kLanes<T> + l;
      const T magnitude = low[l] < -high[l] ? -low[l] : high[l];
      const bool unsolved = !(not_finite[l] == T(0)) || bad[l] != 0 || magnitude > limit;
      const bool near =
          (low[l] > 0 && high[l] <= 2 * low[l]) || (high[l] < 0 && low[l] >= 2 * high[l]);
      group.unsolved[lane] = unsolved;
      group.offset[lane] = !unsolved && near ? x[0][l] : T(0);
      group.magnitude[lane] = magnitude;
      changed |= unsolved || near;
    }
  }
  if (!changed) return group.samples;
  std::memcpy(copy, group.samples, n * L * sizeof(T));
  for (std::int64_t k = 0; k < n; ++k)
    for (int l = 0; l < L; ++l) {
      const T x = group.samples[k * L + l], offset = group.offset[l];
      const T moved = offset == T(0) ? x : x - offset;  // denormal x - 0 would be 0
      group.samples[k * L + l] = group.unsolved[l] ? T(0) : moved;
    }
  return copy;
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
