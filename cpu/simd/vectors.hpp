// Vectors of the instruction set that a source is compiled for: JAXTV_ISA names it,
// JAXTV_VECTOR_BYTES is its register width. GCC/Clang vector extensions, no intrinsics.
//
// What the files of this folder define has internal linkage or is inlined always: the linker must
// not serve one instruction set with what another one's unit emitted.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "jaxtv/common.hpp"

#define JAXTV_UNROLL _Pragma("GCC unroll 8")
#if defined(__clang__)  // the iterations of the loop do not depend on each other
#define JAXTV_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define JAXTV_INDEPENDENT _Pragma("GCC ivdep")
#endif

#define JAXTV_LAMBDA __attribute__((always_inline))  // after the parameters of a lambda

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kBytes = JAXTV_VECTOR_BYTES;
typedef double Double __attribute__((vector_size(kBytes)));
typedef std::int64_t DoubleMask __attribute__((vector_size(kBytes)));
constexpr int kDoubleLanes = kBytes / 8;

// V: a full register of T. M: the masks that its comparisons give, 0 or -1 in each lane. Half: as
// many elements of T as a Double has lanes; float is widened from it to compute in double.
template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef std::int32_t M __attribute__((vector_size(kBytes)));
  typedef float Half __attribute__((vector_size(kBytes / 2)));
};
template <>
struct Vectors<double> {
  typedef Double V;
  typedef DoubleMask M;
  typedef Double Half;
};

template <class T>
constexpr int kLanes = kBytes / sizeof(T);
// The distance of 1 to the next larger number.
template <class T>
constexpr T kUnit = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);

// ---- conversions ----

// The kDoubleLanes elements of v as a W of wider elements. Spelled out because GCC 12 splits
// __builtin_convertvector to wider elements into halves.
template <class W, class V, std::size_t... I>
JAXTV_INLINE W widen(V v, std::index_sequence<I...>) {
  return W{v[I]...};
}
template <class W, class V>
JAXTV_INLINE W widen(V v) {
  return widen<W>(v, std::make_index_sequence<kDoubleLanes>());
}

template <class T>
JAXTV_INLINE auto load_vector(const T* p) {
  typename Vectors<T>::V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
JAXTV_INLINE void store_vector(T* p, typename Vectors<T>::V v) {
  std::memcpy(p, &v, sizeof v);
}
// load_half and store_half move a Half; load_wide converts it to Double, narrow converts it back.
template <class T>
JAXTV_INLINE auto load_half(const T* p) {
  typename Vectors<T>::Half v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T, class Half>
JAXTV_INLINE void store_half(T* p, Half v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
JAXTV_INLINE Double load_wide(const T* p) {
  return widen<Double>(load_half(p));
}
template <class T>
JAXTV_INLINE auto narrow(Double v) {
  return __builtin_convertvector(v, typename Vectors<T>::Half);
}

// ---- arithmetic and masks ----

template <class V>
inline V vmin(V a, V b) {
  return a < b ? a : b;
}
template <class V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}
// Here and in times_sign, -V{} is -0.0: the sign bit of each lane.
template <class V>
inline V vabs(V a) {
  using M = decltype(a == a);
  return (V)((M)a & ~(M)-V{});
}
// Whether a mask is set in any lane.
template <class M>
inline bool any(M mask) {
  std::int64_t bits[kBytes / 8], all = 0;
  std::memcpy(bits, &mask, kBytes);
  for (int i = 0; i < kBytes / 8; ++i) all |= bits[i];
  return all != 0;
}
template <class V>
inline auto is_nan(V v) {
  return v != v;
}
// v, or -v where `sign` is negative.
template <class V>
inline V times_sign(V v, V sign) {
  using M = decltype(v == v);
  return (V)((M)v ^ ((M)sign & (M)-V{}));
}
// mask ? v : 0. This folder selects by keep(mask, v) or by `mask < 0 ? a : b`, not by `mask ? a :
// b`: a compiler that does not see the comparison that made the mask compares it with 0 once more.
template <class V, class M>
inline V keep(M mask, V v) {
  return (V)((M)v & mask);
}

// ---- shuffles ----

// The elements with the indices I of join(a, b).
template <class V, std::size_t... I>
JAXTV_INLINE auto pick(V a, V b, std::index_sequence<I...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, I...);
#else
  typedef decltype(a[0] + a[0]) T;
  typedef T W __attribute__((vector_size(sizeof...(I) * sizeof(T))));
  constexpr std::size_t n = sizeof(V) / sizeof(T);
  return W{(I < n ? a[I % n] : b[I % n])...};
#endif
}
// The elements of a, then those of b.
template <class V>
JAXTV_INLINE auto join(V a, V b) {
  return pick(a, b, std::make_index_sequence<2 * sizeof(V) / sizeof(a[0])>());
}
// The low byte of each element of v.
template <class V, std::size_t... I>
JAXTV_INLINE auto low_bytes(V v, std::index_sequence<I...>) {
  typedef std::uint8_t Bytes __attribute__((vector_size(kBytes)));
  return pick((Bytes)v, (Bytes)v, std::index_sequence<I * sizeof(v[0])...>());
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
