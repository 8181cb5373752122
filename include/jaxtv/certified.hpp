// The float32 solution of one short signal, certified: the taut string in float32 finds cuts, one
// pass from the right gives their values (sums in double, as in cuts.hpp) and checks the KKT
// conditions with margins for round-off. Conditions that hold strictly have one solution: the cuts
// are then those of the float64 solution. Where it cannot tell (ties, samples that are not finite,
// weights that are bad, huge or one λ of 0, long ramps) it says so, and a solver in double has to
// do the signal.
//
// Sample k is at x[k * step], the cut of the edge (k, k + 1) at sign[k * step], its weight at
// w[k * step], or w is the one weight: written for a GPU, whose threads interleave their signals.
#pragma once

#include "jaxtv/common.hpp"

namespace jaxtv {

// Margin of a comparison relative to what it compares. Counted in units of 2^-24: a dual is off by
// at most 4.2 of its bound (sum rounded, bound added) and 5.1 of its distance to the mean
// (difference, reciprocal, product), a mean by 2.1 of itself.
constexpr float kMargin = 0x1p-20f;
constexpr float kLargestWeight = 1e37f;  // sums of a few weights do not overflow

// Single instructions on a GPU; with a NaN the result is the other operand, or NaN.
#if defined(__CUDA_ARCH__)
__device__ inline float smaller(float a, float b) { return fminf(a, b); }
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float magnitude(float a) { return fabsf(a); }
// 1 / count, off by at most 2^-23 of it.
__device__ inline float reciprocal(float count) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(count));
  return r;
}
// a / count for r = reciprocal(count), rounded correctly (Markstein 1990), without the code for
// divisors that counts never are.
__device__ inline float quotient(float a, float count, float r) {
  r = fmaf(fmaf(-count, r, 1.0f), r, r);
  const float q = a * r;
  return fmaf(fmaf(-q, count, a), r, q);
}
#else
JAXTV_HD inline float smaller(float a, float b) { return min_of(a, b); }
JAXTV_HD inline float larger(float a, float b) { return max_of(a, b); }
JAXTV_HD inline float magnitude(float a) { return abs_of(a); }
JAXTV_HD inline float reciprocal(float count) { return 1.0f / count; }
JAXTV_HD inline float quotient(float a, float count, float) { return a / count; }
#endif

// The linearised taut string (taut_string.hpp) in float32, relative to the first sample: `sign`
// gets the cuts and must be 0 before. p = umin - w and q = umax + w take the place of umin and
// umax. False when the trip budget ran out.
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
      const float carry = weight(e);
      at = e + step;
      bound = weight(at);
      vmin = (x[at] - base) + ((down ? carry : -carry) - bound);
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

// Writes the value of each segment of the cuts to the place of its first sample in y, which may be
// x. Returns whether the cuts are certified: the dual stays inside its bounds within segments, and
// every cut is a jump of its sign. The dual of an edge bounds the mean of its segment:
//   |right + sum_{j > e} (x_j - y)| <= w_e.
// `right` and `left`: the duals w s of the cuts at either end, 0 at those of the signal. Whether
// these cuts are jumps is not looked at.
template <bool kPerEdge, class X, class W, class S, class Y>
JAXTV_HD bool certified_values(int n, int step, X x, W w, S sign, Y y, float right = 0,
                               float left = 0) {
  constexpr float kInfinite = __builtin_huge_valf();
  if constexpr (!kPerEdge)
    if (!(w > 0 && w <= kLargestWeight)) return false;
  float here = x[(n - 1) * step], ref = here, count = 1, low = -kInfinite, high = kInfinite;
  double sum = 0, wide = ref;  // of x - ref from here to the right end; ref
  // Of the segment to the right; means are relative to ref. The end is a sure jump.
  float other_ref = right > 0 ? 3e38f : -3e38f, other_mean = 0;

  // Ends the segment that starts here; `before`: w_{a-1} s_{a-1}. No early exits: they cost
  // instructions, and other threads of the warp go on.
  bool certain = true;
  const auto finish = [&](int at, float before) {
    const double ends = kPerEdge ? double(right) - double(before) : double(right - before);
    const float mean = quotient(float(sum + ends), count, reciprocal(count));
    const float margin = kMargin * magnitude(mean);
    certain &= (mean - low >= margin) & (high - mean >= margin);
    const float apart = other_ref - ref, rise = apart + (other_mean - mean);
    const float least = kMargin * (magnitude(apart) + (magnitude(mean) + magnitude(other_mean)));
    const bool jumps = (right > 0 ? rise : -rise) > least;
    certain &= jumps | (kPerEdge && right == 0);
    y[at] = kPerEdge && mean == 0 ? ref : ref + mean;  // -0 + 0 would be +0
    other_ref = ref;
    other_mean = mean;
  };

#pragma unroll 1  // by two it is 79 instructions a sample, not 68
  for (int at = (n - 2) * step; at >= 0; at -= step) {
    const int cut = sign[at];
    const float next = x[at];
    const double wide_next = next;
    float weight;
    if constexpr (kPerEdge) {
      weight = w[at];
      certain &= (weight >= 0) & (weight <= kLargestWeight);
    } else {
      weight = w;
    }
    if (cut == 0) {
      if constexpr (kPerEdge) certain &= weight != 0;
      const float r = reciprocal(count), total = float(sum), inside = weight * (1 - kMargin);
      low = larger(low, (total + (right - inside)) * r);
      high = smaller(high, (total + (right + inside)) * r);
      sum += wide_next - wide;
      count += 1;
    } else {
      const float dual = cut > 0 ? weight : -weight;
      finish(at + step, dual);
      right = dual;
      ref = next;
      wide = wide_next;
      sum = 0;
      count = 1;
      low = -kInfinite;
      high = kInfinite;
    }
  }
  finish(0, left);
  return certain;
}

}  // namespace jaxtv
