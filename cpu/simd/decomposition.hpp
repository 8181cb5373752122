// Threshold decomposition of a group of signals (include/jaxtv/decomposition.hpp has the method,
// for one signal, and defines messages and labels). Here each pass works on all regions of all
// signals at once. A cut is an edge whose dual is known: ± its weight. In `duals` all other edges
// have NaN. A region is the samples between two cuts. A pass computes messages from left to right,
// each region at its own threshold; then labels from right to left; and cuts the edges where labels
// change.
#pragma once

#include "simd/group.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Signals that still change after so many passes are solved one by one, in double.
constexpr int kMostPasses = 64;

// Reads samples and weights of a group; writes messages, thresholds (in `values`) and duals. The
// first pass (kFirst) knows that there are no cuts yet.
template <class T, int kVectors, bool kPerEdge>
struct Decomposition {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const std::int64_t n;
  const V *x, *w;
  V *messages, *thresholds, *duals;
  V uniform[kVectors];          // the weight of all edges, unless kPerEdge
  V first_threshold[kVectors];  // of the leftmost region
  M changed[kVectors];          // signals that this pass has cut

  explicit Decomposition(SignalGroup<T, kVectors>& group)
      : n(group.n),
        x(rows(group.samples)),
        w(rows(group.weights)),
        messages(rows(group.messages)),
        thresholds(rows(group.values)),
        duals(rows(group.duals)) {
    for (int g = 0; g < kVectors; ++g) uniform[g] = w[g];
  }
  static V* rows(T* a) { return reinterpret_cast<V*>(a); }
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

// Finds the cuts of a group, as duals. Signals that need more passes become unsolved.
template <class T, int kVectors, bool kPerEdge>
void decompose(SignalGroup<T, kVectors>& group) {
  Decomposition<T, kVectors, kPerEdge> d(group);
  d.start();
  bool more = d.template pass<true>();
  for (int pass = 1; more && pass < kMostPasses; ++pass) more = d.template pass<false>();
  d.cut_weightless();
  for (int g = 0; g < kVectors; ++g)
    for (int l = 0; l < kLanes<T>; ++l) group.unsolved[g * kLanes<T> + l] |= d.changed[g][l] != 0;
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
