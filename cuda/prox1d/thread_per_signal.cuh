// The exact 1D prox of one signal by one thread: taut string within its budget of trips, threshold
// decomposition for what is left then, values from the cuts as on the CPU. States are double for
// both dtypes (include/jaxtv), so that the segments of a float32 signal are exact too.
//
// Memory of the thread: samples, weights (or one λ) and one signed char per sample for the cuts.
// They are reached through accessors with operator[]: Column for shared memory, Strided for global.
#pragma once

#include <type_traits>

#include "block/launch.cuh"
#include "jaxtv/certificate.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/overflow.hpp"
#include "jaxtv/taut_string.hpp"

namespace jaxtv::cuda {

// One lane's samples of a tile: row k of column `data`.
template <class T>
struct Column {
  Shared<T> data;  // of the lane's first row
  int pitch;
  JAXTV_DEVICE decltype(auto) operator[](int k) const { return data[k * pitch]; }
};

// One λ for all edges.
template <class T>
struct Uniform {
  T value;
  template <class I>
  JAXTV_DEVICE T operator[](I) const {
    return value;
  }
};

// Budget of trips in float32. Data on which the taut string is the right method takes up to 3.5 a
// sample (a warp's slowest lane); a ramp spends the budget before it is decomposed.
constexpr int kTrips = 4, kMoreTrips = 64;

JAXTV_DEVICE float weights_of(const Uniform<float>& w) { return w.value; }
JAXTV_DEVICE Shared<float> weights_of(const Column<float>& w) { return w.data; }

// The cuts of prox(x), and in y the value of each segment at the place of its first sample, by
// include/jaxtv/certificate.hpp; false where that cannot tell. y may be x, which is spoilt then.
// `taut` becomes false where the taut string is the wrong method.
template <class W>
JAXTV_DEVICE bool certified_cuts(int n, int step, Shared<float> x, W w, Shared<signed char> sign,
                                 Shared<float> y, bool& taut) {
  constexpr bool kPerEdge = !std::is_same_v<W, float>;
#pragma unroll 4
  for (int k = 0; k < n; ++k) sign[k * step] = 0;
  taut = taut_string_float<kPerEdge>(n, step, x, w, sign, kTrips * n + kMoreTrips);
  return taut && certified_values<kPerEdge>(n, step, x, w, sign, y);
}

// x = prox(x); false, with x spoilt, where float32 cannot tell.
template <class W>
JAXTV_DEVICE bool prox_certified(int n, int step, Shared<float> x, W w, Shared<signed char> sign,
                                 bool& taut) {
  if (!certified_cuts(n, step, x, w, sign, x, taut)) return false;
  float value = x[0];
#pragma unroll 4
  for (int k = 1; k < n; ++k) {
    if (sign[(k - 1) * step] != 0) value = x[k * step];
    x[k * step] = value;
  }
  return true;
}

struct Extent {
  double low, high;
  bool valid;  // all samples finite, all weights >= 0
  JAXTV_DEVICE double scale() const { return max_of(-low, high); }
  JAXTV_DEVICE double range() const { return high - low; }
};

template <class T, class I>
JAXTV_DEVICE bool valid_weights(I, const Uniform<T>& w) {
  return w.value >= T(0);
}
template <class T, class I, class W>
JAXTV_DEVICE bool valid_weights(I n, const W& w) {
  bool valid = true;
  for (I e = 0; e + 1 < n; ++e) valid &= T(w[e]) >= T(0);
  return valid;
}

template <class T, class I, class X, class W>
JAXTV_DEVICE Extent extent_of(I n, X x, W w) {
  T low = x[0], high = low, probe = 0;
  for (I k = 0; k < n; ++k) {
    const T v = x[k];
    probe += v - v;  // NaN as soon as one is not finite
    low = min_of(low, v);
    high = max_of(high, v);
  }
  return {double(low), double(high), probe == T(0) && valid_weights<T>(n, w)};
}

template <class I, class X, class W, class S>
JAXTV_DEVICE void find_cuts(I n, X x, W w, S sign, double scale, double range, bool taut) {
  I first = 0;
  if (taut) first = taut_string(n, x, w, sign, double(n) * range, {8 * n, 0});
  if (first < n) decompose(first, n, x, w, sign);
  cut_weightless(n, w, sign);
  while (fuse_ties(n, x, w, sign, scale)) {
  }
}

// for_segments at the size `factor` of the signal that its cuts were found at.
template <class T, class I, class X, class W, class S, class F>
JAXTV_DEVICE void for_segments_at(double factor, I n, X x, W w, S sign, F segment) {
  if constexpr (sizeof(T) == 4)
    for_segments<T>(n, x, w, sign, segment);
  else
    for_segments<T>(n, Scaled<X>{x, factor}, Scaled<W>{w, factor}, sign,
                    [&](I a, I b, T value) { segment(a, b, value / factor); });
}

// Values of the cuts, rounded as on the CPU; a sample between weights 0 is its own, bit for bit. y
// may be x.
template <class T, class I, class X, class W, class S, class Y>
JAXTV_DEVICE void write_values(double factor, I n, X x, W w, S sign, Y y) {
  for_segments_at<T>(factor, n, x, w, sign, [&](I a, I b, T value) {
    T left = a > 0 ? T(w[a - 1]) : T(0);
    for (I i = a; i <= b; ++i) {
      const T right = i + 1 < n ? T(w[i]) : T(0);
      y[i] = left == T(0) && right == T(0) ? T(x[i]) : value;
      left = right;
    }
  });
}

// The cuts of prox(x), and the factor at which its values have to be formed; 0 where there is no
// solution. n >= 1. taut = false: decomposition from the start. I: int, or int64 for signals beyond
// 2^27 samples.
template <class T, class I, class X, class W, class S>
JAXTV_DEVICE double prox_cuts(I n, X x, W w, S sign, bool taut) {
  const Extent e = extent_of<T>(n, x, w);
  if (!e.valid) return 0;
  if constexpr (sizeof(T) == 4) {
    find_cuts(n, x, w, sign, e.scale(), e.range(), taut);
    return 1;
  } else {
    const double f = e.scale() < kSolverLimit ? 1.0 : kSolverScale;
    find_cuts(n, Scaled<X>{x, f}, Scaled<W>{w, f}, sign, e.scale() * f, e.high * f - e.low * f,
              taut);
    return f;
  }
}

// y = prox(x), all NaN where there is no solution; returns whether there is one. `sign` gets the
// cuts. y may be x.
template <class T, class I, class X, class W, class S, class Y>
JAXTV_DEVICE bool prox_row(I n, X x, W w, S sign, Y y, bool taut = true) {
  const double factor = prox_cuts<T>(n, x, w, sign, taut);
  if (factor != 0)
    write_values<T>(factor, n, x, w, sign, y);
  else
    for (I k = 0; k < n; ++k) y[k] = kNaN<T>;
  return factor != 0;
}

// The same in place, for a thread's column of shared memory. float32: certified in float32, which
// needs the samples again where that fails: reload() restores x.
template <class T, class W, class F>
JAXTV_DEVICE void solve_column(int n, Column<T> x, W w, Column<signed char> sign, F reload) {
  bool taut = true;
  if constexpr (sizeof(T) == 4) {
    if (prox_certified(n, x.pitch, x.data, weights_of(w), sign.data, taut)) return;
    reload();
  }
  prox_row<T>(n, x, w, sign, x, taut);
}

}  // namespace jaxtv::cuda
