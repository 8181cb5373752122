// The 1D prox of bundles of signals: all steps, in order.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "jaxtv/overflow.hpp"
#include "pass.hpp"
#include "serial.hpp"
#include "simd/decomposition.hpp"
#include "simd/edge_codes.hpp"
#include "simd/fill_lanes.hpp"
#include "simd/interval_string.hpp"
#include "simd/mend.hpp"
#include "simd/repair.hpp"
#include "simd/signals.hpp"
#include "simd/solution.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

template <class T, int kVectors, bool kPerEdge>
class BundleProx {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  using I = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using Signals = VectorSignals<T, kVectors, kPerEdge>;
  static constexpr int L = Bundle<T, kVectors>::kSignals;

 public:
  BundleProx(const Pass<T>& pass, std::int64_t begin, std::int64_t end, T* kept_duals,
             void* scratch)
      : pass_(pass),
        begin_(begin),
        end_(end),
        n_(pass.shape.n),
        bundle_(n_, (end - begin + L - 1) / L, kPerEdge, kept_duals, scratch) {}

  void run(bool decompose) {
    for (std::int64_t s = 0; s < bundle_.per_lane; ++s) load(s);
    const bool repaired = pass_.repair && repair();
    if (!repaired) {
      for (std::int64_t i = 0; i < bundle_.per_lane * kVectors; ++i) unsolved_[i] = M{};
      if (kPerEdge || decompose || !find_cuts())
        for (std::int64_t s = 0; s < bundle_.per_lane; ++s) this->decompose(s);
    }
    for (std::int64_t s = 0; s < bundle_.per_lane; ++s) {
      for (int g = 0; g < kVectors; ++g) {
        if (!repaired) propose(s, g);
        certify(s, g);
      }
      store(s);
    }
  }

 private:
  const Pass<T>& pass_;
  const std::int64_t begin_, end_, n_;
  Bundle<T, kVectors> bundle_;
  // Of the s-th signals of vector g, at s * kVectors + g: what propose left undecided, and what has
  // to be solved one by one.
  M doubtful_[kMostPerLane * kVectors], unsolved_[kMostPerLane * kVectors];

  std::int64_t row_of(std::int64_t s) const { return s * (n_ + 1) * L; }
  // The s-th signals of the lanes; the last ones may be fewer than lanes.
  SignalOffsets offsets(std::int64_t s, std::int64_t length) const {
    const std::int64_t first = begin_ + s * L, last = first + L < end_ ? first + L : end_;
    return SignalOffsets(pass_.shape, length, first, last, L);
  }
  int count(std::int64_t s) const {
    return int(end_ - begin_ - s * L < L ? end_ - begin_ - s * L : L);
  }

  void load(std::int64_t s) {
    const SignalOffsets samples = offsets(s, n_);
    T* rows = bundle_.samples + row_of(s);
    if (pass_.num_minus == 0)
      gather<L>(pass_.x, samples, n_, rows);
    else
      gather<L>(Difference<T>{pass_.x, pass_.minus[0]}, samples, n_, rows, kSet);
    for (int j = 1; j < pass_.num_minus; ++j)
      gather<L>(Values<T>{pass_.minus[j]}, samples, n_, rows,
                [](auto& row, auto value) { row -= value; });
    gather<L>(pass_.w.data, offsets(s, pass_.w.pitch(n_)), pass_.w.length(n_),
              bundle_.weights + (kPerEdge ? row_of(s) : s * L));
  }

