// Picks the kernels of the best instruction set at run time.
#include <cstdlib>
#include <cstring>

#include "sweep.hpp"

namespace jaxtv::cpu {

namespace baseline {
extern const Isa table;
extern const Strings strings;
}  // namespace baseline
#if defined(JAXTV_X86)
namespace avx2 {
extern const Isa table;
extern const Strings strings;
}  // namespace avx2
namespace avx512 {
extern const Isa table;
extern const Strings strings;
}  // namespace avx512
#endif

namespace {

struct Choice {
  const Isa& table;
  const Strings& strings;
};

Choice choose() {
#if defined(JAXTV_X86)
  const char* forced = std::getenv("JAXTV_ISA");
  const auto allowed = [&](const char* name) {
    return forced == nullptr || std::strcmp(forced, name) == 0;
  };
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return {avx512::table, avx512::strings};
  if (allowed("avx2") && __builtin_cpu_supports("avx2")) return {avx2::table, avx2::strings};
#endif
  return {baseline::table, baseline::strings};
}

const Choice& chosen() {
  static const Choice choice = choose();
  return choice;
}

}  // namespace

const Isa& isa() { return chosen().table; }

template <>
const LaneKernels<float>& lanes<float>() {
  return isa().f32;
}
template <>
const LaneKernels<double>& lanes<double>() {
  return isa().f64;
}
template <>
const StringKernel<float>& strings<float>() {
  return chosen().strings.f32;
}
template <>
const StringKernel<double>& strings<double>() {
  return chosen().strings.f64;
}

}  // namespace jaxtv::cpu
