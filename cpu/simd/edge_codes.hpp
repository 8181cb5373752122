// Edge codes (jaxtv/edge_code.hpp) of a bundle of signals, a byte per sample: made from a solution,
// and copied between an array and rows (signals.hpp).
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "jaxtv/edge_code.hpp"
#include "simd/bundle.hpp"
#include "simd/signals.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Calls f(k, l) for squares that cover all samples, and returns n. A square is the samples [k, k +
// kSquare) of the signals [l, l + kSquare); the last one along a signal may overlap the one before.
// Returns 0 without a call if signals are not contiguous in memory or shorter than a square.
template <int kSignals, class F>
JAXTV_INLINE std::int64_t for_squares(const SignalOffsets& offsets, std::int64_t n, F f) {
  if (offsets.stride != 1 || offsets.by_rows || n < kSquare) return 0;
  for (std::int64_t end = kSquare;; end = end + kSquare < n ? end + kSquare : n) {
    for (int l = 0; l < kSignals; l += kSquare) f(end - kSquare, l);
    if (end == n) return n;
  }
}

// From an array into rows.
template <int kSignals>
void gather(const std::uint8_t* source, const SignalOffsets& offsets, std::int64_t n,
            std::uint8_t* rows) {
  constexpr int kSquareSignals = kSignals < kSquare ? kSignals : kSquare;
  const std::int64_t done = for_squares<kSignals>(offsets, n, [&](std::int64_t k, int l) {
    CodeVector v[kSquare] = {};
    for (int i = 0; i < kSquareSignals; ++i)
      std::memcpy(&v[i], source + offsets.at[l + i] + k, kSquare);
    transpose_codes(v);
    for (int i = 0; i < kSquare; ++i)
      std::memcpy(rows + (k + i) * kSignals + l, &v[i], kSquareSignals);
  });
  for_ranges<kSignals>(offsets, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    std::memcpy(rows + row, source + at, count);
  });
  repeat_last<kSignals>(offsets, done, n, rows);
}

// codes |= rows, which does no harm where squares overlap or a signal is repeated.
template <int kSignals>
void add_codes(const std::uint8_t* rows, const SignalOffsets& offsets, std::int64_t n,
               std::uint8_t* codes) {
  constexpr int kSquareSignals = kSignals < kSquare ? kSignals : kSquare;
  const std::int64_t done = for_squares<kSignals>(offsets, n, [&](std::int64_t k, int l) {
    CodeVector v[kSquare] = {};
    for (int i = 0; i < kSquare; ++i)
      std::memcpy(&v[i], rows + (k + i) * kSignals + l, kSquareSignals);
    transpose_codes(v);
    for (int i = 0; i < kSquareSignals; ++i) {
      const Location<std::uint8_t, CodeVector> location{offsets.at[l + i] + k};
      location.store(codes, location.load(codes) | v[i]);
    }
  });
  for_ranges<kSignals>(offsets, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    each(count, [=](int l) { codes[at + l] |= rows[row + l]; });
  });
}

// The codes of the s-th signals of a bundle, as n rows.
template <class T, int kVectors, bool kPerEdge>
void codes_of(const Bundle<T, kVectors>& bundle, std::int64_t s, int code_shift,
              std::uint8_t* codes) {
  using V = typename Vectors<T>::V;
  constexpr std::int64_t kStride = kVectors * kLanes<T>;
  for (int g = 0; g < kVectors; ++g) {
    const VectorSignals<T, kVectors, kPerEdge> signals(bundle, s, g);
    std::uint8_t* row = codes + g * kLanes<T>;
    using M = decltype(V{} == V{});
    const M separate = M{} + (int(kSeparate) << code_shift),
            inside = M{} + ((kSeparate ^ kInside) << code_shift),
            up = M{} + ((kSeparate ^ kJumpUp) << code_shift),
            down = M{} + ((kSeparate ^ kJumpDown) << code_shift);
    const M joined = kPerEdge ? M{} : (signals.weight(0) > V{}) & inside;
    V here = signals.row(signals.y, 0);
    for (std::int64_t k = 0; k + 1 < signals.n; ++k, row += kStride) {
      const V next = signals.row(signals.y, k + 1);
      const M mask = kPerEdge ? (signals.weight(k) > V{}) & inside : joined;
      const M code =
          separate ^ ((here == next) & mask) ^ ((next > here) & up) ^ ((next < here) & down);
      const auto bytes = low_bytes(code, std::make_index_sequence<kLanes<T>>());
      std::memcpy(row, &bytes, sizeof bytes);
      here = next;
    }
    std::memset(row, kSeparate << code_shift, kLanes<T>);
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
