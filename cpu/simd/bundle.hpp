// A bundle: the signals that one thread solves together. Each lane of a few vectors holds the same
// number of signals, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// A bundle has as many vectors, or one. They hide each other's latency.
constexpr int kMostVectors = 2;
constexpr int kMostPerLane = 32;  // signals of a lane
// Of the lane-major copy: samples after the last row, which the longest block may read.
constexpr int kPadding = 8;
// Marks of the edges of a signal are bits of words, as many as a sample has.
template <class T>
constexpr int kWordBits = 8 * sizeof(T);

// The scratch memory of a bundle. Arrays of rows have one row for each sample of a signal and one
// more after its last: row s * (n + 1) + k is sample k of the s-th signal of each lane.
template <class T, int kVectors>
struct Bundle {
  using V = typename Vectors<T>::V;
  static constexpr int kSignals = kVectors * kLanes<T>;  // lanes
  std::int64_t n, per_lane;                              // samples of a signal, signals of a lane
  bool per_edge;

  T* samples;
  // Of the edge after each row: its dual where it is cut, so plus or minus its weight; else NaN.
  // There is one more row before the first and one after the last, which nobody reads. This is the
  // caller's memory where the next pass starts from these cuts.
  T* duals;
  // Lane-major: lane l begins at lanes + l * pitch(). What IntervalString reads. Then in rows: the
  // value of each segment at its first sample, and the solution.
  T* lanes;
  // 3 n rows: of the decomposition; marks of wrong edges; edge codes.
  T* work;
  // The weight of each edge at its row, or with one λ per signal a row for the s-th signals.
  T* weights;
  T* undecided;  // marks, words() rows for each signal
  // Of Repair: samples of windows, lane-major; their duals, in rows; and the windows.
  T *window_lanes, *window_duals, *windows;
  // The smallest and the largest sample of each signal, NaN aside.
  V low[kMostPerLane * kVectors], high[kMostPerLane * kVectors];

  Bundle(std::int64_t n, std::int64_t per_lane, bool per_edge, T* kept_duals, void* scratch)
      : n(n), per_lane(per_lane), per_edge(per_edge) {
    T* next = static_cast<T*>(scratch);
    const auto take = [&next](std::int64_t rows) {
      T* here = next;
      next += rows * kSignals;
      return here;
    };
    samples = take(rows() + kPadding);
    duals = (kept_duals ? kept_duals : take(rows() + 2)) + kSignals;
    lanes = take(pitch());
    work = take(3 * n);
    weights = take(per_edge ? rows() : per_lane);
    undecided = take(per_lane * words());
    window_lanes = take(pitch_of(most_window_rows()));
    window_duals = take(most_window_rows() + 1);
    windows = take(2 * rows());
  }
  static std::size_t scratch_bytes(std::int64_t n, std::int64_t per_lane) {
    const std::int64_t rows = per_lane * (n + 1);  // of most arrays; the windows' have fewer
    return (8 * rows + 2 * n + 5 * kPadding + 13 + 3 * n) * kSignals * sizeof(T);
  }
  static std::int64_t duals_length(std::int64_t n, std::int64_t per_lane) {
    return (per_lane * (n + 1) + 2) * kSignals;
  }
  std::int64_t rows() const { return per_lane * (n + 1); }
  std::int64_t words() const { return (n + kWordBits<T> - 2) / kWordBits<T>; }  // of marks
  // Of a lane of windows: they have at most half as many rows as the bundle.
  std::int64_t most_window_rows() const { return rows() / 2 + n + 1; }
  std::int64_t pitch() const { return pitch_of(rows()); }
  // Not a multiple of a page: stores to several lanes would meet in one set of the cache.
  static std::int64_t pitch_of(std::int64_t rows) { return (rows + kPadding + 7) / 8 * 8 + 4; }
};

// The s-th signals of the lanes of vector g of a bundle. Row k is k * kStride elements further.
template <class T, int kVectors, bool kPerEdge>
struct VectorSignals {
  using V = typename Vectors<T>::V;
  static constexpr std::int64_t kStride = kVectors * kLanes<T>;
  std::int64_t n;
  const T *x, *w;  // w: one row unless kPerEdge
  T *duals, *y;
  V low, high;
  VectorSignals(const Bundle<T, kVectors>& b, std::int64_t s, int g)
      : n(b.n), low(b.low[s * kVectors + g]), high(b.high[s * kVectors + g]) {
    const std::int64_t at = s * (n + 1) * kStride + g * kLanes<T>;
    x = b.samples + at;
    duals = b.duals + at;
    y = b.lanes + at;
    w = b.weights + (kPerEdge ? at : s * kStride + g * kLanes<T>);
  }
  JAXTV_INLINE static V row(const T* a, std::int64_t k) {
    return *reinterpret_cast<const V*>(a + k * kStride);
  }
  JAXTV_INLINE static void set_row(T* a, std::int64_t k, V v) {
    *reinterpret_cast<V*>(a + k * kStride) = v;
  }
  JAXTV_INLINE V weight(std::int64_t e) const { return row(w, kPerEdge ? e : 0); }
  std::int64_t weight_rows() const { return kPerEdge ? n - 1 : 1; }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
