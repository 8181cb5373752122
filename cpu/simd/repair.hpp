// Local repair: the cuts of a bundle start from those of the sweep before, which differ little. The
// optimality conditions are local. Where the old cuts break them, a window is solved again: all
// segments at wrong edges, with the duals at the ends of the window held. The taut string takes the
// windows of a bundle one after the other, as it takes whole signals.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "simd/bundle.hpp"
#include "simd/interval_string.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

template <class T, int kVectors>
class Repair {
  using M = typename Vectors<T>::M;
  static constexpr std::int64_t L = Bundle<T, kVectors>::kSignals;

 public:
  // The samples [begin, end) of a signal, the s-th one of a lane, between two cuts that stay. No
  // two windows touch each other.
  struct Window {
    std::int32_t s, lane, begin, end;
    std::int32_t row, in_lane;  // where it lies among the windows
    bool wider;                 // it is to be solved again with the segments next to it
  };

  explicit Repair(const Bundle<T, kVectors>& bundle)
      : b_(bundle), windows_(reinterpret_cast<Window*>(bundle.windows)), end_(windows_) {}

  Window* begin() const { return windows_; }
  Window* end() const { return end_; }
  bool empty() const { return end_ == windows_; }
  std::int64_t rows() const { return rows_; }  // that the windows take

  // Adds the windows of the s-th signal of lane g * kLanes + l, from the marks of spread_values.
  // Returns false where windows would save nothing.
  bool add(std::int64_t s, int g, int l, const M* wrong) {
    constexpr int kBits = kWordBits<T>;
    const int lane = g * kLanes<T> + l;
    std::int64_t begin = 0, end = 0;  // of the window so far
    for (std::int64_t first = 0; first + 1 < b_.n; first += kBits) {
      for (auto bits = std::make_unsigned_t<I>(wrong[first / kBits][l]); bits; bits &= bits - 1) {
        const std::int64_t e = first + std::countr_zero(bits);
        if (e + 1 < end) continue;
        if (e >= end) {
          const std::int64_t next = begin_of_segment(s, lane, e);
          if (next > end || begin == end) {
            if (begin < end && !push(s, lane, begin, end)) return false;
            begin = next;
          }
        }
        end = end_of_segment(s, lane, e + 1);
      }
    }
    return begin == end || push(s, lane, begin, end);
  }

  // Finds the cuts of all windows. Returns false where other methods are faster.
  bool run() {
    std::int32_t rows[L] = {}, most = 0, lane = 0;
    for (Window* w = windows_; w < end_; ++w) {
      if (rows[lane] * L >= rows_) ++lane;  // a lane has its share
      w->in_lane = lane;
      w->row = rows[lane];
      copy(*w);
      rows[lane] += w->end - w->begin + 1;
      most = rows[lane] > most ? rows[lane] : most;
    }
    const T none = T(__builtin_nanf(""));
    for (std::int64_t l = 0; l < L; ++l)
      for (std::int64_t k = rows[l]; k < most + kPadding; ++k)
        b_.window_lanes[l * pitch() + k] = none;
    for (std::int64_t i = 0; i < (most + 1) * L; ++i) b_.window_duals[i] = none;
    return IntervalString<T, kVectors>(b_.window_lanes, b_.window_duals, most, pitch()).run(T(1));
  }

  // The duals of the edges of a window, in units of its weight, in rows.
  const T* cuts(const Window& w) const { return b_.window_duals + w.row * L + w.in_lane; }
  T weight(const Window& w) const { return b_.weights[w.s * L + w.lane]; }

  // Keeps the windows that have to be wider, and makes them so by a segment on both sides. Returns
  // false where they would save nothing.
  bool widen() {
    Window* const end = end_;
    end_ = windows_;
    rows_ = 0;
    for (const Window* next = windows_; next < end; ++next) {
      if (!next->wider) continue;
      const Window w = *next;
      std::int64_t first = w.begin > 0 ? begin_of_segment(w.s, w.lane, w.begin - 1) : 0;
      const std::int64_t last = w.end < b_.n ? end_of_segment(w.s, w.lane, w.end) : b_.n;
      if (!empty() && end_[-1].s == w.s && end_[-1].lane == w.lane && first <= end_[-1].end) {
        const Window before = *--end_;
        rows_ -= before.end - before.begin + 1;
        first = before.begin < first ? before.begin : first;
      }
      if (!push(w.s, w.lane, first, last)) return false;
    }
    return true;
  }

 private:
  using I = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

  const Bundle<T, kVectors>& b_;
  Window* const windows_;
  Window* end_;
  std::int64_t rows_ = 0;

  std::int64_t pitch() const { return b_.pitch_of(b_.most_window_rows()); }
  // Of sample k, in arrays of rows.
  std::int64_t at(std::int64_t s, int lane, std::int64_t k) const {
    return (s * (b_.n + 1) + k) * L + lane;
  }
  std::int64_t begin_of_segment(std::int64_t s, int lane, std::int64_t k) const {
    const T* duals = b_.duals + at(s, lane, 0);
    while (k > 0 && duals[(k - 1) * L] != duals[(k - 1) * L]) --k;
    return k;
  }
  std::int64_t end_of_segment(std::int64_t s, int lane, std::int64_t k) const {
    const T* duals = b_.duals + at(s, lane, 0);
    while (k + 1 < b_.n && duals[k * L] != duals[k * L]) ++k;
    return k + 1;
  }

  bool push(std::int64_t s, int lane, std::int64_t begin, std::int64_t end) {
    rows_ += end - begin + 1;
    if (rows_ > b_.rows() * L / 2) return false;
    *end_++ = {
        .s = std::int32_t(s), .lane = lane, .begin = std::int32_t(begin), .end = std::int32_t(end)};
    return true;
  }

  // Samples as fill_lanes and end_lanes write those of a signal, but for the duals at the ends.
  void copy(const Window& w) const {
    const std::int64_t first = at(w.s, w.lane, w.begin), length = w.end - w.begin;
    const T *x = b_.samples + first, *duals = b_.duals + first;
    T* target = b_.window_lanes + w.in_lane * pitch() + w.row;
    const T offset = x[0], factor = T(1) / weight(w);
    JAXTV_UNROLL
    for (std::int64_t i = 0; i < length; ++i) target[i] = (x[i * L] - offset) * factor;
    const auto sign = [](T dual) { return T(dual > 0) - T(dual < 0); };
    target[0] -= 1 + (w.begin > 0 ? sign(duals[-L]) : T(0));
    target[length - 1] -= 1 - (w.end < b_.n ? sign(duals[(length - 1) * L]) : T(0));
    target[length] = kSeparator<T>;
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
