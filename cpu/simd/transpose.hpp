// Transposes in registers, for signals that are contiguous in memory: vectors of one signal's
// samples become vectors of one sample of several signals, and back. Samples are moved by quads of
// 16 bytes, edge codes by squares of 16 x 16 bytes.
#pragma once

#include <cstdint>
#include <utility>

#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// A quad is 16 bytes of one signal: kQuadSamples samples. A vector holds kQuads of them.
template <class T>
constexpr int kQuadSamples = 16 / sizeof(T);
constexpr int kQuads = kBytes / 16;

// The low or high halves of every quad of a and b, interleaved.
template <class T, bool kHigh, class V, std::size_t... I>
JAXTV_INLINE V interleave(V a, V b, std::index_sequence<I...>) {
  constexpr std::size_t q = kQuadSamples<T>, n = sizeof(V) / sizeof(T);
  return pick(a, b,
              std::index_sequence<(I % 2 * n + I / q * q + (kHigh ? q / 2 : 0) + I % q / 2)...>());
}
template <class T, bool kHigh, class V>
JAXTV_INLINE V interleave(V a, V b) {
  return interleave<T, kHigh>(a, b, std::make_index_sequence<sizeof(V) / sizeof(T)>());
}

// Transposes the quads of v: element r of quad j of v[i] changes places with element i of quad j of
// v[r].
JAXTV_INLINE void transpose_quads(Vectors<double>::V (&v)[2]) {
  const auto low = interleave<double, false>(v[0], v[1]);
  v[1] = interleave<double, true>(v[0], v[1]);
  v[0] = low;
}
JAXTV_INLINE void transpose_quads(Vectors<float>::V (&v)[4]) {
  using V = Vectors<float>::V;
  for (int i = 0; i < 2; ++i) {
    // Rows 0, 1, then 2, 3: pairs of floats, which move like doubles from here on.
    const V low = interleave<float, false>(v[2 * i], v[2 * i + 1]);
    v[2 * i + 1] = interleave<float, true>(v[2 * i], v[2 * i + 1]);
    v[2 * i] = low;
  }
  Double a[2] = {(Double)v[0], (Double)v[2]}, b[2] = {(Double)v[1], (Double)v[3]};
  transpose_quads(a);
  transpose_quads(b);
  v[0] = (V)a[0], v[1] = (V)a[1], v[2] = (V)b[0], v[3] = (V)b[1];
}

// Edge codes of kSquare samples of a signal, a byte each.
constexpr int kSquare = 16;
typedef std::uint8_t CodeVector __attribute__((vector_size(kSquare)));

// Byte j of v[i] changes places with byte i of v[j].
JAXTV_INLINE void transpose_codes(CodeVector (&v)[kSquare]) {
  for (int step = 1; step < kSquare; step *= 2) {
    CodeVector shuffled[kSquare];
    for (int i = 0; i < kSquare / 2; ++i) {
      shuffled[2 * i] = interleave<std::uint8_t, false>(v[i], v[i + kSquare / 2]);
      shuffled[2 * i + 1] = interleave<std::uint8_t, true>(v[i], v[i + kSquare / 2]);
    }
    for (int i = 0; i < kSquare; ++i) v[i] = shuffled[i];
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
