// Threshold decomposition, serial (Hochbaum 2001; Chambolle & Darbon 2009). For a threshold t the
// labels z_i = [y_i > t] minimise sum z_i (t - x_i) + sum w |z_{i+1} - z_i|: a two-state Viterbi
// with the message m_i = clamp(m_{i-1}, ±w_{i-1}) + (t - x_i). With t = the adjusted mean of a
// region either no label changes (the region is a segment) or it splits where labels change, with
// known jump signs. With data weights, every sample counts as often as its mass (data_weight.hpp).
#pragma once

#include "jaxtv/common.hpp"
#include "jaxtv/data_weight.hpp"

namespace jaxtv {

namespace decomposition_detail {

// While a region is split, sign[i] holds what the message says about label i: 0, 1, or as i + 1.
constexpr signed char kZero = 2, kOne = 3, kCopy = 4;

// Ties (a message at its bound up to round-off) stay joined. Not relative to all of the signal: a
// slack above the bounds of small weights would join what differs.
JAXTV_HD inline double round_off(double bound, double threshold, double sample, double mass = 1) {
  return 4 * kEps * (bound + mass * magnitude(threshold) + mass * magnitude(sample));
}

// One round on the region [a, b]; `left` and `right` are the duals at its two ends, `sum` and
// `total` the sums of mass (x - x_a) and of mass. Returns whether it cut.
template <class I, class X, class M, class W, class S>
JAXTV_HD bool split(I a, I b, double left, double right, double sum, double total, X x, M mass, W w,
                    S sign) {
  const double t = double(x[a]) + (sum + (right - left)) / total;
  double message = left + double(mass[a]) * (t - double(x[a]));
  for (I i = a; i < b; ++i) {
    const double bound = w[i];
    const double slack = round_off(bound, t, x[i], mass[i]);
    sign[i] = message > bound + slack ? kZero : (message < -bound - slack ? kOne : kCopy);
    message = max_of(-bound, min_of(bound, message)) + double(mass[i + 1]) * (t - double(x[i + 1]));
  }
  bool z = message - right < 0, cut = false;
  for (I i = b - 1; i >= a; --i) {
    const signed char code = sign[i];
    const bool zi = code == kCopy ? z : code == kOne;
    sign[i] = zi == z ? 0 : (z ? 1 : -1);
    cut |= zi != z;
    z = zi;
  }
  return cut;
}

}  // namespace decomposition_detail

// Finds the cuts of samples [first, stop), where `stop` is n or comes after a cut; sign[e] for
// first <= e < stop - 1 holds cuts that are known already, or 0. sign[first-1], when first > 0, is
// the jump at the left end. Rounds are bounded by the exponent range of the data (about 10 on real
// data), so this always ends.
template <class I, class X, class M, class W, class S>
JAXTV_HD void refine(I first, I stop, I n, X x, M mass, W w, S sign) {
  // A worklist without a stack: regions are finished left to right, the next one starts at `a`.
  for (I a = first; a < stop;) {
    I b = a;  // the region [a, b] ends at the next cut
    double sum = 0;
    while (b + 1 < n && sign[b] == 0) {
      ++b;
      sum += double(mass[b]) * (double(x[b]) - double(x[a]));
    }
    const double left = a > 0 ? double(sign[a - 1]) * double(w[a - 1]) : 0.0;
    const double right = b + 1 < n ? double(sign[b]) * double(w[b]) : 0.0;
    const double total = total_mass(mass, a, b);
    if (!decomposition_detail::split(a, b, left, right, sum, total, x, mass, w, sign)) a = b + 1;
  }
}
template <class I, class X, class W, class S>
JAXTV_HD void refine(I first, I stop, I n, X x, W w, S sign) {
  refine(first, stop, n, x, UnitMass{}, w, sign);
}

// Finds the cuts of samples [first, n) afresh.
template <class I, class X, class W, class S>
JAXTV_HD void decompose(I first, I n, X x, W w, S sign) {
  for (I e = first; e + 1 < n; ++e) sign[e] = 0;
  refine(first, n, n, x, w, sign);
}

}  // namespace jaxtv
