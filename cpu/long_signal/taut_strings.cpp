// A long signal by taut strings that start at many samples at once. Where a string ends a segment
// at which another one has ended one, with a jump of the same sign, it repeats that string from
// there on, for the sample and the sign are all that it remembers. So:
//   1. the signal is cut into parts, and a first string runs through each;
//   2. a next string starts from the last cut of each part and runs on into the next parts until it
//      makes a cut that is there already;
//   3. the solution is the first of these strings up to where it found another one, that one from
//      there on, and so on.
// These are the cuts that one string along the whole signal makes, to the bit and whatever the
// parts.
#include "long_signal/taut_strings.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "isa.hpp"
#include "jaxtv/common.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/overflow.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kShortestPart = 1024, kLongestPart = 32768;  // samples

template <class T>
struct Range {
  T low, high;
  bool finite;
};

// Of n >= 8 samples, in several chains: one chain of minima would be bound by its latency.
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

// Whether the strings are the fastest method, by a sample of the edges. They are where segments are
// long, so that many windows would have no jump: in noise they have about (λ / variation)² samples.
// They are not where segments are longer than the signal, nor where the signal has slopes, on whose
// ramps they read samples many times.
template <class T>
bool suits_taut_strings(const T* x, std::int64_t n, double lam) {
  constexpr std::int64_t kProbes = 64, kEdges = 32;
  double variation = 0, net = 0;
  for (std::int64_t i = 0; i < kProbes; ++i) {
    const T* from = x + i * (n - kEdges) / kProbes;
    for (std::int64_t k = 0; k < kEdges; ++k)
      variation += std::abs(double(from[k + 1]) - double(from[k]));
    net += std::abs(double(from[kEdges]) - double(from[0]));
  }
  const double strength = lam * double(kProbes * kEdges) / variation;  // not finite: constant
  return strength >= 3 && strength * strength <= 0.7 * double(n) && net <= 0.1 * variation;
}

// Parts as long as each other, and many: 16 at least, unless they would be shorter than
// kShortestPart.
std::int64_t part_length(std::int64_t n) {
  const std::int64_t count = (n - 1) / (16 * kLongestPart) + 1;
  return std::max(kShortestPart, n / (16 * count));
}

struct OneWeight {
  double value;
  double operator[](std::int64_t) const { return value; }
};

template <class T>
class TautStringSolver {
 public:
  TautStringSolver(const Pool& pool, std::int64_t n, const T* x, double lam, T* z)
      : pool_(pool),
        n_(n),
        length_(part_length(n)),
        count_(n / length_),
        x_(x),
        z_(z),
        lam_(lam),
        signs_(n),
        sign_(signs_.as<signed char>()),
        parts_(count_) {}

  bool solve() {
    if (!inspect()) return false;
    std::fill(sign_, sign_ + n_, 0);
    if (!run_first_strings() || !run_next_strings() || !join()) return false;
    while (write_values());
    return true;
  }

 private:
  // The segments whose last sample is in a part: the samples after `left` up to `right`, which are
  // the samples before cuts, or the ends of the signal.
  struct PartValues {
    std::int64_t left, right;
    double first, last;   // values of the first and the last segment, not rounded
    bool changed = true;  // its values are not yet those of its cuts
    bool has_tie;         // one of its cuts was a tie, and is joined
  };

  const Pool& pool_;
  std::int64_t n_, length_, count_;
  const T* x_;
  T* z_;
  double lam_, bound_, magnitude_;
  LongScratch<Use::kSignal> signs_;
  signed char* sign_;
  std::vector<TautString> first_strings_, next_strings_;
  std::vector<std::int64_t> cuts_;
  std::vector<PartValues> parts_;

  std::int64_t begin_of(std::int64_t j) const { return j * length_; }
  std::int64_t end_of(std::int64_t j) const { return j + 1 < count_ ? (j + 1) * length_ : n_; }