  // By the taut string. False where that is not the method for these signals.
  bool find_cuts() {
    for (std::int64_t s = 0; s < bundle_.per_lane; ++s)
      for (int g = 0; g < kVectors; ++g) fill_lanes(bundle_, s, g);
    end_lanes(bundle_);
    V* duals = reinterpret_cast<V*>(bundle_.duals);
    const V none = (V)~M{};
    for (std::int64_t i = 0; i < bundle_.rows() * kVectors; i += kVectors) {
      for (int g = 0; g < kVectors; ++g) duals[i + g] = none;
      asm volatile("" ::: "memory");  // stores, not memset, whose bytes callgrind counts
    }
    const V* weights = reinterpret_cast<const V*>(bundle_.weights);
    const T weight = bundle_.weights[0];
    M others = {};
    for (std::int64_t i = 0; i < bundle_.per_lane * kVectors; ++i) others |= weights[i] != weight;
    const bool same = !any(others);
    IntervalString<T, kVectors> string(bundle_.lanes, bundle_.duals, bundle_.rows(),
                                       bundle_.pitch());
    if (!string.run(same ? weight : T(1))) return false;
    for (std::int64_t s = 0; s < bundle_.per_lane && !same; ++s)
      for (std::int64_t k = 0; k < n_; ++k)
        for (int g = 0; g < kVectors; ++g)
          duals[(s * (n_ + 1) + k) * kVectors + g] *= weights[s * kVectors + g];
    return true;
  }

  // The cuts of the s-th signals by threshold decomposition.
  void decompose(std::int64_t s) {
    for (int g = 0; g < kVectors; ++g) find_extremes(bundle_, s, g);
    T *copy = bundle_.work, *messages = copy + n_ * L, *thresholds = messages + n_ * L;
    const T* weights = bundle_.weights + (kPerEdge ? row_of(s) : s * L);
    const T* samples = prepared(s, copy) ? copy : bundle_.samples + row_of(s);
    Decomposition<T, kVectors, kPerEdge>(n_, samples, weights, messages, thresholds,
                                         bundle_.duals + row_of(s) - L)
        .run();
  }

  // Copies the samples, with 0 for those of signals that vectors cannot solve, and less the first
  // one where they all lie within a factor of two of each other: that is exact, and a large offset
  // costs no accuracy. Returns false, and copies nothing, if that would change none.
  bool prepared(std::int64_t s, T* copy) const {
    const V zero = {};
    M bad[kVectors];
    V offset[kVectors];
    bool changes = false;
    for (int g = 0; g < kVectors; ++g) {
      const Signals signals(bundle_, s, g);
      V poison = {};
      for (std::int64_t k = 0; k < n_; ++k)
        poison += signals.row(signals.x, k) - signals.row(signals.x, k);
      bad[g] = ~(poison == zero) | unsolvable(signals);
      const M near = ((signals.low > zero) & (signals.high <= T(2) * signals.low)) |
                     ((signals.high < zero) & (signals.low >= T(2) * signals.high));
      offset[g] = keep(near, signals.row(signals.x, 0));
      changes |= any(bad[g] | near);
    }
    if (!changes) return false;
    for (int g = 0; g < kVectors; ++g) {
      const Signals signals(bundle_, s, g);
      for (std::int64_t k = 0; k < n_; ++k)
        signals.set_row(copy + g * kLanes<T>, k,
                        keep(~bad[g], signals.row(signals.x, k) - offset[g]));
    }
    return true;
  }

  // The signals that vectors cannot solve: near overflow, or with a bad weight.
  M unsolvable(const Signals& signals) const {
    const V zero = {};
    M bad = ~(vmax(-signals.low, signals.high) <= simd_limit<T>(n_));
    for (std::int64_t e = 0; e < signals.weight_rows(); ++e) bad |= ~(signals.weight(e) >= zero);
    return bad;
  }

  // From cuts to values, with the check in T.
  void propose(std::int64_t s, int g) {
    Signals signals(bundle_, s, g);
    segment_values<false>(signals);
    doubtful_[s * kVectors + g] = spread_values<false>(signals, undecided(s, g));
  }

