// What host code and kernels share: the stream, a status, the shape of a problem. Includable by any
// C++ compiler; only .cu files include block/launch.cuh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(JAXTV_SIMT)
#include "simt.hpp"
#else
#include <cuda_runtime_api.h>
#endif

#include "jaxtv/common.hpp"
#include "jaxtv/solver.hpp"

namespace jaxtv::cuda {

// Null, or what went wrong.
using Status = const char*;

// Samples in memory are float, double or one of these (half.cuh). Halves are computed in float, and
// so their weights, states and sums are float.
struct BFloat16;
struct Float16;
template <class D>
constexpr bool kHalf = std::is_same_v<D, BFloat16> || std::is_same_v<D, Float16>;
template <class D>
using Compute = std::conditional_t<kHalf<D>, float, D>;

// Sample k of the signal (b, o, i) is at (((b * outer) + o) * n + k) * inner + i.
struct Shape {
  std::int64_t batch, outer, n, inner;
  JAXTV_HD std::int64_t signals() const { return batch * outer * inner; }
};

}  // namespace jaxtv::cuda
