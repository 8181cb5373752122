// What every solver shares: host/device qualifier, strided views of one signal.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define JAXTV_HD __host__ __device__
#else
#define JAXTV_HD
#endif

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

// Sums, and squares, of large samples overflow: a signal with a sample beyond kLarge is solved at
// kDown of its size. What that takes to zero is far below the round-off of the large sample.
constexpr double kLarge = 1e140, kDown = 0x1p-600;

// A signal at `factor` of its size.
template <class A>
struct Scaled {
  A values;
  double factor;
  template <class I>
  JAXTV_HD double operator[](I i) const {
    return double(values[i]) * factor;
  }
};
template <class A>
Scaled(A, double) -> Scaled<A>;

}  // namespace jaxtv
