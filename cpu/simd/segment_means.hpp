// Means over the segments of a solution (Eq. 8 of the paper in O(n)), for kTileSignals signals that
// lie side by side: sample k of signal l is at k * stride + l.
#pragma once

#include <cstdint>
#include <cstring>

#include "jaxtv/edge_code.hpp"
#include "simd/sums.hpp"
#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Loops work on the kTileVectors vectors of a row in turn, which hide each other's latency. A row
// in float32 fills at most a cache line.
constexpr int kTileSignals = kBytes == 16 ? 8 : 16;
template <class T>
constexpr int kTileVectors = kTileSignals / kLanes<T>;

// An edge in each lane: whether it is inside a segment, and the sign of its jump.
template <class T>
struct Edge {
  typename Vectors<T>::M inside;
  typename Vectors<T>::V sign;
};

// Called with (k, l): the edges (k, k + 1) of the kLanes signals from l on, from the solution y and
// its weights w.
template <class T, bool kPerEdge>
struct EdgesFromValues {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const T *y, *w;
  std::int64_t stride;
  M joined[kTileVectors<T>];  // unless kPerEdge: the signals with a weight > 0
  EdgesFromValues(const T* y, const T* w, std::int64_t stride) : y(y), w(w), stride(stride) {
    for (int g = 0; g < kTileVectors<T> && !kPerEdge; ++g)
      joined[g] = load_vector(w + g * kLanes<T>) > V{};
  }
  Edge<T> operator()(std::int64_t k, int l) const {
    const V a = load_vector(y + k * stride + l), b = load_vector(y + (k + 1) * stride + l);
    const V zero = {}, one = zero + T(1);
    const V sign = keep(b > a, one) - keep(b < a, one);
    if constexpr (kPerEdge) return {(a == b) & (load_vector(w + k * stride + l) > zero), sign};
    return {(a == b) & joined[l / kLanes<T>], sign};
  }
};

// The same from edge codes, a byte each.
template <class T>
struct EdgesFromCodes {
  using M = typename Vectors<T>::M;
  const std::uint8_t* codes;
  std::int64_t stride;
  M up, down;  // the bit of kJumpUp and that of kJumpDown; kSeparate has both, kInside none
  EdgesFromCodes(const std::uint8_t* codes, std::int64_t stride, int code_shift)
      : codes(codes),
        stride(stride),
        up(M{} + (kJumpUp << code_shift)),
        down(M{} + (kJumpDown << code_shift)) {}
  Edge<T> operator()(std::int64_t k, int l) const {
    typedef std::uint8_t Codes __attribute__((vector_size(kLanes<T>)));
    Codes bytes;
    std::memcpy(&bytes, codes + k * stride + l, sizeof bytes);
    const M code = widen<M>(bytes, std::make_index_sequence<kLanes<T>>());
    const typename Vectors<T>::V zero = {}, one = zero + T(1);
    return {(code & (up | down)) == M{},
            keep((code & up) == up, one) - keep((code & down) == down, one)};
  }
};

// The means over segments of the values that add_value(k, l, sum) adds to `sum`, for sample k of
// the signals from l on. Calls visit(k, l, mean, edge) for every sample in order, with the edge
// after it; after the last sample there is none, and its sign is 0. `means` is scratch of n rows of
// `stride`; it may be what add_value reads, and what visit writes.
template <class T, class Edges, class AddValue, class Visit>
JAXTV_INLINE void segment_means(std::int64_t n, Edges edges, AddValue add_value, T* means,
                                std::int64_t stride, Visit visit) {
  using V = typename Vectors<T>::V;
  constexpr int kVectors = kTileVectors<T>;
  Sum<T> sum[kVectors];
  SampleCount<T> count[kVectors];
  const auto add_sample = [&](std::int64_t k, int g) {
    const int l = g * kLanes<T>;
    add_value(k, l, sum[g]);
    count[g].increment();
    // At the first sample of a segment this is its mean.
    store_vector(means + k * stride + l, sum[g].total() / count[g].total());
  };
  JAXTV_UNROLL
  for (int g = 0; g < kVectors; ++g) add_sample(n - 1, g);
  for (std::int64_t begin = n - 1; begin > 0;) {
    const std::int64_t end = begin;
    begin = end > kFold ? end - kFold : 0;
    for (std::int64_t k = end - 1; k >= begin; --k) {
      JAXTV_UNROLL
      for (int g = 0; g < kVectors; ++g) {
        const auto inside = edges(k, g * kLanes<T>).inside;
        sum[g].restrict_to(inside);
        count[g].restrict_to(inside);
        add_sample(k, g);
      }
    }
    for (int g = 0; g < kVectors; ++g) {
      sum[g].fold();
      count[g].fold();
    }
  }
  V mean[kVectors];
  JAXTV_UNROLL
  for (int g = 0; g < kVectors; ++g) mean[g] = load_vector(means + g * kLanes<T>);
  for (std::int64_t k = 0; k + 1 < n; ++k) {
    JAXTV_UNROLL
    for (int g = 0; g < kVectors; ++g) {
      const int l = g * kLanes<T>;
      const Edge<T> edge = edges(k, l);
      visit(k, l, mean[g], edge);
      const V next = load_vector(means + (k + 1) * stride + l);
      mean[g] = edge.inside < 0 ? mean[g] : next;
    }
  }
  JAXTV_UNROLL
  for (int g = 0; g < kVectors; ++g) visit(n - 1, g * kLanes<T>, mean[g], Edge<T>{});
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
