// The float32 solution of one signal by a few threads. Each finds the cuts of a window of it by the
// taut string, which starts some samples before and ends some after, as what is further away
// hardly ever matters. Then each forms the values of the segments that end in its window and
// certifies them (jaxtv/certificate.hpp) together with the jump to the segment after them. Where
// all threads can, the cuts solve the signal, however they were found.
#pragma once

#include "prox1d/thread_per_signal.cuh"

namespace jaxtv::cuda {

constexpr int kWindow = tuning::ThreadWindows::kWindow, kHalo = tuning::ThreadWindows::kHalo;
constexpr int kWindowRows = tuning::RowsPerRound::kProx;

struct ThreadWindow {
  int n, begin, end;  // samples of the signal; those of the window, and the edges after them
  JAXTV_DEVICE ThreadWindow(int n, int index)
      : n(n), begin(min_of(index * kWindow, n)), end(min_of(begin + kWindow, n)) {}
};

// An array of the signal from sample `first` on, in which only [begin, end) is written.
template <class T>
struct Within {
  Shared<T> data;
  int first, begin, end;
  struct Element {
    const Within& all;
    int index;
    JAXTV_DEVICE void operator=(T v) const {
      if (index >= all.begin && index < all.end) all.data[index] = v;
    }
  };
  JAXTV_DEVICE Element operator[](int k) const { return {*this, first + k}; }
};

JAXTV_DEVICE float weights_from(float w, int) { return w; }
JAXTV_DEVICE Shared<float> weights_from(Shared<float> w, int k) { return w + k; }
JAXTV_DEVICE float weight_at(float w, int) { return w; }
JAXTV_DEVICE float weight_at(Shared<float> w, int e) { return w[e]; }

// Finds the cuts, which must be 0 before; false where the taut string is the wrong method.
template <class Weights>
JAXTV_DEVICE bool find_window(const ThreadWindow& window, Shared<float> x, Weights w,
                              Shared<signed char> cuts) {
  const int first = max_of(window.begin - kHalo, 0), stop = min_of(window.end + kHalo, window.n);
  const int length = stop - first;
  if (window.begin == window.end) return true;
  return taut_string_float<kWindowRows, !std::is_same_v<Weights, float>, false>(
      length, window.end - first, 1, x + first, weights_from(w, first),
      Within<signed char>{cuts, first, window.begin, window.end},
      taut_string_budget<kWindowRows>(length));
}

// Writes the values of the segments that end in the window, each to its first sample in y; whether
// they are certified. `start`: of the segment that the window begins in.
template <class Weights>
JAXTV_DEVICE bool certify_window(const ThreadWindow& window, Shared<float> x, Weights w,
                                 Shared<signed char> cuts, Shared<float> y, int& start) {
  const int n = window.n;
  const auto is_edge = [&](int e) { return e >= 0 && e + 1 < n; };
  const auto ends_segment = [&](int e) { return !is_edge(e) || cuts[e] != 0; };
  int before = window.begin - 1;  // the cuts before the window, the last in it, and the next
  while (!ends_segment(before)) --before;
  start = before + 1;
  int last = window.end - 1;
  while (last >= window.begin && !ends_segment(last)) --last;
  if (last < window.begin) return true;
  int next = last;
  if (is_edge(last)) ++next;
  while (!ends_segment(next)) ++next;
  const auto dual = [&](int e) { return is_edge(e) ? float(cuts[e]) * weight_at(w, e) : 0.0f; };
  return certified_values<kWindowRows, !std::is_same_v<Weights, float>>(
      next + 1 - start, 1, x + start, weights_from(w, start), cuts + start,
      Within<float>{y, start, start, last + 1}, dual(next), dual(before));
}

// x = prox(x) in the window.
JAXTV_DEVICE void write_window(const ThreadWindow& window, Shared<float> x,
                               Shared<signed char> cuts, Shared<float> y, int start) {
  if (window.begin == window.end) return;
  float value = y[start];
  x[window.begin] = value;
#pragma unroll 4
  for (int k = window.begin + 1; k < window.end; ++k) {
    if (cuts[k - 1] != 0) value = y[k];
    x[k] = value;
  }
}

}  // namespace jaxtv::cuda
