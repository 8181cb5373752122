// A solution of the 1D problem is its cuts: sign[e] = sign(y[e+1] - y[e]) where the dual of edge e
// sits at its bound, 0 where the edge is inside a segment. Values follow from the cuts by the KKT
// conditions:
//   |C| y_C = sum_C x + w_b s_b - w_{a-1} s_{a-1}      for a segment C = [a..b].
#pragma once

#include "jaxtv/common.hpp"

namespace jaxtv {

// ref + sum / count, rounded to R as every path does it. Where float overflows on the way (the
// result is between the samples) it is rounded at the end only.
template <class R>
JAXTV_HD R segment_value(double ref, double sum, double count) {
  const R value = R(ref) + R(sum) / R(count);
  return is_finite(value) ? value : R(ref + sum / count);
}

// Calls segment(a, b, ref, rest, count), value = ref + rest / count, for the segments that belong
// to the cuts, from the last to the first, with sums in double.
template <class I, class X, class W, class S, class F>
JAXTV_HD void for_sums(I n, X x, W w, S sign, F segment) {
  double right = 0;  // w_b s_b at the right end of the current segment
  for (I b = n - 1; b >= 0;) {
    const double ref = x[b];
    double sum = 0, count = 1;
    I a = b;
    while (a > 0 && sign[a - 1] == 0) {
      --a;
      sum += double(x[a]) - ref;
      count += 1;
    }
    const double left = a > 0 ? double(sign[a - 1]) * double(w[a - 1]) : 0.0;
    segment(a, b, ref, sum + (right - left), count);
    right = left;
    b = a - 1;
  }
}

// Calls segment(a, b, value) for these segments. Every path (serial, lanes) sums in this order and
// in double and rounds the quotient to R, so that all of them give the same bits.
template <class R, class I, class X, class W, class S, class F>
JAXTV_HD void for_segments(I n, X x, W w, S sign, F segment) {
  for_sums(n, x, w, sign, [&](I a, I b, double ref, double rest, double count) {
    segment(a, b, segment_value<R>(ref, rest, count));
  });
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

// Ties (a dual that touches its bound without a jump) leave cuts whose jump is round-off or has the
// wrong sign: joins them. Returns whether it joined any. `y` holds the values of the present cuts.
template <class W, class S, class Y>
JAXTV_HD bool join_ties(std::ptrdiff_t n, W w, S sign, Y y, double scale) {
  const double slack = 8 * kEps * scale;
  bool joined = false;
  for (std::ptrdiff_t e = 0; e + 1 < n; ++e) {
    if (sign[e] == 0 || !(w[e] > 0)) continue;
    if ((double(y[e + 1]) - double(y[e])) * double(sign[e]) <= slack) {
      sign[e] = 0;
      joined = true;
    }
  }
  return joined;
}

// The same for the values of the present cuts, which need no memory here.
template <class I, class X, class W, class S>
JAXTV_HD bool fuse_ties(I n, X x, W w, S sign, double scale) {
  const double slack = 8 * kEps * scale;
  bool joined = false;
  double next = 0;  // value of the segment to the right
  for_segments<double>(n, x, w, sign, [&](I, I b, double value) {
    if (b + 1 < n && w[b] > 0 && (next - value) * double(sign[b]) <= slack) {
      sign[b] = 0;
      joined = true;
    }
    next = value;
  });
  return joined;
}

}  // namespace jaxtv
