// A long signal is cut into windows that are solved as signals of their own: long ones by taut
// strings, or, where these would take too long, short ones by the lanes. Where such a
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
#include "jaxtv/cuts.hpp"
#include "scratch.hpp"
#include "serial.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kWindow = 1024;                      // of the lanes
constexpr std::int64_t kShortest = 1024, kLongest = 65536;  // of the strings

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
struct Range {
  T low, high;
  bool finite;
};

// Of n >= 8 samples. Several at once: one chain of minima would be bound by its latency.
template <class T>
Range<T> range_of(const T* x, std::int64_t n) {
  constexpr int kChains = 8;
  T low[kChains], high[kChains], nan[kChains] = {};
  for (int c = 0; c < kChains; ++c) low[c] = high[c] = x[c];
  const auto take = [&](const T* samples) {
    for (int c = 0; c < kChains; ++c) {
      low[c] = samples[c] < low[c] ? samples[c] : low[c];
      high[c] = samples[c] > high[c] ? samples[c] : high[c];
      nan[c] += samples[c] - samples[c];
    }
  };
  for (std::int64_t k = 0; k + kChains <= n; k += kChains) take(x + k);
  take(x + n - kChains);
  Range<T> range{low[0], high[0], true};
  for (int c = 0; c < kChains; ++c) {
    range.low = std::min(range.low, low[c]);
    range.high = std::max(range.high, high[c]);
    range.finite &= nan[c] == 0;
  }
  return range;
}

struct OneWeight {
  double value;
  double operator[](std::int64_t) const { return value; }
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
        z_(sweep.y ? sweep.y : sweep.residual),
        scale_(inner_) {}

  void solve() {
    if (!solve_by_strings()) solve_by_lanes();
    for (std::int64_t i = 0; i < inner_; ++i)
      for (std::int64_t j = 0; j < count_; ++j)  // keeps a NaN
        if (!(window(j, i).scale <= scale_[i])) scale_[i] = window(j, i).scale;
    for (std::int64_t i = 0; i < inner_; ++i) {
      if (!std::isnan(scale_[i]))
        scale_[i] = std::max(scale_[i], largest_sample(count_ * length_, n_, i));
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
    finish();
  }

 private:
  const Pool& pool_;
  const Sweep<T>& s_;
  std::int64_t n_, inner_, length_, count_;  // windows: their length and number
  T* z_;
  std::vector<Window<T>> windows_;
  std::vector<T> scale_;  // max |sample| of a signal

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
  int code(std::int64_t k, std::int64_t i) const {
    if (k + 1 == n_) return 3;
    return edge_code(double(value(i, k + 1)) - double(value(i, k)),
                     double(s_.w.data[s_.w.per_edge ? k * inner_ + i : i]));
  }

  T largest_sample(std::int64_t begin, std::int64_t end, std::int64_t i) const {
    T largest = 0;
    for (std::int64_t k = begin; k < end; ++k)
      largest = std::max(largest, std::abs(sample(k * inner_ + i)));
    return largest;
  }

  void cut_into_windows(std::int64_t length) {
    length_ = length;
    count_ = n_ / length;
    windows_.assign(count_ * inner_, {});
  }

  // Where the samples lie side by side and one weight holds for all edges. False where the strings
  // do not solve the windows.
  bool solve_by_strings() {
    if (inner_ > 1 || s_.num_minus > 0 || s_.w.per_edge || !(s_.w.data[0] > 0)) return false;
    const std::int64_t lanes = strings<T>().lanes, at_once = lanes * pool_.threads;
    const std::int64_t turns = (n_ - 1) / (at_once * kLongest) + 1;
    cut_into_windows(std::max(kShortest, n_ / (at_once * turns)));
    std::vector<signed char> sign(n_);
    std::atomic<bool> solved = true;
    parallel_for(pool_, (count_ + lanes - 1) / lanes, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * lanes, end = std::min(count_, begin + lanes);
      if (!solve_strings(begin, end, sign.data())) solved = false;
    });
    return solved;
  }

  bool solve_strings(std::int64_t begin, std::int64_t end, signed char* sign) {
    constexpr double kLarge = 1e280;  // beyond it double overflows
    std::vector<double> bound;
    std::vector<std::int64_t> solved(end - begin);
    for (std::int64_t j = begin; j < end; ++j) {
      const Range<T> range = range_of(s_.x + j * length_, length_);
      window(j, 0).scale = std::max(-range.low, range.high);
      if (!range.finite || double(window(j, 0).scale) >= kLarge) return false;
      const double cap = double(length_) * (double(range.high) - double(range.low));
      bound.push_back(std::min(double(s_.w.data[0]), cap));
    }
    const std::int64_t at = begin * length_;
    if (!strings<T>().cuts(length_, end - begin, s_.x + at, bound.data(), sign + at, solved.data()))
      return false;
    for (std::int64_t j = begin; j < end; ++j)
      while (!write_values(j, solved[j - begin], bound[j - begin], sign + j * length_));
    return true;
  }

  // The values of the first samples of window j, which end at a cut, and its jumps. Joins ties, and
  // whether there were none. The value of the segment beyond the cut at the end is not known, nor
  // whether that cut is a tie: it stays.
  bool write_values(std::int64_t j, std::int64_t length, double bound, signed char* sign) {
    if (length == 0) return true;
    const std::int64_t begin = j * length_;
    Window<T>& window = windows_[j];
    window = {.scale = window.scale};
    const double slack = 8 * kEps * double(window.scale);
    bool tie = false;
    double next = 0;  // value of the segment to the right, not rounded
    const auto segment = [&](std::int64_t a, std::int64_t b, double ref, double rest,
                             double count) {
      if (b == length) return;
      const double value = ref + rest / count;
      std::fill(z_ + begin + a, z_ + begin + b + 1, T(ref) + T(rest) / T(count));
      if (b + 1 < length) {
        if ((next - value) * double(sign[b]) <= slack) {
          sign[b] = 0;
          tie = true;
        }
        note_jump(window, begin + b);
      }
      next = value;
    };
    for_sums(length + 1, s_.x + begin, OneWeight{bound}, sign, segment);
    return !tie;
  }

  // Jumps come from the last to the first.
  void note_jump(Window<T>& window, std::int64_t k) const {
    const T d = std::abs(value(0, k + 1) - value(0, k));
    if (d > 0) window.closest = std::min(window.closest, d);
    if (jump(0, k, window.scale) == 0) return;
    window.first = k;
    if (window.last < 0) window.last = k;
  }

  void solve_by_lanes() {
    cut_into_windows(kWindow);
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
      for (std::int64_t s = begin; s < end; ++s) {
        const std::int64_t j = s / inner_, i = s % inner_, first = j * kWindow;
        Window<T>& w = window(j, i);
        w.scale = largest_sample(first, first + kWindow, i);
        if (std::isnan(value(i, first))) w.scale = value(i, first);
        inspect(j, i);
      }
    });
  }

  void inspect(std::int64_t j, std::int64_t i) {
    const std::int64_t begin = j * kWindow, last = begin + kWindow - 1;
    Window<T>& w = window(j, i);
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
      add(seams, i, last, n_ - 1);
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
