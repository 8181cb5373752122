// A long signal is cut into windows that the lanes solve as signals of their own. Where such a
// solution jumps, the dual of the edge is at its bound, so the solutions of the two sides of a
// jump depend on its sign only. Around each seam of two windows the piece between a jump of the
// left and a jump of the right one is solved again with these duals. If then both jumps keep their
// signs, all optimality conditions hold and the joined solution is the solution; else the piece
// grows to jumps further out. No solution is trusted without this check, so the result does not
// depend on the windows.
#include "windows.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "jaxtv/common.hpp"
#include "scratch.hpp"
#include "serial.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kWindow = 1024;
std::atomic<std::int64_t> by_strings{0}, by_windows{0};

// A piece of a signal to solve, [begin, end), and whether it has to grow.
struct Seam : Piece {
  std::int64_t signal;
  bool valid = true, grow_left = false, grow_right = false;
};

// What the pieces around seams need of a window: its first and last jump, the smallest jump, and
// max |sample|.
template <class T>
struct Window {
  std::int64_t first = -1, last = -1;  // the sample before the jump
  T closest = std::numeric_limits<T>::infinity();
  T scale = 0;  // NaN when the window has no solution
};

template <class T>
class Long {
 public:
  // The signals of sweep.shape.inner, at sweep.shape.outer = 1.
  Long(const Pool& pool, const Sweep<T>& sweep)
      : pool_(pool),
        s_(sweep),
        n_(sweep.shape.n),
        inner_(sweep.shape.inner),
        count_(n_ / kWindow),
        z_(sweep.y ? sweep.y : sweep.residual),
        windows_(count_ * inner_),
        scale_(inner_) {}

  void solve() {
    if (prox_strings(pool_, s_, z_)) {
      ++by_strings;
    } else {
      solve_and_join();
      by_windows += inner_;
    }
    finish();
  }

 private:
  const Pool& pool_;
  const Sweep<T>& s_;
  std::int64_t n_, inner_, count_;
  T* z_;
  std::vector<Window<T>> windows_;
  std::vector<T> scale_;  // max |sample| of a signal

  void solve_and_join() {
    solve_windows();
    for (std::int64_t i = 0; i < inner_; ++i)
      for (std::int64_t j = 0; j < count_; ++j)  // keeps a NaN
        if (!(window(j, i).scale <= scale_[i])) scale_[i] = window(j, i).scale;
    for (std::int64_t i = 0; i < inner_; ++i) {
      if (!std::isnan(scale_[i]))
        scale_[i] = std::max(scale_[i], largest_sample(count_ * kWindow, n_, i));
      drop_doubtful_windows(i);
    }
    std::vector<Seam> seams = first_seams();
    while (!seams.empty()) {
      parallel_for(pool_, std::int64_t(seams.size()), [&](std::int64_t k) {
        Seam& seam = seams[k];
        seam.valid = prox_piece(s_, seam.signal, seam, z_);
      });
      seams = grown(seams);
    }
  }

  Window<T>& window(std::int64_t j, std::int64_t i) { return windows_[j * inner_ + i]; }
  T value(std::int64_t i, std::int64_t k) const { return z_[k * inner_ + i]; }

  // Sign of the jump after sample k, 0 unless it is beyond doubt: values are rounded.
  int jump(std::int64_t i, std::int64_t k, T scale) const {
    const T d = value(i, k + 1) - value(i, k);
    const T doubt = 8 * std::numeric_limits<T>::epsilon() * scale;
    return d > doubt ? 1 : (d < -doubt ? -1 : 0);
  }

  T sample(std::int64_t at) const {
    T a = s_.x[at];
    for (int m = 0; m < s_.num_minus; ++m) a -= s_.minus[m][at];
    return a;
  }

  // Code of the edge after sample k.
  EdgeCode code(std::int64_t k, std::int64_t i) const {
    if (k + 1 == n_) return kSeparate;
    return edge_code(value(i, k), value(i, k + 1),
                     [&] { return s_.w.data[s_.w.per_edge ? k * inner_ + i : i] > 0; });
  }

  T largest_sample(std::int64_t begin, std::int64_t end, std::int64_t i) const {
    T largest = 0;
    for (std::int64_t k = begin; k < end; ++k)
      largest = std::max(largest, std::abs(sample(k * inner_ + i)));
    return largest;
  }

