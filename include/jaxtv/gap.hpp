// The duality gap of any y, not only of a solver's: a certificate that |y - y*|^2 <= 2 gap for
// every y, and <= gap for a dual-feasible one. With u = clip(cumsum(y - x)) and yhat = y(u),
//   gap = sum_e (w_e |D_e| - u_e D_e) + 1/2 |y - yhat|^2,   D = y_{e+1} - y_e,
// a sum of non-negative terms, so nothing cancels.
#pragma once

#include "jaxtv/common.hpp"

namespace jaxtv {

template <class X, class W, class Y>
JAXTV_HD double duality_gap(std::ptrdiff_t n, X x, W w, Y y) {
  double gap = 0, sum = 0, last = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    sum += double(y[i]) - double(x[i]);
    double u = 0;
    if (i + 1 < n) {
      const double bound = w[i], jump = double(y[i + 1]) - double(y[i]);
      u = max_of(-bound, min_of(bound, sum));
      if (jump != 0) gap += (bound - (jump > 0 ? u : -u)) * abs_of(jump);
    }
    const double miss = double(y[i]) - (double(x[i]) - last + u);
    gap += 0.5 * miss * miss;
    last = u;
  }
  return gap;
}

}  // namespace jaxtv