  // Finds magnitude and bound. False where double would overflow, or there is no solution.
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
    magnitude_ = double(std::max(-all.low, all.high));
    bound_ = std::min(lam_, double(n_) * (double(all.high) - double(all.low)));
    return all.finite && magnitude_ < kSolverLimit;
  }

  TautStringProblem<T> problem() {
    return {.n = n_, .x = x_, .bound = bound_, .sign = sign_, .patience = n_ / 4};
  }

  bool run(std::vector<TautString>& all) {
    const TautStringKernel<T>& kernel = taut_string_kernel<T>();
    const std::int64_t size = std::int64_t(all.size());
    const std::int64_t per_thread = (size + pool_.threads - 1) / pool_.threads;
    const std::int64_t chunk = std::min<std::int64_t>(4 * kernel.lanes, per_thread);
    std::atomic<bool> good = true;
    parallel_for(pool_, (size + chunk - 1) / chunk, [&](std::int64_t c) {
      const std::int64_t begin = c * chunk, end = std::min(size, begin + chunk);
      if (good && !kernel.run(problem(), &all[begin], int(end - begin))) good = false;
    });
    return good;
  }

  bool run_first_strings() {
    for (std::int64_t j = 0; j < count_; ++j)
      first_strings_.push_back(
          {.begin = begin_of(j), .end = end_of(j), .sign_before = 0, .cuts = nullptr});
    return run(first_strings_);
  }

  // The strings from the last cut of each part that has one. Where cuts are rare they would all run
  // to the end of the signal: they stop, and join() runs those further that it needs.
  bool run_next_strings() {
    const std::int64_t furthest = 4 * length_;
    cuts_.resize(count_ * kMostCuts);
    for (std::int64_t j = 0; j < count_; ++j) {
      const std::int64_t last = first_strings_[j].last_cut;
      if (last < 0 && j > 0) continue;
      const signed char sign_before = last < 0 ? 0 : sign_[last];
      next_strings_.push_back({.begin = last + 1,
                               .end = std::min(n_, last + 1 + furthest),
                               .sign_before = sign_before,
                               .cuts = &cuts_[j * kMostCuts]});
    }
    return run(next_strings_);
  }

  // The cuts of all strings become those of the string from the start.
  bool join() {
    for (TautString* s = next_strings_.data();;) {
      if (s->last_cut < 0) {
        s->end = n_;
        s->num_cuts = 0;
        if (!taut_string_kernel<T>().run(problem(), s, 1)) return false;
      }
      std::fill(sign_ + s->begin, sign_ + s->last_cut, 0);
      for (std::int64_t i = 0; i < s->num_cuts; ++i) {
        const std::int64_t cut = s->cuts[i];
        sign_[cut < 0 ? ~cut : cut] = cut < 0 ? -1 : 1;
      }
      if (s->last_cut == n_ - 1) return true;
      const std::int64_t found = s->last_cut;
      // The first string from a later cut: of the part in which it was found.
      while (s->begin <= found) ++s;
    }
  }

  // Writes the values of the present cuts. Joins ties, and returns whether there were any.
  bool write_values() {
    parallel_for(pool_, count_, [&](std::int64_t j) {
      if (parts_[j].changed) parts_[j].right = last_cut(j);
    });
    std::int64_t left = -1;
    for (PartValues& b : parts_) {
      b.left = left;
      left = std::max(left, b.right);
    }
    parallel_for(pool_, count_, [&](std::int64_t j) {
      PartValues& b = parts_[j];
      if (!b.changed) return;
      b.has_tie = false;
      if (b.right >= 0) write_part(b);
    });
    return mark_changes();
  }

  // The last cut of part j, or the end of the signal; -1 without one.
  std::int64_t last_cut(std::int64_t j) const {
    if (j == count_ - 1) return n_ - 1;
    std::int64_t e = end_of(j) - 1;
    while (e >= begin_of(j) && sign_[e] == 0) --e;
    return e >= begin_of(j) ? e : -1;
  }

  bool tie(std::int64_t e, double left, double right) const {
    return is_tie(e, left, right, n_, x_, sign_, magnitude_);
  }

  void write_part(PartValues& part) {
    // With the samples beyond the cuts at the two ends, which tell the duals there.
    const std::int64_t begin = std::max<std::int64_t>(part.left, 0);
    const std::int64_t end = std::min(part.right + 2, n_);
    double next = 0;
    const auto segment = [&](std::int64_t a, std::int64_t b, double ref, double rest,
                             double count) {
      a += begin;
      b += begin;
      if (a <= part.left || b > part.right) return;
      const double value = ref + rest / count;
      std::fill(z_ + a, z_ + b + 1, segment_value<T>(ref, rest, count));
      if (b == part.right) {
        part.last = value;
      } else if (tie(b, value, next)) {
        sign_[b] = 0;
        part.has_tie = true;
      }
      next = value;
    };
    for_sums(end - begin, x_ + begin, UnitMass{}, OneWeight{lam_}, sign_ + begin, segment);
    part.first = next;
  }

  // Joins the ties between parts. Marks the parts whose values are not those of their cuts, and
  // returns whether there are any.
  bool mark_changes() {
    bool any = false;
    PartValues* before = nullptr;
    for (PartValues& b : parts_) {
      b.changed = b.has_tie;
      any |= b.has_tie;
      if (b.right < 0) continue;
      if (before && tie(before->right, before->last, b.first)) {
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
bool prox_by_taut_strings(const Pool& pool, const Pass<T>& pass, T* z) {
  const std::int64_t n = pass.shape.n;
  if (pass.shape.inner > 1 || pass.num_minus > 0 || pass.w.per_edge) return false;
  const double lam = pass.w.data[0];
  if (!(lam > 0 && suits_taut_strings(pass.x, n, lam))) return false;
  return TautStringSolver<T>(pool, n, pass.x, lam, z).solve();
}

template bool prox_by_taut_strings(const Pool&, const Pass<float>&, float*);
template bool prox_by_taut_strings(const Pool&, const Pass<double>&, double*);

}  // namespace jaxtv::cpu