  // Starts from the cuts of the pass before. Returns false where too many of them are wrong: with
  // 1 / kShare of the samples in windows, it takes as long to start afresh. The first 1 / kFirst of
  // the signals tell.
  bool repair() {
    constexpr int kRounds = 4, kShare = 8, kFirst = 8;
    Repair<T, kVectors> windows(bundle_);
    const std::int64_t vectors = bundle_.per_lane * kVectors;
    for (std::int64_t i = 0; i < vectors; ++i) {
      if (!add_windows(windows, i / kVectors, int(i % kVectors))) return false;
      const std::int64_t checked = kFirst * (i + 1) < vectors ? vectors / kFirst : i + 1;
      if (kShare * windows.rows() > checked * kLanes<T> * (n_ + 1)) return false;
    }
    for (int round = 1; !windows.empty(); ++round) {
      if (!windows.run()) return false;
      for (auto& w : windows) {
        DoubleSignal<T> one = signal(Signals(bundle_, w.s, w.lane / kLanes<T>), w.lane % kLanes<T>);
        const bool right = one.take_cuts(windows.cuts(w), w.begin, w.end, windows.weight(w));
        const bool ends_right = (w.begin == 0 || one.surely_jumps(w.begin - 1)) &&
                                (w.end == n_ || one.surely_jumps(w.end - 1));
        w.wider = !ends_right && round < kRounds;
        if (w.wider || (right && ends_right)) continue;
        if (!one.certify_window(w.begin, w.end))
          unsolved_[w.s * kVectors + w.lane / kLanes<T>][w.lane % kLanes<T>] = -1;
      }
      if (!windows.widen()) return false;
    }
    return true;
  }

  // Proposes the solution of the old cuts, and adds the windows where it is wrong.
  bool add_windows(Repair<T, kVectors>& windows, std::int64_t s, int g) {
    Signals signals(bundle_, s, g);
    M* wrong = reinterpret_cast<M*>(bundle_.work);
    segment_values<true>(signals);
    bundle_.low[s * kVectors + g] = signals.low;
    bundle_.high[s * kVectors + g] = signals.high;
    doubtful_[s * kVectors + g] = spread_values<true>(signals, undecided(s, g), wrong);
    unsolved_[s * kVectors + g] = M{};
    const V weight = signals.weight(0);
    const M solvable = ~unsolvable(signals) & (weight != V{});
    if (any(solvable & ~(signals.high - signals.low < kLargest<T> * weight))) return false;
    for (int l = 0; l < kLanes<T> && g * kLanes<T> + l < count(s); ++l)
      if (solvable[l] && !windows.add(s, g, l, wrong)) return false;
    return true;
  }

  M* undecided(std::int64_t s, int g) const {
    return reinterpret_cast<M*>(bundle_.undecided) + (s * kVectors + g) * bundle_.words();
  }

  // Certifies what is undecided of the s-th signals of vector g. What cannot be certified is solved
  // in double.
  void certify(std::int64_t s, int g) {
    const Signals signals(bundle_, s, g);
    M doubtful = doubtful_[s * kVectors + g];
    const M unsolved =
        unsolved_[s * kVectors + g] | copy_unjoined_samples(signals) | unsolvable(signals);
    if (!kPerEdge) doubtful &= signals.weight(0) != V{};
    if (!any(doubtful | unsolved)) return;
    for (int l = 0; l < kLanes<T> && g * kLanes<T> + l < count(s); ++l) {
      const bool solved = !unsolved[l] && (!doubtful[l] || certified(signals, l, undecided(s, g)));
      if (solved) continue;
      solve_strided<T>({.n = n_,
                        .stride = L,
                        .x = signals.x + l,
                        .w = signals.w + l,
                        .per_edge = kPerEdge,
                        .y = signals.y + l});
    }
  }

  // Lane l, in double.
  DoubleSignal<T> signal(const Signals& signals, int l) const {
    return {.n = n_,
            .stride = L,
            .w_stride = kPerEdge ? L : 0,
            .x = signals.x + l,
            .w = signals.w + l,
            .duals = signals.duals + l,
            .y = signals.y + l,
            .least_sure_jump = least_sure_jump<T>(signals.low, signals.high)[l]};
  }

