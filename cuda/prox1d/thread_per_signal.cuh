// The exact 1D prox of one signal by one thread: taut string within its budget of iterations,
// threshold decomposition for what is left after that, values from the cuts as on the CPU. States
// are double for both dtypes (include/jaxtv), so that the segments of a float32 signal are exact
// too.
//
// Memory of the thread: samples, weights (or one λ) and one signed char per sample for the cuts.
// They are reached through accessors with operator[]: Column for shared memory, Strided for global.
#pragma once

#include <type_traits>

#include "block/arena.cuh"
#include "jaxtv/certificate.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/overflow.hpp"
#include "jaxtv/taut_string.hpp"
#include "tuning.hpp"

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
  template <class Index>
  JAXTV_DEVICE T operator[](Index) const {
    return value;
  }
};

// Rounds that the float32 taut string may take.
template <int kRows>
JAXTV_HD constexpr int taut_string_budget(int n,
                                          int per_sample = tuning::TautStringBudget::kPerSample) {
  return (per_sample * n + tuning::TautStringBudget::kConstant) * 2 / (kRows + 1);
}

JAXTV_DEVICE float weights_of(const Uniform<float>& w) { return w.value; }
JAXTV_DEVICE Shared<float> weights_of(const Column<float>& w) { return w.data; }

// An array of cuts in shared memory, and the same four at a time.
struct Cuts {
  Shared<std::uint32_t> fours;
  Shared<signed char> each;
  int size;
  JAXTV_DEVICE Cuts(Arena& arena, std::size_t size) : size(int(size)) {
    fours = Arena(arena).take<std::uint32_t>(size / 4);
    each = arena.take<signed char>(size);
  }
  // By all threads of the block.
  JAXTV_DEVICE void clear() const {
    const int thread = threadIdx.x, threads = blockDim.x;
#pragma unroll 4
    for (int i = thread; i < size / 4; i += threads) fours[i] = 0;
    for (int i = size / 4 * 4 + thread; i < size; i += threads) each[i] = 0;
  }
};

// Makes x what taut_string_float calls fenced; returns its last sample, which has to be restored.
JAXTV_DEVICE float raise_fence(int n, int step, Shared<float> x, float w) {
  const Shared<float> last = x + (n - 1) * step;
  const float sample = last[0];
  last[0] = sample - w;
  last[step] = __builtin_huge_valf();
  return sample;
}

// The cuts of prox(x), and in y the value of each segment at the place of its first sample, by
// include/jaxtv/certificate.hpp; false where that cannot tell. y may be x, which is overwritten
// then. `taut_string` becomes false where it is the wrong method. `cuts` must be 0 before; x has
// room for one more sample.
template <int kRows, class Weights>
JAXTV_DEVICE bool certified_cuts(int n, int step, Shared<float> x, Weights w,
                                 Shared<signed char> cuts, Shared<float> y, bool& taut_string) {
  constexpr bool kPerEdge = !std::is_same_v<Weights, float>;
  x = held(x);
  cuts = held(cuts);
  float last = x[(n - 1) * step];
  if constexpr (!kPerEdge) last = raise_fence(n, step, x, w);
  taut_string = taut_string_float<kRows, kPerEdge, !kPerEdge>(n, n, step, x, w, cuts,
                                                              taut_string_budget<kRows>(n));
  x[(n - 1) * step] = last;
  return taut_string && certified_values<kRows, kPerEdge, true>(n, step, x, w, cuts, y);
}

// x = prox(x); false, with x overwritten, where float32 cannot tell.
template <int kRows, class Weights>
JAXTV_DEVICE bool prox_certified(int n, int step, Shared<float> x, Weights w,
                                 Shared<signed char> cuts, bool& taut_string) {
  if (!certified_cuts<kRows>(n, step, x, w, cuts, x, taut_string)) return false;
  float value = x[0];
#pragma unroll 4
  for (int k = 1; k < n; ++k) {
    x = x + step;
    const float start = x[0];
    value = cuts[0] != 0 ? start : value;
    x[0] = value;
    cuts = cuts + step;
  }
  return true;
}

struct Extent {
  double low, high;
  bool valid;  // all samples finite, all weights >= 0
  JAXTV_DEVICE double scale() const { return max_of(-low, high); }
  JAXTV_DEVICE double range() const { return high - low; }
};

template <class T, class Index>
JAXTV_DEVICE bool valid_weights(Index, const Uniform<T>& w) {
  return w.value >= T(0);
}
template <class T, class Index, class Weights>
JAXTV_DEVICE bool valid_weights(Index n, const Weights& w) {
  bool valid = true;
  for (Index e = 0; e + 1 < n; ++e) valid &= T(w[e]) >= T(0);
  return valid;
}

