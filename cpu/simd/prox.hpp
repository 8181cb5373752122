// The 1D prox of bundles of signals: all steps, in order.
#pragma once

#include <cstdint>
#include <cstring>

#include "jaxtv/overflow.hpp"
#include "pass.hpp"
#include "serial.hpp"
#include "simd/decomposition.hpp"
#include "simd/edge_codes.hpp"
#include "simd/fill_lanes.hpp"
#include "simd/interval_string.hpp"
#include "simd/mend.hpp"
#include "simd/signals.hpp"
#include "simd/solution.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

template <class T, int kVectors, bool kPerEdge>
class BundleProx {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  using Signals = VectorSignals<T, kVectors, kPerEdge>;
  static constexpr int L = Bundle<T, kVectors>::kSignals;

 public:
  BundleProx(const Pass<T>& pass, std::int64_t begin, std::int64_t end, void* scratch)
      : pass_(pass),
        begin_(begin),
        end_(end),
        n_(pass.shape.n),
        bundle_(n_, (end - begin + L - 1) / L, kPerEdge, scratch) {}

  void run(bool decompose) {
    for (std::int64_t s = 0; s < bundle_.per_lane; ++s) load(s);
    if (kPerEdge || decompose || !find_cuts())
      for (std::int64_t s = 0; s < bundle_.per_lane; ++s) this->decompose(s);
    for (std::int64_t s = 0; s < bundle_.per_lane; ++s) {
      for (int g = 0; g < kVectors; ++g) solve(s, g);
      store(s);
    }
  }

 private:
  const Pass<T>& pass_;
  const std::int64_t begin_, end_, n_;
  Bundle<T, kVectors> bundle_;

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
    gather<L>(pass_.x, samples, n_, rows);
    for (int j = 0; j < pass_.num_minus; ++j)
      gather<L>(pass_.minus[j], samples, n_, rows, [](auto& row, auto value) { row -= value; });
    gather<L>(pass_.w.data, offsets(s, pass_.w.pitch(n_)), pass_.w.length(n_),
              bundle_.weights + (kPerEdge ? row_of(s) : s * L));
    for (int g = 0; g < kVectors; ++g) fill_lanes(bundle_, s, g);
  }

  // By the taut string. False where that is not the method for these signals.
  bool find_cuts() {
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
    if (!IntervalString<T, kVectors>(bundle_).run(same ? weight : T(1))) return false;
    for (std::int64_t s = 0; s < bundle_.per_lane && !same; ++s)
      for (std::int64_t k = 0; k < n_; ++k)
        for (int g = 0; g < kVectors; ++g)
          duals[(s * (n_ + 1) + k) * kVectors + g] *= weights[s * kVectors + g];
    return true;
  }

  // The cuts of the s-th signals by threshold decomposition.
  void decompose(std::int64_t s) {
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

  // From cuts to the solution of the s-th signals of vector g.
  void solve(std::int64_t s, int g) {
    const Signals signals(bundle_, s, g);
    M* undecided = reinterpret_cast<M*>(bundle_.work);
    segment_values(signals);
    M doubtful = spread_values(signals, undecided);
    const M unsolved = copy_unjoined_samples(signals) | unsolvable(signals);
    if (!kPerEdge) doubtful &= signals.weight(0) != V{};
    if (!any(doubtful | unsolved)) return;
    for (int l = 0; l < kLanes<T> && g * kLanes<T> + l < count(s); ++l) {
      const bool solved = !unsolved[l] && (!doubtful[l] || certified(signals, l, undecided));
      if (solved) continue;
      solve_strided<T>({.n = n_,
                        .stride = L,
                        .x = signals.x + l,
                        .w = signals.w + l,
                        .per_edge = kPerEdge,
                        .y = signals.y + l});
    }
  }

  // Certifies what is undecided of lane l; false where it cannot be mended.
  bool certified(const Signals& signals, int l, const M* undecided) const {
    DoubleSignal<T> one{.n = n_,
                        .stride = L,
                        .w_stride = kPerEdge ? L : 0,
                        .x = signals.x + l,
                        .w = signals.w + l,
                        .duals = signals.duals + l,
                        .y = signals.y + l};
    std::int64_t done = 0;
    for (std::int64_t first = 0; first + 1 < n_; first += kChunk, ++undecided) {
      const std::int64_t last = first + kChunk < n_ ? first + kChunk : n_ - 1;
      if (!(*undecided)[l] || last < done) continue;
      done = one.certify(first < done ? done - 1 : first, last);
      if (done < 0) return false;
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
      for (std::int64_t i = 0; i < n_ * L; ++i) residual[i] -= z[i];
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

template <class T, int kVectors>
void prox(const Pass<T>& pass, std::int64_t begin, std::int64_t end, bool decompose,
          void* scratch) {
  if (pass.w.per_edge)
    BundleProx<T, kVectors, true>(pass, begin, end, scratch).run(decompose);
  else
    BundleProx<T, kVectors, false>(pass, begin, end, scratch).run(decompose);
}

// Solves the signals [begin, end), at most as many as signals_per_group(n). Reads x, minus and w of
// the pass, writes y, residual and codes.
template <class T>
void prox(const Pass<T>& pass, std::int64_t begin, std::int64_t end, bool decompose,
          void* scratch) {
  if (end - begin > kLanes<T>)
    prox<T, kMostVectors>(pass, begin, end, decompose, scratch);
  else
    prox<T, 1>(pass, begin, end, decompose, scratch);
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
