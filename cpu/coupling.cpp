// A long signal by taut strings that start at many places of it at once. A string that ends a
// segment where another one ended one with a jump of the same sign repeats that string from there
// on, for all that it remembers is the place and the sign. So every window gets a string of its
// own; the string of a window then goes on into the next ones until it makes a cut that is there
// already; and the solution consists of the first string up to where it found a second, of that
// one from there on, and so on. These are the cuts that one string along the whole signal makes,
// to the bit and whatever the windows.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "jaxtv/common.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/overflow.hpp"
#include "scratch.hpp"
#include "windows.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kShortest = 1024, kLongest = 32768;  // windows

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

// Whether the strings are the fastest method, by a sample of the edges. They are not where segments
// are short, nor where they are longer than the signal (in noise, about (λ / variation)² samples),
// nor where the signal is smooth, on whose ramps they read most samples many times.
template <class T>
bool suits_strings(const T* x, std::int64_t n, double lam) {
  constexpr std::int64_t kStretches = 64, kEdges = 32;
  double variation = 0, net = 0;
  for (std::int64_t i = 0; i < kStretches; ++i) {
    const T* from = x + i * (n - kEdges) / kStretches;
    for (std::int64_t k = 0; k < kEdges; ++k)
      variation += std::abs(double(from[k + 1]) - double(from[k]));
    net += std::abs(double(from[kEdges]) - double(from[0]));
  }
  const double strength = lam * double(kStretches * kEdges) / variation;  // not finite: constant
  return strength >= 1.5 && strength * strength <= 0.7 * double(n) && net <= 0.5 * variation;
}

// Windows as long as each other, and many.
std::int64_t window_of(std::int64_t n) {
  const std::int64_t count = (n - 1) / (16 * kLongest) + 1;
  return std::max(kShortest, n / (16 * count));
}

struct OneWeight {
  double value;
  double operator[](std::int64_t) const { return value; }
};

template <class T>
class Coupling {
 public:
  Coupling(const Pool& pool, std::int64_t n, const T* x, double lam, T* z)
      : pool_(pool),
        n_(n),
        length_(window_of(n)),
        count_(n / length_),
        x_(x),
        z_(z),
        lam_(lam),
        signs_(n),
        sign_(signs_.as<signed char>()),
        blocks_(count_) {}

  bool solve() {
    if (!inspect()) return false;
    std::fill(sign_, sign_ + n_, 0);
    if (!run_windows() || !run_on() || !join()) return false;
    while (write_values());
    return true;
  }

 private:
  // The segments whose last sample is in a window: from after sample `left` to sample `right`, cuts
  // or the ends of the signal.
  struct Block {
    std::int64_t left, right;
    double first, last;  // values of the first and the last segment, not rounded
    bool changed = true, tie;
  };

  const Pool& pool_;
  std::int64_t n_, length_, count_;
  const T* x_;
  T* z_;
  double lam_, bound_, scale_;
  LongScratch<Use::kSignal> signs_;
  signed char* sign_;
  std::vector<String> windows_, beyond_;  // the strings of the windows, and where they go on
  std::vector<std::int64_t> cuts_;
  std::vector<Block> blocks_;

  std::int64_t begin_of(std::int64_t j) const { return j * length_; }
  std::int64_t end_of(std::int64_t j) const { return j + 1 < count_ ? (j + 1) * length_ : n_; }

  // False where double would overflow, or there is no solution.
  bool inspect() {
    std::vector<Range<T>> ranges(count_);
    parallel_for(pool_, count_, [&](std::int64_t j) {
      ranges[j] = range_of(x_ + begin_of(j), end_of(j) - begin_of(j));
    });
    Range<T> all = ranges[0];
    for (const Range<T>& r : ranges) {
      all.low = std::min(all.low, r.low);
      all.high = std::max(all.high, r.high);
      all.finite &= r.finite;
    }
    scale_ = double(std::max(-all.low, all.high));
    bound_ = std::min(lam_, double(n_) * (double(all.high) - double(all.low)));
    return all.finite && scale_ < kSolverLimit;
  }

  StringProblem<T> problem() { return {n_, x_, bound_, sign_, n_ / 4}; }

  bool run(std::vector<String>& all) {
    const StringKernel<T>& kernel = strings<T>();
    const std::int64_t size = std::int64_t(all.size());
    const std::int64_t share = (size + pool_.threads - 1) / pool_.threads;
    const std::int64_t chunk = std::min<std::int64_t>(4 * kernel.lanes, share);
    std::atomic<bool> good = true;
    parallel_for(pool_, (size + chunk - 1) / chunk, [&](std::int64_t c) {
      const std::int64_t begin = c * chunk, end = std::min(size, begin + chunk);
      if (good && !kernel.run(problem(), &all[begin], int(end - begin))) good = false;
    });
    return good;
  }

