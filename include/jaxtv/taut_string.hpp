// Linearised taut string (Condat 2013; Barbero & Sra 2018) as a flat state machine. A trip of its
// loop reads one sample and either extends the current segment or ends it; then it goes back to the
// end of that segment, and reads samples again.
#pragma once

#include "jaxtv/common.hpp"

namespace jaxtv {

// Patience: how many samples may be read again. The method is quadratic on long smooth ramps, which
// another one has to solve.
template <class I>
struct Patience {
  I rereads;             // in any case
  I rereads_per_sample;  // as many more for each sample that is solved
};

// Finds cuts from the left and returns the first sample that they do not cover: n, or less when
// patience ran out. `cap` bounds infinite weights; any value >= n * range(x) leaves the solution as
// it is.
template <class I, class X, class W, class S>
JAXTV_HD I taut_string(I n, X x, W w, S sign, double cap, Patience<I> patience) {
  const auto bound = [&](I e) { return e + 1 < n ? min_of(double(w[e]), cap) : 0.0; };
  I k = 0, start = 0, low = 0, high = 0;  // low/high: where vmin/vmax last touched
  double vmin = double(x[0]) - bound(0), vmax = double(x[0]) + bound(0);
  double umin = bound(0), umax = -umin;
  I rereads = 0;
  while (k + 1 < n) {
    const double next = x[k + 1], wn = bound(k + 1);
    double a = umin + (next - vmin), b = umax + (next - vmax);
    if (a < -wn || b > wn) {  // the segment [start, e] ends with a jump down (a) or up (b)
      const bool down = a < -wn;
      const I e = down ? low : high;
      for (I i = start; i < e; ++i) sign[i] = 0;
      sign[e] = down ? -1 : 1;
      const double dual = down ? bound(e) : -bound(e);  // moves into the next segment
      rereads += k - e;
      k = start = low = high = e + 1;
      if (rereads > patience.rereads + patience.rereads_per_sample * start) return start;
      vmin = double(x[k]) + dual - bound(k);
      vmax = double(x[k]) + dual + bound(k);
      umin = bound(k);
      umax = -umin;
    } else {
      ++k;
      const double r = 1.0 / double(k - start + 1);
      if (a >= wn) {
        vmin += (a - wn) * r;
        low = k;
        a = wn;
      }
      if (b <= -wn) {
        vmax += (b + wn) * r;
        high = k;
        b = -wn;
      }
      umin = a;
      umax = b;
    }
  }
  for (I i = start; i + 1 < n; ++i) sign[i] = 0;
  return n;
}

// The same in float32, relative to the first sample: `sign` gets the cuts and must be 0 before.
// p = umin - w and q = umax + w take the place of umin and umax. Sample k is at x[k * step], and so
// on: written for a GPU, whose threads interleave their signals. False when `trips` were not
// enough.
template <bool kPerEdge, class X, class W, class S>
JAXTV_HD bool taut_string_float(int n, int step, X x, W w, S sign, int trips) {
  const int last = (n - 1) * step;
  const auto weight = [&](int e) {
    if constexpr (kPerEdge)
      return e < last ? float(w[e]) : 0.0f;
    else
      return w;
  };
  const float base = x[0];
  float here = weight(0);  // weight of the edge before `at`
  int low = 0, high = 0;   // where vmin/vmax last touched
  float vmin = -here, vmax = here, p = 0, q = 0, count = 1;
  int at = step;
  for (; at <= last && trips > 0; --trips) {
    const float next = x[at] - base;
    float a = p + (next - vmin), b = q + (next - vmax), limit, bound = here;
    if constexpr (kPerEdge) {
      bound = weight(at);
      a += here - bound;
      b -= here - bound;
      limit = -2 * bound;
    } else {
      limit = at < last ? -2 * here : -here;
    }
    if (a < limit || b > -limit) {  // the segment ends with a jump down (a) or up (b)
      const bool down = a < limit;
      const int e = down ? low : high;
      sign[e] = down ? -1 : 1;
      const float dual = weight(e);
      at = e + step;
      bound = weight(at);
      vmin = (x[at] - base) + ((down ? dual : -dual) - bound);
      vmax = vmin + 2 * bound;
      a = b = count = 0;  // what follows then starts the next segment
    }
    here = bound;
    count += 1;
    const float r = reciprocal(count);
    vmin += larger(a, 0) * r;
    vmax += smaller(b, 0) * r;
    low = a >= 0 ? at : low;
    high = b <= 0 ? at : high;
    p = smaller(a, 0);
    q = larger(b, 0);
    at += step;
  }
  return at > last;
}

}  // namespace jaxtv
