// A long signal is cut into windows, and SIMD solves each as if it were a signal. Where such a
// solution jumps, the dual of the edge is at its bound, so the solutions on the two sides of a jump
// depend on its sign only. Around each seam of two windows, the piece between a jump of the left
// window and a jump of the right one is solved again with these duals. If then both jumps keep
// their signs, all optimality conditions hold and the joined solution is the solution; else the
// piece grows to jumps further out. No solution is trusted without this check, so the result does
// not depend on the windows.
#include "long_signal/windows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "isa.hpp"
#include "jaxtv/common.hpp"
#include "scratch.hpp"
#include "serial.hpp"

namespace jaxtv::cpu {
namespace {

// The piece around a seam that is solved again.
struct SeamPiece : Piece {
  std::int64_t signal;
  bool valid = true;  // it has a solution
};

// What the pieces around seams need of a window: its first and last jump, and max |sample|.
template <class T>
struct Window {
  std::int64_t first_jump = -1, last_jump = -1;  // the samples before them, -1 without a jump
  T magnitude = 0;
  bool valid = true;  // it has a solution
};

template <class T>
class WindowSolver {
 public:
  WindowSolver(const Pool& pool, const Pass<T>& pass, T* z)
      : pool_(pool),
        pass_(pass),
        n_(pass.shape.n),
        inner_(pass.shape.inner),
        count_(n_ / kWindow),
        z_(z),
        windows_((count_ + 1) * inner_),
        valid_(inner_, true) {}

  void solve() {
    solve_and_join();
    for (std::int64_t i = 0; i < inner_; ++i)
      if (!valid_[i])
        for (std::int64_t k = 0; k < n_; ++k)
          z_[k * inner_ + i] = std::numeric_limits<T>::quiet_NaN();
  }

 private:
  const Pool& pool_;
  const Pass<T>& pass_;
  std::int64_t n_, inner_, count_;
  T* z_;
  std::vector<Window<T>>
      windows_;              // and the samples after the last one, which have no solution yet
  std::vector<bool> valid_;  // signals that have a solution

  void solve_and_join() {
    solve_windows();
    for (std::int64_t i = 0; i < inner_; ++i) {
      for (std::int64_t j = 0; j < count_; ++j) valid_[i] = valid_[i] && window(j, i).valid;
      window(count_, i).magnitude = largest_sample(count_ * kWindow, n_, i);
    }
    std::vector<SeamPiece> seams = first_seams();
    while (!seams.empty()) {
      parallel_for(pool_, std::int64_t(seams.size()), [&](std::int64_t k) {
        SeamPiece& seam = seams[k];
        seam.valid = prox_piece(pass_, seam.signal, seam, z_);
      });
      seams = grown(seams);
    }
  }

  Window<T>& window(std::int64_t j, std::int64_t i) { return windows_[j * inner_ + i]; }
  T value(std::int64_t i, std::int64_t k) const { return z_[k * inner_ + i]; }

  // Sign of the jump after sample k, 0 unless the jump exceeds the round-off of values.
  int jump(std::int64_t i, std::int64_t k, T magnitude) const {
    const T d = value(i, k + 1) - value(i, k);
    const T round_off = 8 * std::numeric_limits<T>::epsilon() * magnitude;
    return d > round_off ? 1 : (d < -round_off ? -1 : 0);
  }

  T sample(std::int64_t at) const {
    T a = pass_.x[at];
    for (int m = 0; m < pass_.num_minus; ++m) a -= pass_.minus[m][at];
    return a;
  }

  T largest_sample(std::int64_t begin, std::int64_t end, std::int64_t i) const {
    constexpr int kChains = 8;  // one chain of maxima would be bound by its latency
    T largest[kChains] = {};
    const auto take = [&](int c, std::int64_t k) {
      const T size = std::abs(sample(k * inner_ + i));
      largest[c] = largest[c] < size ? size : largest[c];
    };
    std::int64_t k = begin;
    for (; k + kChains <= end; k += kChains)
      for (int c = 0; c < kChains; ++c) take(c, k + c);
    for (; k < end; ++k) take(0, k);
    return *std::max_element(largest, largest + kChains);
  }