  void solve_windows() {
    Sweep<T> all = s_;
    all.shape = {count_, kWindow, inner_};
    all.w.windows = true;
    all.y = z_;
    all.residual = nullptr;
    all.mask = nullptr;
    const LaneKernels<T>& k = lanes<T>();
    const std::int64_t group = k.group_size(kWindow), signals = count_ * inner_;
    parallel_for(pool_, (signals + group - 1) / group, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * group, end = std::min(signals, begin + group);
      k.prox(all, begin, end, thread_scratch(k.scratch_bytes(kWindow)));
      for (std::int64_t s = begin; s < end; ++s) inspect(s / inner_, s % inner_);
    });
  }

  void inspect(std::int64_t j, std::int64_t i) {
    const std::int64_t begin = j * kWindow, last = begin + kWindow - 1;
    Window<T>& w = window(j, i);
    w.scale = largest_sample(begin, last + 1, i);
    if (std::isnan(value(i, begin))) w.scale = value(i, begin);
    std::int64_t k = begin;
    while (k < last && jump(i, k, w.scale) == 0) ++k;
    if (k == last) return;
    w.first = k;
    for (k = begin; k < last; ++k)
      if (const T d = std::abs(value(i, k + 1) - value(i, k)); d > 0)
        w.closest = std::min(w.closest, d);
    for (k = last - 1; jump(i, k, w.scale) == 0;) --k;
    w.last = k;
  }

  // What counts as a jump is relative to the whole signal, which may be much larger than a window:
  // windows in which that could matter become part of a piece.
  void drop_doubtful_windows(std::int64_t i) {
    const double slack = 16 * kEps * double(scale_[i]);
    for (std::int64_t j = 0; j < count_; ++j)
      if (Window<T>& w = window(j, i); w.scale < scale_[i] && double(w.closest) <= slack)
        w.first = w.last = -1;
  }

  // The pieces from the last jump of a window to the first one of the next window that has any.
  std::vector<Seam> first_seams() {
    std::vector<Seam> seams;
    for (std::int64_t i = 0; i < inner_; ++i) {
      if (std::isnan(scale_[i])) continue;
      std::int64_t last = -1;
      for (std::int64_t j = 0; j < count_; ++j) {
        const Window<T>& w = window(j, i);
        if (w.first < 0) continue;
        if (j > 0) add(seams, i, last, w.first);
        last = w.last;
      }
      const bool whole = count_ * kWindow == n_ && window(count_ - 1, i).first >= 0;
      if (!whole) add(seams, i, last, n_ - 1);
    }
    return seams;
  }

  // The piece between the cuts after samples `left` (-1: none) and `right` (n - 1: none).
  void add(std::vector<Seam>& seams, std::int64_t i, std::int64_t left, std::int64_t right) const {
    Seam seam{};
    seam.begin = left + 1;
    seam.end = right + 1;
    seam.signal = i;
    seam.scale = double(scale_[i]);
    if (left >= 0) seam.left = jump(i, left, T(0));
    if (right < n_ - 1) seam.right = jump(i, right, T(0));
    seams.push_back(seam);
  }

  // The pieces of which a cut did not keep its sign, larger; those that overlap become one.
  std::vector<Seam> grown(const std::vector<Seam>& seams) {
    std::vector<Seam> next;
    for (const Seam& old : seams) {
      const std::int64_t i = old.signal, length = old.end - old.begin;
      if (!old.valid) scale_[i] = std::numeric_limits<T>::quiet_NaN();
      if (std::isnan(scale_[i])) continue;
      std::int64_t left = old.begin - 1, right = old.end - 1;
      const bool keeps_left = old.left == 0 || jump(i, left, scale_[i]) == old.left;
      const bool keeps_right = old.right == 0 || jump(i, right, scale_[i]) == old.right;
      if (keeps_left && keeps_right) continue;
      if (!keeps_left) {
        left = std::max<std::int64_t>(left - length, -1);
        while (left >= 0 && jump(i, left, scale_[i]) == 0) --left;
      }
      if (!keeps_right) {
        right = std::min(right + length, n_ - 1);
        while (right < n_ - 1 && jump(i, right, scale_[i]) == 0) ++right;
      }
      for (; !next.empty() && next.back().signal == i && next.back().end > left + 1;
           next.pop_back()) {
        left = std::min(left, next.back().begin - 1);
        right = std::max(right, next.back().end - 1);
      }
      add(next, i, left, right);
    }
    return next;
  }

  // f(k, signal) for all samples.
  template <class F>
  void for_samples(F f) const {
    const std::int64_t block = std::max<std::int64_t>(1, 16384 / inner_);
    parallel_for(pool_, (n_ + block - 1) / block, [&](std::int64_t chunk) {
      for (std::int64_t k = chunk * block; k < std::min(n_, (chunk + 1) * block); ++k)
        for (std::int64_t i = 0; i < inner_; ++i) f(k, i);
    });
  }

  void finish() {
    if (std::any_of(scale_.begin(), scale_.end(), [](T v) { return std::isnan(v); }))
      for_samples([&](std::int64_t k, std::int64_t i) {
        if (std::isnan(scale_[i])) z_[k * inner_ + i] = scale_[i];
      });
    if (s_.mask)
      for_samples([&](std::int64_t k, std::int64_t i) {
        s_.mask[k * inner_ + i] |= std::uint8_t(code(k, i) << s_.shift);
      });
    if (s_.residual)
      for_samples([&](std::int64_t k, std::int64_t i) {
        const std::int64_t at = k * inner_ + i;
        s_.residual[at] = sample(at) - z_[at];
      });
  }
};

}  // namespace

LongSignals long_signals() { return {by_strings, by_windows}; }

bool worth_windows(std::int64_t n, std::int64_t signals) {
  return n >= (signals < 8 ? 4 : 32) * kWindow;
}

template <class T>
void prox_windows(const Pool& pool, const Sweep<T>& sweep) {
  const Shape& shape = sweep.shape;
  const std::int64_t size = shape.n * shape.inner, weights = sweep.w.length(shape.n) * shape.inner;
  const auto move = [](auto*& p, std::int64_t by) {
    if (p) p += by;
  };
  for (std::int64_t o = 0; o < shape.outer; ++o) {
    Sweep<T> one = sweep;
    one.shape.outer = 1;
    move(one.x, o * size);
    for (int m = 0; m < one.num_minus; ++m) move(one.minus[m], o * size);
    move(one.w.data, o * weights);
    move(one.y, o * size);
    move(one.residual, o * size);
    move(one.mask, o * size);
    Long<T>(pool, one).solve();
  }
}

template void prox_windows(const Pool&, const Sweep<float>&);
template void prox_windows(const Pool&, const Sweep<double>&);

}  // namespace jaxtv::cpu