  bool run_windows() {
    for (std::int64_t j = 0; j < count_; ++j)
      windows_.push_back({begin_of(j), end_of(j), 0, nullptr});
    return run(windows_);
  }

  // The strings from the last cut of each window that has one. Where cuts are rare they would all
  // go to the end of the signal: they stop, and join() takes those further that it needs.
  bool run_on() {
    const std::int64_t furthest = 4 * length_;
    cuts_.resize(count_ * kMostCuts);
    for (std::int64_t j = 0; j < count_; ++j) {
      const std::int64_t last = windows_[j].last;
      if (last < 0 && j > 0) continue;
      const signed char left = last < 0 ? 0 : sign_[last];
      beyond_.push_back({last + 1, std::min(n_, last + 1 + furthest), left, &cuts_[j * kMostCuts]});
    }
    return run(beyond_);
  }

  // The cuts of all strings become those of the string from the start.
  bool join() {
    for (String* s = beyond_.data();;) {
      if (s->last < 0) {
        s->end = n_;
        s->count = 0;
        if (!strings<T>().run(problem(), s, 1)) return false;
      }
      std::fill(sign_ + s->begin, sign_ + s->last, 0);
      for (std::int64_t i = 0; i < s->count; ++i) {
        const std::int64_t cut = s->cuts[i];
        sign_[cut < 0 ? ~cut : cut] = cut < 0 ? -1 : 1;
      }
      if (s->last == n_ - 1) return true;
      const std::int64_t found = s->last;
      // The first string from a later cut: of the window in which it was found.
      while (s->begin <= found) ++s;
    }
  }

  // The values of the present cuts. Joins ties, and whether there were any.
  bool write_values() {
    parallel_for(pool_, count_, [&](std::int64_t j) {
      if (blocks_[j].changed) blocks_[j].right = last_cut(j);
    });
    std::int64_t left = -1;
    for (Block& b : blocks_) {
      b.left = left;
      left = std::max(left, b.right);
    }
    parallel_for(pool_, count_, [&](std::int64_t j) {
      Block& b = blocks_[j];
      if (!b.changed) return;
      b.tie = false;
      if (b.right >= 0) write_block(b);
    });
    return mark_changes();
  }

  // The last cut of window j, or the end of the signal; -1 without one.
  std::int64_t last_cut(std::int64_t j) const {
    if (j == count_ - 1) return n_ - 1;
    std::int64_t e = end_of(j) - 1;
    while (e >= begin_of(j) && sign_[e] == 0) --e;
    return e >= begin_of(j) ? e : -1;
  }

  bool is_tie(double left, double right, std::int64_t e) const {
    return (right - left) * double(sign_[e]) <= 8 * kEps * scale_;
  }

  void write_block(Block& block) {
    // With the samples beyond the cuts at the two ends, which tell the duals there.
    const std::int64_t begin = std::max<std::int64_t>(block.left, 0);
    const std::int64_t end = std::min(block.right + 2, n_);
    double next = 0;
    const auto segment = [&](std::int64_t a, std::int64_t b, double ref, double rest,
                             double count) {
      a += begin;
      b += begin;
      if (a <= block.left || b > block.right) return;
      const double value = ref + rest / count;
      std::fill(z_ + a, z_ + b + 1, segment_value<T>(ref, rest, count));
      if (b == block.right) {
        block.last = value;
      } else if (is_tie(value, next, b)) {
        sign_[b] = 0;
        block.tie = true;
      }
      next = value;
    };
    for_sums(end - begin, x_ + begin, OneWeight{lam_}, sign_ + begin, segment);
    block.first = next;
  }

  // Joins the ties between blocks. Marks the blocks whose cuts are not those of their values, and
  // whether there are any.
  bool mark_changes() {
    bool any = false;
    Block* before = nullptr;
    for (Block& b : blocks_) {
      b.changed = b.tie;
      any |= b.tie;
      if (b.right < 0) continue;
      if (before && is_tie(before->last, b.first, before->right)) {
        sign_[before->right] = 0;
        before->changed = b.changed = any = true;
      }
      before = &b;
    }
    return any;
  }
};

}  // namespace

template <class T>
bool prox_strings(const Pool& pool, const Sweep<T>& s, T* z) {
  const std::int64_t n = s.shape.n;
  if (s.shape.inner > 1 || s.num_minus > 0 || s.w.per_edge) return false;
  const double lam = s.w.data[0];
  if (!(lam > 0 && suits_strings(s.x, n, lam))) return false;
  return Coupling<T>(pool, n, s.x, lam, z).solve();
}

template bool prox_strings(const Pool&, const Sweep<float>&, float*);
template bool prox_strings(const Pool&, const Sweep<double>&, double*);

}  // namespace jaxtv::cpu
