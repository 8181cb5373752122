// What host code and kernels share: the stream, a status, the shape of a problem. Includable by any
// C++ compiler; only .cu files include launch.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

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

// Sample k of the signal (b, o, i) is at (((b * outer) + o) * n + k) * inner + i.
struct Shape {
  std::int64_t batch, outer, n, inner;
  JAXTV_HD std::int64_t signals() const { return batch * outer * inner; }
};

}  // namespace jaxtv::cuda
