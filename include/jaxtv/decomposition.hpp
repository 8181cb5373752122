// Threshold decomposition, serial (Hochbaum 2001; Chambolle & Darbon 2009). For a threshold t the labels
// z_i = [y_i > t] minimise sum z_i (t - x_i) + sum w |z_{i+1} - z_i|: a two-state Viterbi with the message
// m_i = clamp(m_{i-1}, ±w_{i-1}) + (t - x_i). With t = the adjusted mean of a region either no label
// changes (the region is a segment) or it splits where labels change, with known jump signs.
#pragma once

#include "jaxtv/common.hpp"

namespace jaxtv {

// Finds the cuts of samples [first, n). sign[e] for e >= first is overwritten; sign[first-1], when
// first > 0, is the given jump at the left end. `m` is scratch of n values. `scale` bounds |x|.
// Rounds are bounded by the exponent range of the data (about 10 on real data), so this always ends.
template <class X, class W, class S, class M>
JAXTV_HD void decompose(std::ptrdiff_t first, std::ptrdiff_t n, X x, W w, S sign, M m,
                        double scale) {
  for (std::ptrdiff_t e = first; e + 1 < n; ++e) sign[e] = 0;
  // A worklist without a stack: regions are finished left to right, the next one starts at `a`.
  for (std::ptrdiff_t a = first; a < n;) {
    std::ptrdiff_t b = a;  // the region [a, b] ends at the next cut
    double sum = 0;
    while (b + 1 < n && sign[b] == 0) {
      ++b;
      sum += double(x[b]) - double(x[a]);
    }
    const double left = a > 0 ? double(sign[a - 1]) * double(w[a - 1]) : 0.0;
    const double right = b + 1 < n ? double(sign[b]) * double(w[b]) : 0.0;
    const double length = double(b - a + 1);
    const double t = double(x[a]) + (sum + (right - left)) / length;
    double message = left + (t - double(x[a]));
    m[a] = message;
    for (std::ptrdiff_t i = a + 1; i <= b; ++i) {
      const double bound = w[i - 1];
      message = max_of(-bound, min_of(bound, message)) + (t - double(x[i]));
      m[i] = message;
    }
    bool z = message - right < 0, cut = false;
    for (std::ptrdiff_t i = b - 1; i >= a; --i) {
      const double bound = w[i];
      const double slack = 4 * kEps * (bound + scale);  // ties stay joined
      const bool zi = m[i] > bound + slack ? false : (m[i] < -bound - slack ? true : z);
      if (zi != z) {
        sign[i] = z ? 1 : -1;
        cut = true;
      }
      z = zi;
    }
    if (!cut) a = b + 1;
  }
}

}  // namespace jaxtv
