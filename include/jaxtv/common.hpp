// What every solver shares: host/device qualifier, strided views of one signal.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define JAXTV_HD __host__ __device__
#else
#define JAXTV_HD
#endif

// Inlined always: sources that are compiled once per instruction set use it, and the linker must
// not serve one set with the copy that another one's unit emitted.
#define JAXTV_INLINE inline __attribute__((always_inline))

namespace jaxtv {

// Signal k of an (outer, n, inner) array is a pointer and a stride. Stride 0 repeats one value:
// that is how one λ for all edges of a signal is written.
template <class T>
struct Strided {
  T* data;
  std::ptrdiff_t stride;
  JAXTV_HD T& operator[](std::ptrdiff_t i) const { return data[i * stride]; }
  JAXTV_HD Strided operator+(std::ptrdiff_t i) const { return {data + i * stride, stride}; }
};

// The numerics below avoid <cmath> so that one source serves host, device and every vector ISA.
template <class R>
JAXTV_HD inline R abs_of(R v) {
  return v < R(0) ? -v : v;
}
template <class R>
JAXTV_HD inline R min_of(R a, R b) {
  return b < a ? b : a;
}
template <class R>
JAXTV_HD inline R max_of(R a, R b) {
  return a < b ? b : a;
}
template <class R>
JAXTV_HD inline bool is_finite(R v) {
  return v - v == R(0);
}
template <class R>
JAXTV_HD inline R sign_of(R v) {
  return R((v > R(0)) - (v < R(0)));
}

// Round-off unit of double, the type that serial solvers compute in.
constexpr double kEps = 2.220446049250313e-16;

// a / count for a count >= 1 and r within 2^-23 of 1 / count (Markstein 1990): rounded correctly;
// where the quotient is denormal, possibly to the neighbour of that.
template <class Fma>
JAXTV_HD inline float quotient_by(float a, float count, float r, Fma fma) {
  r = fma(fma(-count, r, 1.0f), r, r);
  const float q = a * r;
  return fma(fma(-q, count, a), r, q);
}

// Single instructions on a GPU. With a NaN, smaller and larger are the other operand, or NaN; fused
// is a * b + c, rounded once there and twice elsewhere.
#if defined(__CUDA_ARCH__)
__device__ inline float smaller(float a, float b) { return fminf(a, b); }
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float magnitude(float a) { return fabsf(a); }
__device__ inline double magnitude(double a) { return fabs(a); }
__device__ inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
// 1 / count, off by at most 2^-23 of it.
__device__ inline float reciprocal(float count) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(count));
  return r;
}
// a / count for r = reciprocal(count), without the code for divisors that counts never are.
__device__ inline float quotient(float a, float count, float r) {
  return quotient_by(a, count, r, [](float x, float y, float z) { return fmaf(x, y, z); });
}
#else
JAXTV_HD inline float smaller(float a, float b) { return min_of(a, b); }
JAXTV_HD inline float larger(float a, float b) { return max_of(a, b); }
JAXTV_HD inline float magnitude(float a) { return abs_of(a); }
JAXTV_HD inline double magnitude(double a) { return abs_of(a); }
JAXTV_HD inline float fused(float a, float b, float c) { return a * b + c; }
JAXTV_HD inline float reciprocal(float count) { return 1.0f / count; }
JAXTV_HD inline float quotient(float a, float count, float) { return a / count; }
#endif

}  // namespace jaxtv
