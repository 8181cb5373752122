// The half types as they lie in memory. Kernels read them as float and round to them, to nearest
// and ties to even, where they write; nothing is computed in them.
#pragma once

#if defined(JAXTV_SIMT)
#include <bit>
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "block/launch.cuh"

namespace jaxtv::cuda {

struct BFloat16 {
  std::uint16_t bits;
#if !defined(JAXTV_SIMT)
  JAXTV_DEVICE operator float() const { return __uint_as_float(std::uint32_t(bits) << 16); }
  JAXTV_DEVICE void operator=(float v) { bits = __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
#else
  operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
  void operator=(float v) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(v);
    bits = std::uint16_t(v == v ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : u >> 16 | 0x40);
  }
#endif
};

struct Float16 {
  std::uint16_t bits;
#if !defined(JAXTV_SIMT)
  JAXTV_DEVICE operator float() const { return __half2float(__ushort_as_half(bits)); }
  JAXTV_DEVICE void operator=(float v) { bits = __half_as_ushort(__float2half_rn(v)); }
#else
  operator float() const { return float(std::bit_cast<_Float16>(bits)); }
  void operator=(float v) { bits = std::bit_cast<std::uint16_t>(_Float16(v)); }
#endif
};

}  // namespace jaxtv::cuda
