// Threshold decomposition of a group of signals (include/jaxtv/decomposition.hpp has the method,
// for one signal, and defines messages and labels). Here each pass works on all regions of all
// signals at once. A cut is an edge whose dual is known: ± its weight. In `duals` all other edges
// have NaN. A region is the samples between two cuts. A pass computes messages from left to right,
// each region at its own threshold; then labels from right to left; and cuts the edges where labels
// change.
#pragma once

#include <cstdint>

#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Signals that still change after so many passes are mended or solved one by one, in double.
constexpr int kMostPasses = 64;

// Arrays of rows: row k holds sample k of kVectors vectors of signals. Reads samples and weights
// (one row, or n - 1 with kPerEdge); writes n messages, n thresholds and n + 1 duals: row k is of
// the edge before sample k. The first pass (kFirst) knows that there are no cuts yet.
template <class T, int kVectors, bool kPerEdge>
class Decomposition {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;

 public:
  Decomposition(std::int64_t n, const T* x, const T* w, T* messages, T* thresholds, T* duals)
      : n(n),
        x(rows(x)),
        w(rows(w)),
        messages(rows(messages)),
        thresholds(rows(thresholds)),
        duals(rows(duals)) {
    for (int g = 0; g < kVectors; ++g) uniform[g] = this->w[g];
  }

  // Finds the cuts.
  void run() {
    start();
    bool more = pass<true>();
    for (int i = 1; more && i < kMostPasses; ++i) more = pass<false>();
    cut_weightless();
  }

 private:
  const std::int64_t n;
  const V *x, *w;
  V *messages, *thresholds, *duals;
  V uniform[kVectors];          // the weight of all edges, unless kPerEdge
  V first_threshold[kVectors];  // of the leftmost region
  M changed[kVectors];          // signals that this pass has cut

  static V* rows(T* a) { return reinterpret_cast<V*>(a); }
  static const V* rows(const T* a) { return reinterpret_cast<const V*>(a); }
  V weight(std::int64_t e, int g) const { return kPerEdge ? w[e * kVectors + g] : uniform[g]; }

  // The first region is the signal: its threshold is the mean, and its ends are cuts with dual 0.
  void start() {
    V sum[kVectors] = {};
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < kVectors; ++g) sum[g] += x[k * kVectors + g] - x[g];
    }
    for (int g = 0; g < kVectors; ++g) {
      first_threshold[g] = x[g] + sum[g] / T(n);
      duals[g] = duals[n * kVectors + g] = V{};
    }
  }

  // Messages, from left to right; at a cut they start from its dual. Returns whether one was
  // clamped to its bounds: if none was, all regions are segments. The first pass does not
  // look and returns true.
  template <bool kFirst>
  bool forward() {
    V message[kVectors], threshold[kVectors];
    M clamped[kVectors];
    JAXTV_UNROLL
    for (int g = 0; g < kVectors; ++g) {
      threshold[g] = first_threshold[g];
      messages[g] = message[g] = threshold[g] - x[g];
      clamped[g] = M{};
    }
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < kVectors; ++g) {
        const V bound = weight(k - 1, g);
        V t = vmin(vmax(message[g], -bound), bound);
        if constexpr (!kFirst) {
          const V dual = duals[k * kVectors + g];
          const M inside = is_nan(dual);
          clamped[g] |= (t != message[g]) & inside;
          t = inside < 0 ? t : dual;
          threshold[g] = inside < 0 ? threshold[g] : thresholds[k * kVectors + g];
        }
        messages[k * kVectors + g] = message[g] = t + (threshold[g] - x[k * kVectors + g]);
      }
    }
    return kFirst || any_of(clamped);
  }

  // Labels, from right to left: a mask that is set where the solution lies above its region's
  // threshold. Writes the cuts where they change, and the thresholds of the regions between cuts,
  // each at the first sample of its region.
  template <bool kFirst>
  void backward() {
    const V zero = {}, one = zero + T(1);
    M label[kVectors];
    V sum[kVectors], count[kVectors], dual_after[kVectors];
    JAXTV_UNROLL
    for (int g = 0; g < kVectors; ++g) {
      label[g] = messages[(n - 1) * kVectors + g] < zero;
      sum[g] = x[(n - 1) * kVectors + g];
      count[g] = one;
      dual_after[g] = zero;
    }
    for (std::int64_t k = n - 2; k >= 0; --k) {
      JAXTV_UNROLL
      for (int g = 0; g < kVectors; ++g) {
        const V t = messages[k * kVectors + g], bound = weight(k, g);
        V& edge_dual = duals[(k + 1) * kVectors + g];
        const M after = label[g];
        label[g] = (t < -bound) | (after & ~(t > bound));
        M inside = label[g] == after;
        V dual = label[g] < 0 ? -bound : bound;
        dual = (V)((M)dual | inside);  // all bits set are not a number
        M was_inside = ~M{};
        if constexpr (!kFirst) {
          const V old = edge_dual;
          was_inside = is_nan(old);
          label[g] = (label[g] & was_inside) | (t < old);  // left of a cut labels start anew
          dual = was_inside < 0 ? dual : old;
          inside &= was_inside;
        }
        changed[g] |= inside ^ was_inside;
        edge_dual = dual;
        thresholds[(k + 1) * kVectors + g] =
            (sum[g] + (dual_after[g] - dual)) / count[g];  // read only where cut
        dual_after[g] = inside < 0 ? dual_after[g] : dual;
        sum[g] = keep(inside, sum[g]) + x[k * kVectors + g];
        count[g] = keep(inside, count[g]) + one;
      }
    }
    JAXTV_UNROLL
    for (int g = 0; g < kVectors; ++g) first_threshold[g] = (sum[g] + dual_after[g]) / count[g];
  }

  // Returns whether there was a cut.
  template <bool kFirst>
  bool pass() {
    for (int g = 0; g < kVectors; ++g) changed[g] = M{};
    if (!forward<kFirst>()) return false;
    backward<kFirst>();
    return any_of(changed);
  }
  // Cuts edges of weight 0: they join nothing. A signal whose one λ is 0 needs no cuts, because
  // copy_unjoined_samples copies it.
  void cut_weightless() {
    for (std::int64_t e = 0; kPerEdge && e + 1 < n; ++e)
      for (int g = 0; g < kVectors; ++g) {
        V& edge_dual = duals[(e + 1) * kVectors + g];
        edge_dual = weight(e, g) == V{} ? V{} : edge_dual;
      }
  }
  static bool any_of(const M (&masks)[kVectors]) {
    M all = masks[0];
    for (int g = 1; g < kVectors; ++g) all |= masks[g];
    return any(all);
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
