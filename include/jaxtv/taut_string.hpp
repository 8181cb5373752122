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

// The same in float32, as an interval. A segment that starts after the dual u has its value between
//   max over its edges e of (S_e - w_e) / len_e   and   min of (S_e + w_e) / len_e,
// where S_e is the sum of its samples up to e, less u. It is read on until that interval is empty;
// it then ends at the edge that gave the bound that was not passed.
//
// Written for a GPU, whose threads interleave their signals (sample k is at x[k * step], and so on)
// and run in warps. Threads that have found an end wait until all have read kRows samples; then
// they go on to the next segment together. `sign` gets the cuts, and perhaps something at n - 1 and
// n; it must be 0 before. Finds the segments that start before sample `stop`; false when `rounds`
// of kRows samples were not enough.
//
// kFenced: x has infinity at n, and of its last sample w is subtracted. Then the last edge is one
// as any other, with the dual w.
// longest: false too where a segment is longer, unless it is 0.
template <int kRows, bool kPerEdge, bool kFenced, class X, class W, class S>
JAXTV_HD bool taut_string_float(int n, int stop, int step, X x, W w, S sign, int rounds,
                                int longest = 0) {
  static_assert(!(kPerEdge && kFenced));
  const int last = (n - 1) * step;
  // One weight is the unit of sums and bounds, which saves a product per sample.
  const float unit = [&] {
    if constexpr (kPerEdge)
      return 1.0f;
    else
      return 1.0f / w;
  }();
  const auto weight = [&](int e) {
    if constexpr (kPerEdge)
      return float(w[e]);
    else
      return 1.0f;
  };
  stop = min_of(stop * step, last);
  if (stop == 0) return true;
  const float base = x[0];
  // Of the segment: S_e and len_e of its last edge, the bounds of its value, and their edges.
  float sum = 0, count = 1, high = weight(0), low = -high;
  int lowest = 0, highest = 0, at = 0;
  X next = x + step;
  int limit = longest * step;
  for (; rounds > 0; --rounds) {
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int i = 0; i < kRows; ++i) {
      at += step;
      sum = fused(next[i * step] - base, unit, sum);
      count += 1;
      const float r = reciprocal(count), reach = (kFenced || at < last ? weight(at) : 0.0f) * r;
      const float least = fused(sum, r, -reach), most = fused(sum, r, reach);
      // NaN ends a segment. So does the last edge, for which both are equal.
      const bool rises = !(least < low), falls = !(most > high);
      lowest = rises ? at : lowest;
      low = rises ? least : low;
      highest = falls ? at : highest;
      high = falls ? most : high;
      if (!(low < high)) break;
    }
    next = next + kRows * step;
    if (longest > 0 && at > limit) rounds = 0;
    if (low < high) continue;
    const bool up = lowest > highest;  // the later bound has passed the other
    const int e = up ? highest : lowest;
    sign[e] = up ? 1 : -1;
    at = e + step;
    if (at >= stop) return true;  // what is left is one sample, or none
    const float dual = weight(e), bound = weight(at);
    next = x + at;
    sum = fused(next[0] - base, unit, up ? -dual : dual);
    next = next + step;
    limit = at + longest * step;
    count = 1;
    low = sum - bound;
    high = sum + bound;
    lowest = highest = at;
  }
  return false;
}

}  // namespace jaxtv
