// Means over the segments of a solution (Eq. 8 of the paper in O(n)), for kTileSignals signals that
// lie side by side: sample k of signal l is at k * stride + l.
#pragma once

#include <cstdint>
#include <cstring>

#include "jaxtv/edge_code.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Loops work on kMeanVectors vectors of double in turn, which hide each other's latency. Their
// samples in float32 fill at most a cache line.
constexpr int kMeanVectors = kBytes == 64 ? 2 : 4;
constexpr int kTileSignals = kMeanVectors * kDoubleLanes;

// An edge in each of kDoubleLanes signals: whether it is inside a segment, and the sign of its
// jump.
struct Edge {
  DoubleMask inside;
  Double sign;
};

// Called with (k, l): the edges (k, k + 1) of the kDoubleLanes signals from l on, from the solution
// y and its weights w.
template <class T>
struct EdgesFromValues {
  const T *y, *w;
  std::int64_t stride, w_stride;  // w_stride 0: one weight per signal
  Edge operator()(std::int64_t k, int l) const {
    const auto a = load_half(y + k * stride + l), b = load_half(y + (k + 1) * stride + l);
    const typename Vectors<T>::Half zero = {}, one = zero + T(1);
    return {widen<DoubleMask>((a == b) & (load_half(w + k * w_stride + l) > zero)),
            widen<Double>((b > a ? one : zero) - (b < a ? one : zero))};
  }
};

// The same from edge codes: kDoubleLanes of them, a byte each, are loaded as one word.
struct EdgesFromCodes {
  const std::uint8_t* codes;
  std::int64_t stride;
  DoubleMask bits;  // lane i: the two bits of signal l + i in the word
  EdgesFromCodes(const std::uint8_t* codes, std::int64_t stride, int code_shift)
      : codes(codes), stride(stride) {
    for (int i = 0; i < kDoubleLanes; ++i)
      bits[i] = std::int64_t(std::uint64_t(kCodeMask) << (8 * i + code_shift));
  }
  Edge operator()(std::int64_t k, int l) const {
    std::int64_t word = 0;
    std::memcpy(&word, codes + k * stride + l, kDoubleLanes);
    const DoubleMask code = (DoubleMask{} + word) & bits;
    // In the places of `bits`: kInside is no bit, kJumpUp the low one, kJumpDown the high one.
    const DoubleMask zero = {}, up = bits & ~(bits << 1), down = bits ^ up;
    const Double one = Double{} + 1.0;
    return {code == zero, keep(code == up, one) - keep(code == down, one)};
  }
};

// Writes to `out` the means over segments of v(k, l), a Double for sample k of the signals from l
// on. Sums are in double, from the right. Calls visit(k, l, edge, before, after) for every edge
// (k, k + 1) with the means on both sides. `out` may be the array that v reads.
template <class T, class Edges, class Value, class Visit>
inline void segment_means(std::int64_t n, std::int64_t stride, Edges edges, Value v, T* out,
                          Visit visit) {
  const Double zero = {}, one = zero + 1.0;
  Double sum[kMeanVectors] = {}, count[kMeanVectors] = {};
  for (std::int64_t k = n - 1; k >= 0; --k) {
    JAXTV_UNROLL
    for (int g = 0; g < kMeanVectors; ++g) {
      const int l = g * kDoubleLanes;
      sum[g] += v(k, l);
      count[g] += one;
      // At the first sample of a segment this is its mean.
      store_half(out + k * stride + l, narrow<T>(sum[g]) / narrow<T>(count[g]));
      if (k == 0) continue;
      const DoubleMask inside = edges(k - 1, l).inside;
      sum[g] = keep(inside, sum[g]);
      count[g] = keep(inside, count[g]);
    }
  }
  Double mean[kMeanVectors];
  for (int g = 0; g < kMeanVectors; ++g) mean[g] = load_wide(out + g * kDoubleLanes);
  for (std::int64_t k = 1; k < n; ++k) {
    JAXTV_UNROLL
    for (int g = 0; g < kMeanVectors; ++g) {
      const int l = g * kDoubleLanes;
      const Edge edge = edges(k - 1, l);
      const Double before = mean[g], after = load_wide(out + k * stride + l);
      mean[g] = edge.inside ? before : after;
      store_half(out + k * stride + l, narrow<T>(mean[g]));
      visit(k - 1, l, edge, before, mean[g]);
    }
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
