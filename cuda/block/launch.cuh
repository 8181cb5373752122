// Launching kernels: the one place with <<<>>>.
#pragma once

#include "block/arena.cuh"
#include "block/device.hpp"

namespace jaxtv::cuda {

// Starts `grid` blocks (all along x) of `block` threads; an empty grid is no launch. More blocks
// than kMaxGrid are cut off, so kernels stride:
//   for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x)
template <class... Parameters, class... Arguments>
Status launch(const char* name, void (*kernel)(Parameters...), std::int64_t grid, int block,
              std::size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  if (grid <= 0) return nullptr;
  if (grid > kMaxGrid) grid = kMaxGrid;
  if (shared_bytes > kPortableShared) {
    // Every time, as the permission is for the current device. Always the same: another host thread
    // that launches the kernel there must not lower it before this launch.
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(max_shared()));
    if (error != cudaSuccess) {
      cudaGetLastError();  // cleared: the next launch reports only its own
      return cudaGetErrorString(error);
    }
  }
#if !defined(JAXTV_SIMT)
  (void)name;
  kernel<<<unsigned(grid), unsigned(block), shared_bytes, stream>>>(Parameters(arguments)...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#else
  return ::simt::launch(name, kernel, grid, block, shared_bytes, stream, Parameters(arguments)...);
#endif
}

}  // namespace jaxtv::cuda
