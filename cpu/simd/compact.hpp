// Compaction: the elements of a vector that a mask chooses, side by side. The vector extensions
// have no permutation by a variable, so that AVX2 and AVX-512 need intrinsics here.
#pragma once

#include <cstdint>

#include "simd/vectors.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

#if defined(__AVX2__)
// For every mask of 32 / kSize elements: where the words of the chosen ones are in their vector.
template <int kSize>
struct ChosenWords {
  static constexpr int kElements = 32 / kSize, kWords = kSize / 4;
  alignas(32) std::uint8_t at[1 << kElements][8] = {};
  constexpr ChosenWords() {
    for (int mask = 0; mask < 1 << kElements; ++mask)
      for (int i = 0, next = 0; i < kElements; ++i)
        for (int word = 0; word < kWords && (mask >> i & 1); ++word)
          at[mask][next++] = std::uint8_t(i * kWords + word);
  }
};
template <int kSize>
constexpr ChosenWords<kSize> kChosenWords;

// As compact, for 32 bytes.
template <class E>
JAXTV_INLINE int compact_32(E* p, __m256i v, __m256i mask) {
  const int bits = sizeof(E) == 4 ? _mm256_movemask_ps(_mm256_castsi256_ps(mask))
                                  : _mm256_movemask_pd(_mm256_castsi256_pd(mask));
  const auto* words = reinterpret_cast<const __m128i*>(kChosenWords<sizeof(E)>.at[bits]);
  const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64(words));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(v, order));
  return __builtin_popcount(bits);
}
#endif

// Writes the elements of v where `mask` is set to p, and returns how many. It may write as many as
// v has.
template <class E, class M>
JAXTV_INLINE int compact(E* p, M v, M mask) {
  int count = 0;
#if defined(__AVX2__)
  __m256i parts[kBytes / 32], masks[kBytes / 32];
  std::memcpy(parts, &v, kBytes);
  std::memcpy(masks, &mask, kBytes);
  JAXTV_UNROLL
  for (int i = 0; i < kBytes / 32; ++i) count += compact_32(p + count, parts[i], masks[i]);
#else
  for (int l = 0; l < int(kBytes / sizeof(E)); ++l) {
    p[count] = v[l];
    count -= int(mask[l]);
  }
#endif
  return count;
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