  void solve_windows() {
    Pass<T> all = pass_;
    all.shape = {count_, kWindow, inner_};
    all.w.of_windows = true;
    all.y = z_;
    all.residual = nullptr;
    all.codes = nullptr;
    const SimdKernels<T>& kernels = simd_kernels<T>();
    const std::int64_t group = kernels.signals_per_group(kWindow), signals = count_ * inner_;
    parallel_for(pool_, (signals + group - 1) / group, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * group, end = std::min(signals, begin + group);
      kernels.prox(all, begin, end, false, nullptr,
                   thread_scratch(kernels.prox_scratch_bytes(kWindow)));
      for (std::int64_t s = begin; s < end; ++s) inspect(s / inner_, s % inner_);
    });
  }

  // Fills window j of signal i from its solution.
  void inspect(std::int64_t j, std::int64_t i) {
    const std::int64_t begin = j * kWindow, last = begin + kWindow - 1;
    Window<T>& w = window(j, i);
    w.magnitude = largest_sample(begin, last + 1, i);
    w.valid = !std::isnan(value(i, begin));
    std::int64_t k = begin;
    while (k < last && jump(i, k, w.magnitude) == 0) ++k;
    if (k == last) return;
    w.first_jump = k;
    for (k = last - 1; jump(i, k, w.magnitude) == 0;) --k;
    w.last_jump = k;
  }

  // max |sample| of the windows that hold the samples `left` to `right`.
  T magnitude(std::int64_t i, std::int64_t left, std::int64_t right) {
    T largest = 0;
    for (std::int64_t j = left / kWindow; j <= right / kWindow && j <= count_; ++j)
      largest = std::max(largest, window(j, i).magnitude);
    return largest;
  }

  // The pieces from the last jump of a window to the first one of the next window that has any.
  std::vector<SeamPiece> first_seams() {
    std::vector<SeamPiece> seams;
    for (std::int64_t i = 0; i < inner_; ++i) {
      if (!valid_[i]) continue;
      std::int64_t last = -1;
      for (std::int64_t j = 0; j < count_; ++j) {
        const Window<T>& w = window(j, i);
        if (w.first_jump < 0) continue;
        if (j > 0) add(seams, i, last, w.first_jump);
        last = w.last_jump;
      }
      const bool whole = count_ * kWindow == n_ && window(count_ - 1, i).first_jump >= 0;
      if (!whole) add(seams, i, last, n_ - 1);
    }
    return seams;
  }

  // The piece between the cuts after samples `left` (-1: none) and `right` (n - 1: none).
  void add(std::vector<SeamPiece>& seams, std::int64_t i, std::int64_t left,
           std::int64_t right) const {
    SeamPiece seam{};
    seam.begin = left + 1;
    seam.end = right + 1;
    seam.signal = i;
    if (left >= 0) seam.sign_before = jump(i, left, T(0));
    if (right < n_ - 1) seam.sign_after = jump(i, right, T(0));
    seams.push_back(seam);
  }

  // The pieces of which a cut did not keep its sign, larger; those that overlap become one.
  std::vector<SeamPiece> grown(const std::vector<SeamPiece>& seams) {
    std::vector<SeamPiece> next;
    for (const SeamPiece& old : seams) {
      const std::int64_t i = old.signal, length = old.end - old.begin;
      valid_[i] = valid_[i] && old.valid;
      if (!valid_[i]) continue;
      std::int64_t left = old.begin - 1, right = old.end - 1;
      const T size = magnitude(i, std::max<std::int64_t>(left, 0), right + 1);
      const bool keeps_left = old.sign_before == 0 || jump(i, left, size) == old.sign_before;
      const bool keeps_right = old.sign_after == 0 || jump(i, right, size) == old.sign_after;
      if (keeps_left && keeps_right) continue;
      if (!keeps_left) {
        left = std::max<std::int64_t>(left - length, -1);
        while (left >= 0 && jump(i, left, magnitude(i, left, left + 1)) == 0) --left;
      }
      if (!keeps_right) {
        right = std::min(right + length, n_ - 1);
        while (right < n_ - 1 && jump(i, right, magnitude(i, right, right + 1)) == 0) ++right;
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
};

}  // namespace

template <class T>
void prox_by_windows(const Pool& pool, const Pass<T>& pass, T* z) {
  WindowSolver<T>(pool, pass, z).solve();
}

template void prox_by_windows(const Pool&, const Pass<float>&, float*);
template void prox_by_windows(const Pool&, const Pass<double>&, double*);

}  // namespace jaxtv::cpu
