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

constexpr int kWarp = 32;
constexpr std::int64_t kMaxGrid = 2147483647;  // blocks along x
// Bytes of shared memory per block: on every device without asking; when asked for, on every device
// that the kernels are built for (the least is that of compute capability 7.5).
constexpr std::size_t kPortableShared = 48 * 1024, kLeastMaxShared = 64 * 1024;

// Null, or what went wrong.
using Status = const char*;

// A template argument Sample is the type of the samples in memory: float, double or one of these
// (half.cuh). Half types are computed in float, and their weights, states and sums are float; that
// type is T = Compute<Sample>.
struct BFloat16;
struct Float16;
template <class Sample>
constexpr bool kHalf = std::is_same_v<Sample, BFloat16> || std::is_same_v<Sample, Float16>;
template <class Sample>
using Compute = std::conditional_t<kHalf<Sample>, float, Sample>;

// The types of samples that kernels are built for.
#if defined(JAXTV_NO_HALF_TYPES)
#define JAXTV_FOR_EACH_DATA_TYPE(X) X(float) X(double)
#else
#define JAXTV_FOR_EACH_DATA_TYPE(X) X(float) X(double) X(BFloat16) X(Float16)
#endif

// Sample k of the signal (b, o, i) is at (((b * outer) + o) * n + k) * inner + i.
struct Shape {
  std::int64_t batch, outer, n, inner;
  JAXTV_HD constexpr std::int64_t signals() const { return batch * outer * inner; }
};

}  // namespace jaxtv::cuda
