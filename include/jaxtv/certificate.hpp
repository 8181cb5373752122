// Whether cuts (cuts.hpp) are the solution, by the KKT conditions: certify for a signal in double,
// certified_values for a short signal in float32.
#pragma once

#include "jaxtv/common.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/data_weight.hpp"

namespace jaxtv {

// Whether the cuts solve the problem: the dual stays inside its bounds within segments and every
// cut is a jump of its sign, each up to round-off of its segment and the next one. `y` holds the
// values of the cuts in double.
template <class X, class M, class W, class S, class Y>
JAXTV_HD bool certify(std::ptrdiff_t n, X x, M mass, W w, S sign, Y y) {
  double before = 0;  // max |sample| of the segment before, and its value
  for (std::ptrdiff_t begin = 0, end; begin < n; begin = end) {
    double largest = abs_of(double(y[begin]));
    for (end = begin; end == begin || (end < n && sign[end - 1] == 0); ++end)
      largest = max_of(largest, abs_of(double(x[end])));
    double u = 0, length = mass[begin];
    if (begin > 0) {
      const std::ptrdiff_t e = begin - 1;
      const double jump = (double(y[begin]) - double(y[e])) * double(sign[e]);
      if (w[e] > 0 && jump <= kTieSlack * max_of(before, largest)) return false;
      u = double(sign[e]) * double(w[e]);
    }
    for (std::ptrdiff_t e = begin; e + 1 < end; ++e) {
      const double bound = w[e], count = double(e + 2 - begin);
      length += double(mass[e + 1]);
      const double size = std::is_same_v<M, UnitMass> ? count * (largest + bound)
                                                      : length * largest + count * bound;
      u += double(mass[e]) * (double(y[e]) - double(x[e]));
      if (abs_of(u) > bound + 8 * kEps * size) return false;
    }
    before = largest;
  }
  return true;
}
template <class X, class W, class S, class Y>
JAXTV_HD bool certify(std::ptrdiff_t n, X x, W w, S sign, Y y) {
  return certify(n, x, UnitMass{}, w, sign, y);
}

// ---- float32 ----
//
// taut_string_float finds cuts; certified_values gives their values (sums in double, as in
// cuts.hpp) in one pass from the right and checks the KKT conditions with margins for round-off.
// Conditions that hold strictly have one solution: the cuts are then those of the float64 solution.
// A segment for which they do not (near ties) is checked in double, up to round-off, as certify
// does it. Where that fails too, and with samples that are not finite and weights that are bad,
// huge or one λ of 0, it returns false, and a solver in double has to solve the signal.

// Margin of a comparison relative to what it compares. Counted in units of 2^-24: a dual is off by
// at most 7.2 of its bound (sum rounded, bound added, both in units of it) and 5.1 of its distance
// to the mean (difference, reciprocal, product), a mean by 3.1 of itself.
constexpr float kMargin = 0x1p-20f;
constexpr float kLargestWeight = 1e37f;  // sums of a few weights do not overflow
// A jump is sure where it is so many times the slack of what is looked at: a tie depends on the
// largest sample of two segments, and only one of them is looked at.
constexpr double kSureJump = 256;

// Sample k is at x[k * step], the cut of the edge (k, k + 1) at sign[k * step], its weight at
// w[k * step], or w is the one weight: written for a GPU, whose threads interleave their signals.
//
// Writes the value of each segment of the cuts to the place of its first sample in y, which may be
// x. Returns whether the cuts are certified: the dual stays inside its bounds within segments, and
// every cut is a jump of its sign. The dual of an edge bounds the mean of its segment:
//   |right + sum_{j > e} (x_j - y)| <= w_e.
// `right` and `left`: the duals w s of the cuts at either end, 0 at those of the signal. Whether
// these cuts are jumps is not looked at. Threads of a warp end their segments together, after at
// most kRows samples each. kJoins: a cut without a jump may be taken back.
template <int kRows, bool kPerEdge, bool kJoins, class X, class W, class S, class Y>
JAXTV_HD bool certified_values(int n, int step, X x, W w, S sign, Y y, float right = 0,
                               float left = 0) {
  constexpr float kInfinite = __builtin_huge_valf();
  if constexpr (!kPerEdge)
    if (!(w > 0 && w <= kLargestWeight)) return false;
  const auto weight = [&](int e) {
    if constexpr (kPerEdge)
      return float(w[e]);
    else
      return w;
  };
  // low, high and their sums are in units of what a dual may not pass, where that is one number:
  // this saves a product per sample.
  const float per_unit = [&] {
    if constexpr (kPerEdge)
      return 1.0f;
    else
      return 1.0f / (w * (1 - kMargin));
  }();
  int at = (n - 1) * step;  // the first sample of the segment so far
  x = x + at;
  sign = sign + (at - step);  // the edge before it
  const auto go_left = [&] {
    at -= step;
    x = x + -step;
    sign = sign + -step;
  };
  float ref = x[0], count = 1, low = -kInfinite, high = kInfinite;
  double sum = 0, wide = ref;  // of x - ref from here to the right end; ref
  float pull = right * per_unit;
  // Of the segment to the right; means are relative to ref. The end is a sure jump.
  float direction = 1, other_ref = 3e38f, other_mean = 0, other_count = 1;
  double other_total = 0;  // count times mean
  bool certain = true;

  // What float cannot tell about the segment, in double. Its duals may touch their bounds. Where
  // the cut to the right is a tie, the segments are joined: true, with `total` of both.
  const auto decide_in_double = [&](double& total) {
    const double mean = total / double(count);
    double u = right, largest = abs_of(wide + mean);
    for (int i = int(count) - 1; i >= 0; --i) {
      const double sample = float(x[i * step]);
      largest = max_of(largest, abs_of(sample));
      if (i == 0) break;
      const double bound = weight(at + (i - 1) * step);
      u += (sample - wide) - mean;
      if (!(abs_of(u) <= bound + 8 * kEps * double(count) * (largest + bound))) certain = false;
    }
    if (!is_finite(largest)) certain = false;
    if (kPerEdge && right == 0) return false;
    const double apart = double(other_ref) - wide;
    const double rise = apart + (other_total / double(other_count) - mean);
    const double slack = kTieSlack * max_of(largest, abs_of(double(other_ref) + other_mean));
    if (rise * double(direction) > kSureJump * slack) return false;
    if (!(kJoins && abs_of(rise) <= slack)) {
      certain = false;
      return false;
    }
    total += other_total - double(count) * apart;
    return true;
  };

  // Ends the segment; `before`: w_{a-1} s_{a-1}. No early exits: they cost instructions, and other
  // threads of the warp go on.
  const auto finish = [&](float before) {
    const double ends = kPerEdge ? double(right) - double(before) : double(right - before);
    double total = sum + ends;
    float mean = quotient(float(total), count, reciprocal(count));
    const float size = magnitude(mean), scaled = mean * per_unit;
    const float within = smaller(scaled - low, high - scaled);
    const float apart = other_ref - ref, rise = apart + (other_mean - mean);
    const float least = kMargin * (magnitude(apart) + (size + magnitude(other_mean)));
    const bool jumps = rise * direction > least || (kPerEdge && right == 0);
    if (!(within > kMargin * magnitude(scaled) && jumps) && decide_in_double(total)) {
      sign[int(count) * step] = 0;
      count += other_count;
      ref = other_ref;
      mean = quotient(float(total), count, reciprocal(count));
    }
    y[at] = kPerEdge && mean == 0 ? ref : ref + mean;  // -0 + 0 would be +0
    other_ref = ref;
    other_mean = mean;
    other_total = total;
    other_count = count;
  };

#if defined(__CUDACC__)
#pragma unroll 1
#endif
  while (at > 0) {
    signed char cut = sign[0];
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int i = 0; i < kRows && cut == 0; ++i) {
      go_left();
      const float r = reciprocal(count), total = fused(float(sum), per_unit, pull);
      float reach = r;
      if constexpr (kPerEdge) {
        const float bound = weight(at);
        certain &= (bound > 0) & (bound <= kLargestWeight);
        reach *= bound * (1 - kMargin);
      }
      low = larger(low, fused(total, r, -reach));
      high = smaller(high, fused(total, r, reach));
      sum += double(float(x[0])) - wide;
      count += 1;
      if (i + 1 == kRows || at == 0) break;
      cut = sign[0];
    }
    if (cut == 0) continue;
    const float bound = weight(at - step), before = bound * float(cut);
    if constexpr (kPerEdge) certain &= (bound >= 0) & (bound <= kLargestWeight);
    finish(before);
    go_left();
    right = before;
    pull = before * per_unit;
    direction = float(cut);
    ref = x[0];
    wide = ref;
    sum = 0;
    count = 1;
    low = -kInfinite;
    high = kInfinite;
  }
  finish(left);
  return certain;
}

}  // namespace jaxtv