template <class T, class Index, class Samples, class Weights>
JAXTV_DEVICE Extent extent_of(Index n, Samples x, Weights w) {
  T low = x[0], high = low, probe = 0;
  for (Index k = 0; k < n; ++k) {
    const T v = x[k];
    probe += v - v;  // NaN as soon as one is not finite
    low = min_of(low, v);
    high = max_of(high, v);
  }
  return {double(low), double(high), probe == T(0) && valid_weights<T>(n, w)};
}

template <class Index, class Samples, class Weights, class Cuts>
JAXTV_DEVICE void find_cuts(Index n, Samples x, Weights w, Cuts cuts, double scale, double range,
                            bool taut_string) {
  Index first = 0;
  if (taut_string) first = ::jaxtv::taut_string(n, x, w, cuts, double(n) * range, {8 * n, 0});
  if (first < n) decompose(first, n, x, w, cuts);
  cut_weightless(n, w, cuts);
  while (fuse_ties(n, x, w, cuts, scale)) {
  }
}

// for_segments at the size `factor` of the signal that its cuts were found at.
template <class T, class Index, class Samples, class Weights, class Cuts, class F>
JAXTV_DEVICE void for_segments_at(double factor, Index n, Samples x, Weights w, Cuts cuts,
                                  F segment) {
  if constexpr (sizeof(T) == 4)
    for_segments<T>(n, x, w, cuts, segment);
  else
    for_segments<T>(n, Scaled<Samples>{x, factor}, Scaled<Weights>{w, factor}, cuts,
                    [&](Index begin, Index end, T value) { segment(begin, end, value / factor); });
}

// Values of the cuts, rounded as on the CPU; a sample between weights 0 is its own, bit for bit. y
// may be x.
template <class T, class Index, class Samples, class Weights, class Cuts, class Output>
JAXTV_DEVICE void write_values(double factor, Index n, Samples x, Weights w, Cuts cuts, Output y) {
  for_segments_at<T>(factor, n, x, w, cuts, [&](Index begin, Index end, T value) {
    T left = begin > 0 ? T(w[begin - 1]) : T(0);
    for (Index i = begin; i <= end; ++i) {
      const T right = i + 1 < n ? T(w[i]) : T(0);
      y[i] = left == T(0) && right == T(0) ? T(x[i]) : value;
      left = right;
    }
  });
}

// The cuts of prox(x), and the factor at which its values have to be formed; 0 where there is no
// solution. n >= 1. taut_string = false: decomposition from the start. Index: int, or int64 for
// signals beyond 2^27 samples.
template <class T, class Index, class Samples, class Weights, class Cuts>
JAXTV_DEVICE double prox_cuts(Index n, Samples x, Weights w, Cuts cuts, bool taut_string) {
  const Extent e = extent_of<T>(n, x, w);
  if (!e.valid) return 0;
  if constexpr (sizeof(T) == 4) {
    find_cuts(n, x, w, cuts, e.scale(), e.range(), taut_string);
    return 1;
  } else {
    const double f = e.scale() < kSolverLimit ? 1.0 : kSolverScale;
    find_cuts(n, Scaled<Samples>{x, f}, Scaled<Weights>{w, f}, cuts, e.scale() * f,
              e.high * f - e.low * f, taut_string);
    return f;
  }
}

// y = prox(x), all NaN where there is no solution; returns whether there is one. `cuts` gets the
// cuts. y may be x.
template <class T, class Index, class Samples, class Weights, class Cuts, class Output>
JAXTV_DEVICE bool prox_row(Index n, Samples x, Weights w, Cuts cuts, Output y,
                           bool taut_string = true) {
  const double factor = prox_cuts<T>(n, x, w, cuts, taut_string);
  if (factor != 0)
    write_values<T>(factor, n, x, w, cuts, y);
  else
    for (Index k = 0; k < n; ++k) y[k] = kNaN<T>;
  return factor != 0;
}

// The same in place, for a thread's column of shared memory; `cuts` must be 0 before. float32:
// certified in float32, which needs the samples again where that fails: reload() restores x.
template <class T, int kRows, class Weights, class F>
JAXTV_DEVICE void solve_column(int n, Column<T> x, Weights w, Column<signed char> cuts, F reload) {
  bool taut_string = true;
  if constexpr (sizeof(T) == 4) {
    if (prox_certified<kRows>(n, x.pitch, x.data, weights_of(w), cuts.data, taut_string)) return;
    reload();
  }
  prox_row<T>(n, x, w, cuts, x, taut_string);
}

}  // namespace jaxtv::cuda
