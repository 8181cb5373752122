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
// A window gives up where a segment is longer.
constexpr int kLongestSegment = kWindow + 2 * kHalo;

struct ThreadWindow {
  int n, index;    // samples of the signal; number of the window
  int begin, end;  // samples of the window, and the edges after them
  JAXTV_DEVICE ThreadWindow(int n, int index)
      : n(n), index(index), begin(min_of(index * kWindow, n)), end(min_of(begin + kWindow, n)) {}
  JAXTV_DEVICE bool is_last() const { return begin < n && end == n; }
};

// The first and the last cut in a window; no such edge where there is none.
struct WindowCuts {
  int first = std::numeric_limits<int>::max(), last = -1;
};

// Cuts of the signal from sample `first` on, of which only those in a window are written.
class CutsOfWindow {
 public:
  JAXTV_DEVICE CutsOfWindow(const ThreadWindow& window, Shared<signed char> cuts, int first,
                            WindowCuts& found)
      : cuts_(cuts + window.begin),
        size_(window.end - window.begin),
        offset_(first - window.begin),
        found_(found) {}
  struct Element {
    const CutsOfWindow& all;
    int edge;  // of the window
    JAXTV_DEVICE void operator=(signed char sign) const {
      if (unsigned(edge) >= unsigned(all.size_)) return;
      all.cuts_[edge] = sign;
      all.found_.first = min_of(all.found_.first, edge);
      all.found_.last = edge;
    }
  };
  JAXTV_DEVICE Element operator[](int k) const { return {*this, offset_ + k}; }

 private:
  Shared<signed char> cuts_;
  int size_, offset_;
  WindowCuts& found_;
};

// Values of a signal from sample `first` on, of which only those before `end` are written.
struct ValuesBefore {
  Shared<float> data;
  int end;
  struct Element {
    const ValuesBefore& all;
    int index;
    JAXTV_DEVICE void operator=(float v) const {
      if (index < all.end) all.data[index] = v;
    }
  };
  JAXTV_DEVICE Element operator[](int k) const { return {*this, k}; }
};

JAXTV_DEVICE float weights_from(float w, int) { return w; }
JAXTV_DEVICE Shared<float> weights_from(Shared<float> w, int k) { return w + k; }
JAXTV_DEVICE float weight_at(float w, int) { return w; }
JAXTV_DEVICE float weight_at(Shared<float> w, int e) { return w[e]; }

// Finds the cuts, which must be 0 before; false where the taut string is the wrong method. With one
// λ the signal must have its fence.
template <class Weights>
JAXTV_DEVICE bool find_window(const ThreadWindow& window, Shared<float> x, Weights w,
                              Shared<signed char> cuts, WindowCuts& found) {
  constexpr bool kPerEdge = !std::is_same_v<Weights, float>;
  const int first = max_of(window.begin - kHalo, 0);
  if (window.begin == window.end) return true;
  return taut_string_float<kWindowRows, kPerEdge, !kPerEdge>(
      window.n - first, window.end - first, 1, held(x + first), weights_from(w, first),
      CutsOfWindow(window, held(cuts), first, found),
      taut_string_budget<kWindowRows>(kLongestSegment, tuning::TautStringBudget::kPerWindowSample),
      kLongestSegment);
}

// The segments that end in a window, and the one after them.
struct WindowSegments {
  int start = 0;             // of the segment that the window begins in
  int last = -1, next = -1;  // the last edge of a segment in the window, and of the one after it
  WindowSegments() = default;
  // `found`: of all windows of the signal, each counted from its first sample.
  JAXTV_DEVICE WindowSegments(const ThreadWindow& window, Shared<WindowCuts> found) {
    const int n = window.n;
    for (int i = window.index - 1; i >= 0 && start == 0; --i)
      if (const int edge = WindowCuts(found[i]).last; edge >= 0) start = i * kWindow + edge + 1;
    last = WindowCuts(found[window.index]).last;
    if (last >= 0) last += window.begin;
    if (window.end == n) last = next = n - 1;
    for (int i = window.index + 1; next < 0; ++i)
      if (i * kWindow >= n)
        next = n - 1;
      else if (const int edge = WindowCuts(found[i]).first; edge < kWindow)
        next = i * kWindow + edge;
  }
  JAXTV_DEVICE bool any() const { return last >= 0; }
  // Whether windows can know them.
  JAXTV_DEVICE bool known() const { return !any() || next - start < kLongestSegment; }
};

// Writes the values of the segments that end in the window, each to its first sample in y; whether
// they are certified.
template <class Weights>
JAXTV_DEVICE bool certify_window(const ThreadWindow& window, const WindowSegments& segments,
                                 Shared<float> x, Weights w, Shared<signed char> cuts,
                                 Shared<float> y) {
  if (!segments.any()) return true;
  const int start = segments.start;
  const auto dual = [&](int e) {
    return e >= 0 && e + 1 < window.n ? float(cuts[e]) * weight_at(w, e) : 0.0f;
  };
  return certified_values<kWindowRows, !std::is_same_v<Weights, float>, false>(
      segments.next + 1 - start, 1, held(x + start), weights_from(w, start), held(cuts + start),
      ValuesBefore{held(y + start), segments.last + 1 - start}, dual(segments.next),
      dual(start - 1));
}

// x = prox(x) in the window. `start`: of the segment that it begins in.
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
