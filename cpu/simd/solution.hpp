// From the cuts of a bundle, given by its duals, to its solution. The check here proves most of it
// right in the type of the samples; mend.hpp looks at the rest in double.
#pragma once

#include <cstdint>

#include "simd/bundle.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Writes the value of each segment to y at its first sample. Sums are in double, of differences to
// the segment's last sample, as in values_from_cuts (jaxtv/cuts.hpp); quotients in T.
template <class T, int kVectors, bool kPerEdge>
void segment_values(const VectorSignals<T, kVectors, kPerEdge>& s) {
  using V = typename Vectors<T>::V;
  constexpr int kParts = kLanes<T> / kDoubleLanes;
  constexpr std::int64_t kStride = s.kStride;
  const V zero = {}, one = zero + T(1);
  Double sum[kParts] = {}, ref[kParts] = {}, right[kParts] = {}, next[kParts] = {};
  V count = zero, narrow_ref = zero, after = zero;
  // Row k, with the dual of the edge before it. `after` and `next` are that of the edge after it.
  const auto step = [&](std::int64_t k, V before, const Double(&wide_before)[kParts]) JAXTV_LAMBDA {
    count = (after != after ? count : zero) + one;
    narrow_ref = after != after ? narrow_ref : s.row(s.x, k);
    after = before;
    Double rest[kParts];
    JAXTV_UNROLL
    for (int p = 0; p < kParts; ++p) {
      const Double x = load_wide(s.x + k * kStride + p * kDoubleLanes);
      const Double edge = next[p];
      ref[p] = edge != edge ? ref[p] : x;
      sum[p] = (edge != edge ? sum[p] : Double{}) + (x - ref[p]);
      right[p] = edge != edge ? right[p] : edge;
      next[p] = wide_before[p];
      rest[p] = sum[p] + (right[p] - next[p]);
    }
    V total;
    if constexpr (kParts == 2)
      total = join(narrow<T>(rest[0]), narrow<T>(rest[1]));
    else
      total = rest[0];
    s.set_row(s.y, k, narrow_ref + total / count);
  };
  for (std::int64_t k = s.n - 1; k > 0; --k) {
    const T* duals = s.duals + (k - 1) * kStride;
    Double wide[kParts];
    for (int p = 0; p < kParts; ++p) wide[p] = load_wide(duals + p * kDoubleLanes);
    step(k, s.row(duals, 0), wide);
  }
  const Double none[kParts] = {};
  step(0, zero, none);
}

constexpr int kChunk = 8;  // rows that are marked together as undecided

// Spreads the values of segments over their samples. Checks the optimality conditions, with margins
// for round-off: inside of segments the dual stays between plus and minus the weight, and a cut is
// a jump of its sign. Marks the rows in which it cannot tell in `undecided`, one mask for each
// kChunk rows, and returns the lanes that have any.
//
// A dual is off by the round-off of each sample so far in its segment: that of the value, of its
// difference to the sample, and of the sum.
template <class T, int kVectors, bool kPerEdge>
typename Vectors<T>::M spread_values(const VectorSignals<T, kVectors, kPerEdge>& s,
                                     typename Vectors<T>::M* undecided) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const V zero = {}, unit = zero + kUnit<T> / 2;
  const V magnitude = vmax(-s.low, s.high), range = s.high - s.low;
  const V least_jump = unit * (T(3) * magnitude + T(6) * range);
  V step = unit * (magnitude + T(3) * range);
  if (!kPerEdge) step += T(1.5) * unit * s.weight(0);
  V value = s.row(s.y, 0), dual = value - s.row(s.x, 0), off = step;
  M undecided_lanes = {};
  for (std::int64_t k = 1; k < s.n;) {
    M proved = ~M{};
    for (const std::int64_t end = k + kChunk < s.n ? k + kChunk : s.n; k < end; ++k) {
      const V cut = s.row(s.duals, k - 1), weight = s.weight(k - 1);
      const V next = cut != cut ? value : s.row(s.y, k);
      V jump = times_sign(next - value, cut) - least_jump;
      if (kPerEdge) {
        jump = weight == zero ? zero : jump;
        off += T(1.5) * unit * weight;
      }
      const V margin = cut != cut ? weight - off - vabs(dual) : jump;
      proved &= margin >= zero;
      value = next;
      s.set_row(s.y, k, value);
      dual = (cut != cut ? dual : cut) + (value - s.row(s.x, k));
      off = (cut != cut ? off : zero) + step;
    }
    *undecided++ = ~proved;
    undecided_lanes |= ~proved;
  }
  return undecided_lanes;
}

// A sample whose edges all have weight 0 is its own solution, bit for bit. Returns the signals that
// have such a weight and a sample that is not finite, which spread_values does not see.
template <class T, int kVectors, bool kPerEdge>
typename Vectors<T>::M copy_unjoined_samples(const VectorSignals<T, kVectors, kPerEdge>& s) {
  using V = typename Vectors<T>::V;
  const V zero = {};
  const typename Vectors<T>::M none = {};
  auto weightless = none;
  for (std::int64_t e = 0; e < s.weight_rows(); ++e) weightless |= s.weight(e) == zero;
  if (s.n > 1 && !any(weightless)) return none;
  V before = zero, poison = zero;
  for (std::int64_t k = 0; k < s.n; ++k) {
    const V after = k + 1 < s.n ? s.weight(k) : zero, x = s.row(s.x, k), y = s.row(s.y, k);
    const auto unjoined = (before == zero) & (after == zero);
    s.set_row(s.y, k, unjoined < 0 ? x : y);
    poison += x - x;
    before = after;
  }
  return weightless & ~(poison == zero);
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
