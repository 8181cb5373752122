// From the cuts of a bundle, given by its duals, to its solution. The check here proves most of it
// right in the type of the samples; mend.hpp looks at the rest in double.
#pragma once

#include <cstdint>

#include "simd/bundle.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Writes the value of each segment to y at its first sample. Sums are in double, of differences to
// the segment's last sample, as in values_from_cuts (jaxtv/cuts.hpp); quotients in T. With
// kExtremes, finds the smallest and the largest sample too.
template <bool kExtremes, class T, int kVectors, bool kPerEdge>
void segment_values(VectorSignals<T, kVectors, kPerEdge>& s) {
  using V = typename Vectors<T>::V;
  constexpr int kParts = kLanes<T> / kDoubleLanes;
  constexpr std::int64_t kStride = VectorSignals<T, kVectors, kPerEdge>::kStride;
  const V zero = {}, one = zero + T(1);
  Double sum[kParts] = {}, ref[kParts] = {}, right[kParts] = {}, next[kParts] = {};
  V count = zero, narrow_ref = zero, after = zero;
  V low = s.row(s.x, s.n - 1), high = low;
  // Row k, with the dual of the edge before it. `after` and `next` are that of the edge after it.
  const auto step = [&](std::int64_t k, V before, const Double(&wide_before)[kParts]) JAXTV_LAMBDA {
    const V sample = s.row(s.x, k);
    if constexpr (kExtremes) {
      low = vmin(sample, low);
      high = vmax(sample, high);
    }
    count = (after != after ? count : zero) + one;
    narrow_ref = after != after ? narrow_ref : sample;
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
  if (kExtremes) s.low = low, s.high = high;
}

// Values that differ by more are those of a jump, whatever their round-off.
template <class T, class V>
JAXTV_INLINE V least_sure_jump(V low, V high) {
  return (kUnit<T> / 2) * (T(3) * vmax(-low, high) + T(6) * (high - low));
}

// Spreads the values of segments over their samples. Checks the optimality conditions, with margins
// for round-off: inside of segments the dual stays between plus and minus the weight, and a cut is
// a jump of its sign. Marks the edges at which it cannot tell in `undecided`, and returns the lanes
// that have any. With kRepair, those that are surely wrong are marked in `wrong` instead.
//
// A dual is off by the round-off of each sample so far in its segment: that of the value, of its
// difference to the sample, and of the sum.
template <bool kRepair, class T, int kVectors, bool kPerEdge>
typename Vectors<T>::M spread_values(const VectorSignals<T, kVectors, kPerEdge>& s,
                                     typename Vectors<T>::M* undecided,
                                     typename Vectors<T>::M* wrong = nullptr) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  constexpr int kBits = kWordBits<T>;
  const V zero = {}, unit = zero + kUnit<T> / 2;
  const V magnitude = vmax(-s.low, s.high), range = s.high - s.low;
  const V least_jump = least_sure_jump<T>(s.low, s.high);
  V step = unit * (magnitude + T(3) * range);
  if (!kPerEdge) step += T(1.5) * unit * s.weight(0);
  const V surely_wrong = T(-32) * step;
  V value = s.row(s.y, 0), dual = value - s.row(s.x, 0), off = step;
  M undecided_lanes = {};
  for (std::int64_t k = 1; k < s.n;) {
    M open = {}, bad = {}, bit = M{} + 1;
    for (const std::int64_t end = k + kBits < s.n ? k + kBits : s.n; k < end; ++k) {
      const V cut = s.row(s.duals, k - 1), weight = s.weight(k - 1);
      const V next = cut != cut ? value : s.row(s.y, k);
      V jump = times_sign(next - value, cut) - least_jump;
      if (kPerEdge) {
        jump = weight == zero ? zero : jump;
        off += T(1.5) * unit * weight;
      }
      const V margin = cut != cut ? weight - off - vabs(dual) : jump;
      open |= ~(margin >= zero) & bit;
      if (kRepair) bad |= (margin < surely_wrong) & bit;
      bit <<= 1;
      value = next;
      s.set_row(s.y, k, value);
      dual = (cut != cut ? dual : cut) + (value - s.row(s.x, k));
      off = (cut != cut ? off : zero) + step;
    }
    if (kRepair) *wrong++ = bad;
    open &= ~bad;
    *undecided++ = open;
    undecided_lanes |= open;
  }
  return undecided_lanes != M{};
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
