#include "isa.hpp"

#include <cstdlib>
#include <cstring>

namespace jaxtv::cpu {

#define JAXTV_DECLARE_TABLES(isa)            \
  namespace isa {                            \
  extern const KernelTable kernels;          \
  extern const TautStringTable taut_strings; \
  extern const ProjectionTable projections;  \
  }
JAXTV_DECLARE_TABLES(baseline)
#if defined(JAXTV_X86)
JAXTV_DECLARE_TABLES(avx2)
JAXTV_DECLARE_TABLES(avx512)
#endif

namespace {

struct Tables {
  const KernelTable& kernels;
  const TautStringTable& taut_strings;
  const ProjectionTable& projections;
};

Tables choose() {
#if defined(JAXTV_X86)
  const char* forced = std::getenv("JAXTV_ISA");
  const auto allowed = [&](const char* name) {
    return forced == nullptr || std::strcmp(forced, name) == 0;
  };
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return {avx512::kernels, avx512::taut_strings, avx512::projections};
  if (allowed("avx2") && __builtin_cpu_supports("avx2"))
    return {avx2::kernels, avx2::taut_strings, avx2::projections};
#endif
  return {baseline::kernels, baseline::taut_strings, baseline::projections};
}

const Tables& chosen() {
  static const Tables tables = choose();
  return tables;
}

}  // namespace

const char* isa_name() { return chosen().kernels.name; }

template <>
const SimdKernels<float>& simd_kernels<float>() {
  return chosen().kernels.f32;
}
template <>
const SimdKernels<double>& simd_kernels<double>() {
  return chosen().kernels.f64;
}
template <>
const TautStringKernel<float>& taut_string_kernel<float>() {
  return chosen().taut_strings.f32;
}
template <>
const TautStringKernel<double>& taut_string_kernel<double>() {
  return chosen().taut_strings.f64;
}
template <>
const ProjectionKernel<float>& projection_kernel<float>() {
  return chosen().projections.f32;
}
template <>
const ProjectionKernel<double>& projection_kernel<double>() {
  return chosen().projections.f64;
}

}  // namespace jaxtv::cpu
