// A solution of the 1D problem is its cuts: sign[e] = sign(y[e+1] - y[e]) where the dual of edge e
// sits at its bound, 0 where the edge is inside a segment. Values follow from the cuts by the KKT
// conditions:
//   |C| y_C = sum_C x + w_b s_b - w_{a-1} s_{a-1}      for a segment C = [a..b].
// With data weights the sum is of mass x, and |C| the sum of mass (data_weight.hpp).
#pragma once

#include "jaxtv/common.hpp"
#include "jaxtv/data_weight.hpp"

namespace jaxtv {

constexpr double kTieSlack = 8 * kEps;  // of jumps, relative to what they are between

// ref + sum / count, rounded to R as every path does it. Where float overflows on the way (the
// result is between the samples) it is rounded at the end only.
template <class R>
JAXTV_HD R segment_value(double ref, double sum, double count) {
  const R value = R(ref) + R(sum) / R(count);
  return is_finite(value) ? value : R(ref + sum / count);
}

// Calls segment(a, b, ref, rest, count), value = ref + rest / count, for the segments that belong
// to the cuts, from the last to the first, with sums in double.
template <class I, class X, class M, class W, class S, class F>
JAXTV_HD void for_sums(I n, X x, M mass, W w, S sign, F segment) {
  double right = 0;  // w_b s_b at the right end of the current segment
  for (I b = n - 1; b >= 0;) {
    const double ref = x[b];
    double sum = 0, count = mass[b];
    I a = b;
    while (a > 0 && sign[a - 1] == 0) {
      --a;
      sum += double(mass[a]) * (double(x[a]) - ref);
      count += double(mass[a]);
    }
    const double left = a > 0 ? double(sign[a - 1]) * double(w[a - 1]) : 0.0;
    segment(a, b, ref, sum + (right - left), count);
    right = left;
    b = a - 1;
  }
}

// Calls segment(a, b, value) for these segments. Every path (serial, lanes) sums in this order and
// in double and rounds the quotient to R, so that all of them give the same bits.
template <class R, class I, class X, class M, class W, class S, class F>
JAXTV_HD void for_segments(I n, X x, M mass, W w, S sign, F segment) {
  for_sums(n, x, mass, w, sign, [&](I a, I b, double ref, double rest, double count) {
    segment(a, b, segment_value<R>(ref, rest, count));
  });
}
template <class R, class I, class X, class W, class S, class F>
JAXTV_HD void for_segments(I n, X x, W w, S sign, F segment) {
  for_segments<R>(n, x, UnitMass{}, w, sign, segment);
}

// An edge of weight 0 joins nothing: it is a cut, also where it has no jump or a jump of round-off.
template <class I, class W, class S>
JAXTV_HD void cut_weightless(I n, W w, S sign) {
  for (I e = 0; e + 1 < n; ++e)
    if (sign[e] == 0 && w[e] == 0) sign[e] = 1;
}

// Writes the values that belong to the cuts. y may be x.
template <class R = double, class I, class X, class W, class S, class Y>
JAXTV_HD void values_from_cuts(I n, X x, W w, S sign, Y y) {
  for_segments<R>(n, x, w, sign, [&](I a, I b, R value) {
    for (I i = a; i <= b; ++i) y[i] = value;
  });
}

// Whether the cut of edge e between segments of the values `left` and `right` is a tie, a dual that
// touches its bound without a jump: it has the wrong sign, or is round-off. Round-off is relative
// to the samples of the two segments: those further away, however large, do not enter their values.
// `scale`: max |sample| of the signal, which tells most jumps at once.
template <class I, class X, class S>
JAXTV_HD bool is_tie(I e, double left, double right, I n, X x, S sign, double scale) {
  const double jump = (right - left) * double(sign[e]);
  const auto within_round_off = [=](double size) { return jump <= kTieSlack * abs_of(size); };
  if (!within_round_off(scale)) return false;
  if (within_round_off(left) || within_round_off(right)) return true;
  for (I i = e; i == e || (i >= 0 && sign[i] == 0); --i)
    if (within_round_off(x[i])) return true;
  for (I i = e + 1; i == e + 1 || (i < n && sign[i - 1] == 0); ++i)
    if (within_round_off(x[i])) return true;
  return false;
}

// Joins ties. Returns whether it joined any. `y` holds the values of the present cuts.
template <class X, class W, class S, class Y>
JAXTV_HD bool join_ties(std::ptrdiff_t n, X x, W w, S sign, Y y, double scale) {
  bool joined = false;
  for (std::ptrdiff_t e = 0; e + 1 < n; ++e) {
    if (sign[e] == 0 || !(w[e] > 0) || !is_tie(e, y[e], y[e + 1], n, x, sign, scale)) continue;
    sign[e] = 0;
    joined = true;
  }
  return joined;
}

// The same for the values of the present cuts, which need no memory here.
template <class I, class X, class W, class S>
JAXTV_HD bool fuse_ties(I n, X x, W w, S sign, double scale) {
  bool joined = false;
  double next = 0;  // value of the segment to the right
  for_segments<double>(n, x, w, sign, [&](I, I b, double value) {
    if (b + 1 < n && w[b] > 0 && is_tie(b, value, next, n, x, sign, scale)) {
      sign[b] = 0;
      joined = true;
    }
    next = value;
  });
  return joined;
}

}  // namespace jaxtv
