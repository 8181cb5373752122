// The kernels that are compiled once per vector instruction set. Signals go into the lanes of
// vectors, one signal per lane. cpu/isa.hpp picks an instruction set at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pass.hpp"

namespace jaxtv::cpu {

// prox counts samples of a lane, and of a segment, in the type of the samples or in 32 bits:
// signals are shorter than this.
constexpr std::int64_t kLongestInLane = std::int64_t(1) << 22;

// Each kernel works on the signals [begin, end) of its argument, in the calling thread; prox takes
// signals_per_group(n) of them at most, by threshold decomposition if `decompose`. It leaves their
// cuts in `kept_duals`, duals_length(n, end - begin) values in a layout of its own, unless that is
// null; and starts from those it finds there if `repair` of the pass is set. A kernel owns
// `scratch` while it runs: prox_scratch_bytes(n) for prox, derivative_scratch_bytes(n) for the
// others, aligned to 64 bytes.
template <class T>
struct SimdKernels {
  int (*signals_per_group)(std::int64_t n);  // as many as fill all lanes
  std::size_t (*prox_scratch_bytes)(std::int64_t n);
  std::int64_t (*duals_length)(std::int64_t n, std::int64_t signals);
  void (*prox)(const Pass<T>& pass, std::int64_t begin, std::int64_t end, bool decompose,
               T* kept_duals, void* scratch);
  std::size_t (*derivative_scratch_bytes)(std::int64_t n);
  void (*jvp)(const SegmentJvp<T>& op, std::int64_t begin, std::int64_t end, void* scratch);
  void (*vjp)(const SegmentVjp<T>& op, std::int64_t begin, std::int64_t end, void* scratch);
  void (*dykstra_vjp)(const DykstraVjpPass<T>& op, std::int64_t begin, std::int64_t end,
                      void* scratch);
};

struct KernelTable {
  const char* name;  // of the instruction set
  SimdKernels<float> f32;
  SimdKernels<double> f64;
};

}  // namespace jaxtv::cpu
