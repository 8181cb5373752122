// From the cuts of a group, given by `duals`, to its solution.
#pragma once

#include <cstdint>

#include "simd/group.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// For the kDoubleLanes signals from `lane` on, calls f(k, value) for every sample from the last to
// the first. At the first sample of a segment `value` is the value of the segment; at its other
// samples it is NaN. Sums are in double, of differences to the segment's last sample `ref`, as in
// values_from_cuts (jaxtv/cuts.hpp). `divide(ref, sum, count)` returns ref + sum / count, rounded
// as the caller wants.
template <class T, int kVectors, class Divide, class F>
JAXTV_INLINE void for_means(const SignalGroup<T, kVectors>& group, int lane, Divide divide, F f) {
  const auto wide = [&](const T* a, std::int64_t k) {
    return load_wide(a + k * SignalGroup<T, kVectors>::kSignals + lane);
  };
  const Double zero = {}, one = zero + 1.0, offset = wide(group.offset, 0);
  Double ref = zero, sum = zero, count = zero;
  Double right = zero;  // dual at the right end of the segment
  Double next = zero;   // dual of the edge after k, NaN if it is no cut
  for (std::int64_t k = group.n - 1; k >= 0; --k) {
    const Double x = wide(group.samples, k) + offset;
    const DoubleMask inside = is_nan(next);
    ref = inside ? ref : x;
    sum = keep(inside, sum) + (x - ref);
    count = keep(inside, count) + one;
    right = inside ? right : next;
    next = wide(group.duals, k);
    f(k, divide(ref, sum + (right - next), count));
  }
}

// Writes the values of segments to `values`, at their first samples. Sums are in double, quotients
// in T.
template <class T, int kVectors>
void segment_values(SignalGroup<T, kVectors>& group, int lane) {
  const auto divide = [](Double ref, Double sum, Double count) {
    return narrow<T>(ref) + narrow<T>(sum) / narrow<T>(count);
  };
  for_means(group, lane, divide, [&](std::int64_t k, auto value) {
    store_half(group.values + k * SignalGroup<T, kVectors>::kSignals + lane, value);
  });
}

// Writes the solution of the signals of vector g over `messages`, from the values of their
// segments; each message is read just before it is overwritten. Returns the undecided signals:
// those where round-off could have decided a jump, or whether a message reaches its bound. They are
// then certified in double. `values` gets a mask of the samples at which their segments begin or
// end.
//
// A message is wrong for two reasons. The error of the threshold is added once for each sample of
// the segment so far. Rounding adds up to 3 kUnit times the sum of the weights so far, because each
// step is a difference of duals. At the end of the segment the exact message is the dual of the cut
// there, so |message - dual| at the end is a bound for the first error at all samples.
template <class T, int kVectors, bool kPerEdge>
typename Vectors<T>::M write_solution(SignalGroup<T, kVectors>& group, int g) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const std::int64_t n = group.n;
  const V zero = {}, huge = zero + T(3e38), margin = zero + T(4) * kUnit<T>;
  const auto at = [g](T* a) { return reinterpret_cast<V*>(a) + g; };
  V *messages = at(group.messages), *values = at(group.values), *duals = at(group.duals);
  const V* w = at(group.weights);
  const V smallest_jump = T(8) * kUnit<T> * *at(group.magnitude);
  const auto weight = [&](std::int64_t e) { return w[(kPerEdge ? e : 0) * kVectors]; };
  M undecided = {}, inside = ~M{};
  V value = values[0], dual = {};
  // Of the present segment so far.
  V least_distance = huge;  // of a message to its bound
  V sum_of_bounds = zero;
  for (std::int64_t k = 0; k < n; ++k) {
    const V here = inside < 0 ? value : values[k * kVectors];
    M small_jump = ~inside & (times_sign(here - value, dual) <= smallest_jump);
    if (kPerEdge && k > 0) small_jump &= weight(k - 1) > zero;
    const V message = messages[k * kVectors];
    messages[k * kVectors] = value = here;
    dual = duals[(k + 1) * kVectors];
    // Where the segment goes on, the dual is NaN and the comparison is false.
    const M close = small_jump | (least_distance < vabs(message - dual) + margin * sum_of_bounds);
    values[k * kVectors] = (V)close;
    undecided |= close;
    if (k + 1 == n) break;
    const V bound = weight(k);
    inside = is_nan(dual);
    least_distance = inside < 0 ? vmin(least_distance, bound - vabs(message)) : huge;
    sum_of_bounds = keep(inside, sum_of_bounds) + bound;
  }
  if (!kPerEdge) undecided &= weight(0) > zero;
  return undecided;
}

// A sample whose edges all have weight 0 is its own solution, bit for bit.
template <class T, int kVectors, bool kPerEdge>
void copy_unjoined_samples(SignalGroup<T, kVectors>& group, int g) {
  using V = typename Vectors<T>::V;
  const std::int64_t n = group.n;
  const V zero = {};
  const auto at = [g](T* a) { return reinterpret_cast<V*>(a) + g; };
  V *solution = at(group.messages), *w = at(group.weights), *x = at(group.samples);
  const V offset = *at(group.offset);
  if (!kPerEdge && n > 1 && !any(w[0] == zero)) return;
  V before = zero;
  for (std::int64_t k = 0; k < n; ++k) {
    const V after = k + 1 < n ? w[(kPerEdge ? k : 0) * kVectors] : zero;
    const V sample = offset == zero ? x[k * kVectors] : x[k * kVectors] + offset;  // -0 + 0: +0
    V& here = solution[k * kVectors];
    const auto unjoined = (before == zero) & (after == zero);
    here = unjoined ? sample : here;
    before = after;
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
