// Checks in double what T, the type of the samples, could not decide (write_solution in
// values.hpp), and repairs the cuts of signals that fail.
#pragma once

#include <cstdint>

#include "simd/values.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// One signal of a group, in double.
template <class T, int kVectors, bool kPerEdge>
struct SignalInDouble {
  static constexpr int L = SignalGroup<T, kVectors>::kSignals;
  static constexpr double kSlack = 8 * kUnit<double>;
  struct Segment {
    std::int64_t begin, end;
    double value;
    double magnitude;  // what round-off is relative to: max |sample|, |value|
  };
  const SignalGroup<T, kVectors>& group;
  const int lane;

  double sample(std::int64_t k) const {
    return double(group.samples[k * L + lane]) + double(group.offset[lane]);
  }
  double dual(std::int64_t k) const { return double(group.duals[k * L + lane]); }
  double weight(std::int64_t e) const {
    return double(group.weights[(kPerEdge ? e : 0) * L + lane]);
  }

  Segment segment_of(std::int64_t k) const {
    std::int64_t begin = k, end = k + 1;
    while (is_nan(dual(begin))) --begin;
    while (is_nan(dual(end))) ++end;
    const double ref = sample(end - 1);
    double sum = 0, largest = 0;
    for (std::int64_t i = end - 1; i >= begin; --i) {
      sum += sample(i) - ref;
      largest = max_of(largest, abs_of(sample(i)));
    }
    sum += dual(end) - dual(begin);
    const double value = ref + sum / double(end - begin);
    return {begin, end, value, max_of(largest, abs_of(value))};
  }

  // The check of certify (jaxtv/certificate.hpp), for the segment of sample k and the jump before
  // it.
  bool certified(std::int64_t k) const {
    const Segment s = segment_of(k);
    double u = dual(s.begin), length = 1;
    for (std::int64_t e = s.begin; e + 1 < s.end; ++e) {
      u += s.value - sample(e);
      length += 1;
      if (abs_of(u) > weight(e) + kSlack * length * (s.magnitude + weight(e))) return false;
    }
    if (s.begin == 0 || !(weight(s.begin - 1) > 0)) return true;
    const Segment before = segment_of(s.begin - 1);
    const double jump = s.value - before.value;
    return (dual(s.begin) < 0 ? -jump : jump) > kSlack * max_of(s.magnitude, before.magnitude);
  }
};

// Of the undecided signals of vector g, those with a segment that double does not certify.
template <class T, int kVectors, bool kPerEdge>
typename Vectors<T>::M uncertified(const SignalGroup<T, kVectors>& group, int g,
                                   typename Vectors<T>::M undecided) {
  using M = typename Vectors<T>::M;
  const M* close = reinterpret_cast<const M*>(group.values) + g;  // from write_solution
  M failed = {};
  if (!any(undecided)) return failed;
  for (std::int64_t k = 0; k < group.n; ++k) {
    const M here = close[k * kVectors] & undecided & ~failed;
    if (!any(here)) continue;
    for (int l = 0; l < kLanes<T>; ++l) {
      const int lane = g * kLanes<T> + l;
      if (here[l] && !group.unsolved[lane] &&
          !SignalInDouble<T, kVectors, kPerEdge>{group, lane}.certified(k))
        failed[l] = -1;
    }
  }
  return failed;
}

// The check of certify (jaxtv/certificate.hpp) for the kDoubleLanes signals from `lane` on, of
// which it returns those that are `pending` and fail. Repairs their cuts: joins a cut that has no
// jump of its sign, and cuts an edge whose dual leaves its bounds. `y` and `size` are scratch for n
// values: of segments, at their first samples.
template <class T, int kVectors, bool kPerEdge, class Size>
DoubleMask repair_cuts(SignalGroup<T, kVectors>& group, int lane, DoubleMask pending, Double* y,
                       Size size) {
  constexpr int L = SignalGroup<T, kVectors>::kSignals;
  const auto wide = [&](const T* a, std::int64_t k) { return load_wide(a + k * L + lane); };
  const Double zero = {}, one = zero + 1.0, slack = zero + 8 * kUnit<double>;
  const Double none = (Double)(zero == zero);  // the dual of an edge that is no cut: a NaN
  const Double offset = wide(group.offset, 0);
  Double largest = zero;  // |sample| of the segment so far
  for_means(
      group, lane, [](Double ref, Double sum, Double count) { return ref + sum / count; },
      [&](std::int64_t k, Double value) {
        y[k] = value;
        largest = vmax(largest, vabs(wide(group.samples, k) + offset));
        size(k) = vmax(vabs(value), largest);  // `largest` where the value is NaN
        largest = keep(is_nan(value), largest);
      });
  DoubleMask failed = {};
  Double value = y[0], magnitude = size(0), u = zero, length = one;
  for (std::int64_t e = 0; e + 1 < group.n; ++e) {
    const Double dual = wide(group.duals, e + 1), bound = wide(group.weights, kPerEdge ? e : 0);
    const DoubleMask is_cut = dual == dual;
    const DoubleMask flat =
        pending & is_cut & (bound > zero) &
        (times_sign(y[e + 1] - value, dual) <= slack * vmax(magnitude, size(e + 1)));
    u += value - (wide(group.samples, e) + offset);
    length += one;
    const Double limit = bound + slack * length * (magnitude + bound);
    const DoubleMask outside = pending & ~is_cut & (vabs(u) > limit);
    failed |= flat | outside;
    const Double side = u > zero ? bound : -bound;
    u = outside ? side : (is_cut ? dual : u);
    length = is_cut | outside ? one : length;
    value = is_cut ? y[e + 1] : value;
    magnitude = is_cut ? size(e + 1) : magnitude;
    store_half(group.duals + (e + 1) * L + lane, narrow<T>(outside ? side : (flat ? none : dual)));
  }
  return failed;
}

// Repairs the cuts of the `failed` signals of vector g, together in double, and writes the solution
// of the vector again. Signals that fail after kMostRepairs repairs too become unsolved. Samples
// and weights that are multiples of one number (8 bit images) have many ties, which float cannot
// decide.
template <class T, int kVectors, bool kPerEdge>
void repair(SignalGroup<T, kVectors>& group, int g, typename Vectors<T>::M failed) {
  constexpr int kMostRepairs = 6;
  Double* y = reinterpret_cast<Double*>(group.values);  // no longer needed
  Double* messages =
      reinterpret_cast<Double*>(group.messages) + g;  // of this vector: no longer, too
  const auto size = [=](std::int64_t k) -> Double& { return messages[k * kVectors]; };
  const int begin = g * kLanes<T>, end = begin + kLanes<T>;
  for (int lane = begin; lane < end; lane += kDoubleLanes) {
    DoubleMask pending;
    for (int l = 0; l < kDoubleLanes; ++l) pending[l] = failed[lane - begin + l];
    for (int i = 0; i < kMostRepairs && any(pending); ++i)
      pending = repair_cuts<T, kVectors, kPerEdge>(group, lane, pending, y, size);
    for (int l = 0; l < kDoubleLanes; ++l) group.unsolved[lane + l] |= pending[l] != 0;
  }
  for (int lane = begin; lane < end; lane += kDoubleLanes) segment_values(group, lane);
  write_solution<T, kVectors, kPerEdge>(group, g);
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
