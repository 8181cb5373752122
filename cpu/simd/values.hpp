// From the cuts of a group (its duals) to the solution.
#pragma once

#include <cstdint>

#include "simd/group.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Calls f(k, value) for every sample of kDoubleLanes signals from `lane` on, from the last sample:
// the mean of what follows it in its segment, so at the first sample of a segment its value. Sums
// are in double, as in values_from_cuts; `divide(ref, sum, count)` rounds.
template <class T, int kVectors, class Divide, class F>
JAXTV_INLINE void for_means(const SignalGroup<T, kVectors>& group, int lane, Divide divide, F f) {
  const auto wide = [&](const T* a, std::int64_t k) {
    return load_wide(a + k * SignalGroup<T, kVectors>::kSignals + lane);
  };
  const Double zero = {}, one = zero + 1.0, offset = wide(group.offset, 0);
  Double ref = zero, sum = zero, count = zero, right = zero;
  Double next = zero;  // dual of the edge to the right of k, where that is cut
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

// Writes the values of segments to `values`, at their first samples: sums in double, the quotient
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

// Writes the solution of the signals of vector g to `messages`, from the values of their segments;
// each message is read just before. Returns the undecided signals: those with a jump, or a message
// at its bound, that round-off could have decided. They are certified in double. `values` gets a
// mask of the samples at which such segments begin or end.
//
// A message of a segment is off by the error of the threshold, once for every sample up to it, and
// by its own rounding, 3 units of the weights in sum: a step is a difference of duals. At the end
// of the segment the message would be the dual there, so what it is off there bounds the former.
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
  // Of the present segment: the least distance of a message to its bound; the sum of the bounds.
  V distance = huge, total = zero;
  for (std::int64_t k = 0; k < n; ++k) {
    const V here = inside < 0 ? value : values[k * kVectors];
    M small_jump = ~inside & (times_sign(here - value, dual) <= smallest_jump);
    if (kPerEdge && k > 0) small_jump &= weight(k - 1) > zero;
    const V message = messages[k * kVectors];
    messages[k * kVectors] = value = here;
    dual = duals[(k + 1) * kVectors];
    // Where the segment goes on the dual is a NaN, and the comparison false.
    const M close = small_jump | (distance < vabs(message - dual) + margin * total);
    values[k * kVectors] = (V)close;
    undecided |= close;
    if (k + 1 == n) break;
    const V bound = weight(k);
    inside = is_nan(dual);
    distance = inside < 0 ? vmin(distance, bound - vabs(message)) : huge;
    total = keep(inside, total) + bound;
  }
  if (!kPerEdge) undecided &= weight(0) > zero;
  return undecided;
}

// The solution at a sample between weights 0 is the sample, bit for bit.
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