  // Certifies what is undecided of lane l; false where it cannot be mended.
  bool certified(const Signals& signals, int l, const M* undecided) const {
    DoubleSignal<T> one = signal(signals, l);
    std::int64_t done = 0;
    for (std::int64_t word = 0; word < bundle_.words(); ++word) {
      for (auto bits = std::make_unsigned_t<I>(undecided[word][l]); bits; bits &= bits - 1) {
        const std::int64_t edge = word * kWordBits<T> + std::countr_zero(bits);
        if (edge + 1 < done) continue;
        done = one.certify(edge < done ? done - 1 : edge, edge + 1);
        if (done < 0) return false;
      }
    }
    return true;
  }

  // Writes what the pass asks for.
  void store(std::int64_t s) {
    const SignalOffsets target = offsets(s, n_);
    T *z = bundle_.lanes + row_of(s), *residual = bundle_.samples + row_of(s);
    // The copies of the last signal are stored over it.
    for (std::int64_t k = 0; k < n_ && target.count < L; ++k)
      for (int l = target.count; l < L; ++l) z[k * L + l] = z[k * L + target.count - 1];
    if (pass_.y) scatter<L>(z, target, n_, pass_.y);
    if (pass_.residual) {
      JAXTV_UNROLL
      for (std::int64_t i = 0; i < n_ * L; i += kLanes<T>)
        store_vector(residual + i, load_vector(residual + i) - load_vector(z + i));
      scatter<L>(residual, target, n_, pass_.residual);
    }
    if (pass_.codes) {
      std::uint8_t* codes = reinterpret_cast<std::uint8_t*>(bundle_.work);
      codes_of<T, kVectors, kPerEdge>(bundle_, s, pass_.code_shift, codes);
      add_codes<L>(codes, target, n_, pass_.codes);
    }
  }
};

inline std::int64_t signals_per_lane(std::int64_t n) {
  constexpr std::int64_t kRows = 256;
  return n >= kRows ? 1 : n <= kRows / kMostPerLane ? kMostPerLane : kRows / n;
}

// As many signals as fill all lanes. Of long signals fewer: the scratch should stay in the
// second-level cache.
template <class T>
int signals_per_group(std::int64_t n) {
  constexpr std::int64_t kCache = 2 << 20, kPerSample = 3 * sizeof(T);
  const bool fits = n * kMostVectors * kLanes<T> * kPerSample <= kCache;
  return int((fits ? kMostVectors : 1) * kLanes<T> * signals_per_lane(n));
}

template <class T>
std::size_t prox_scratch_bytes(std::int64_t n) {
  return Bundle<T, kMostVectors>::scratch_bytes(n, signals_per_lane(n));
}

// The vectors of a bundle of so many signals.
template <class T>
int vectors_of(std::int64_t signals) {
  return signals > kLanes<T> ? kMostVectors : 1;
}

template <class T, int kVectors>
std::int64_t duals_length(std::int64_t n, std::int64_t signals) {
  using B = Bundle<T, kVectors>;
  return B::duals_length(n, (signals + B::kSignals - 1) / B::kSignals);
}
template <class T>
std::int64_t duals_length(std::int64_t n, std::int64_t signals) {
  return vectors_of<T>(signals) == 1 ? duals_length<T, 1>(n, signals)
                                     : duals_length<T, kMostVectors>(n, signals);
}

template <class T, int kVectors>
void prox(const Pass<T>& pass, std::int64_t begin, std::int64_t end, bool decompose, T* kept_duals,
          void* scratch) {
  if (pass.w.per_edge)
    BundleProx<T, kVectors, true>(pass, begin, end, kept_duals, scratch).run(decompose);
  else
    BundleProx<T, kVectors, false>(pass, begin, end, kept_duals, scratch).run(decompose);
}

// Solves the signals [begin, end), at most as many as signals_per_group(n). Reads x, minus and w of
// the pass, writes y, residual and codes.
template <class T>
void prox(const Pass<T>& pass, std::int64_t begin, std::int64_t end, bool decompose, T* kept_duals,
          void* scratch) {
  if (vectors_of<T>(end - begin) == 1)
    prox<T, 1>(pass, begin, end, decompose, kept_duals, scratch);
  else
    prox<T, kMostVectors>(pass, begin, end, decompose, kept_duals, scratch);
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
