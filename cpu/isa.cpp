// Picks the kernels of the best instruction set at run time.
#include <cstdlib>
#include <cstring>

#include "sweep.hpp"

namespace jaxtv::cpu {

namespace baseline {
extern const Isa table;
}
#if defined(JAXTV_X86)
namespace avx2 {
extern const Isa table;
}
namespace avx512 {
extern const Isa table;
}
#endif

namespace {

const Isa& choose() {
#if defined(JAXTV_X86)
  const char* forced = std::getenv("JAXTV_ISA");
  const auto allowed = [&](const char* name) {
    return forced == nullptr || std::strcmp(forced, name) == 0;
  };
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return avx512::table;
  if (allowed("avx2") && __builtin_cpu_supports("avx2")) return avx2::table;
#endif
  return baseline::table;
}

}  // namespace

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

template <>
const LaneKernels<float>& lanes<float>() {
  return isa().f32;
}
template <>
const LaneKernels<double>& lanes<double>() {
  return isa().f64;
}

}  // namespace jaxtv::cpu
