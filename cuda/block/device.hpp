// What a block may ask for on the current device, which is that of the stream. Plain C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// Bytes of shared memory that a multiprocessor keeps for itself for each of its blocks. It has as
// many as a block may ask for and these.
constexpr std::size_t kReservedShared = 1024;

// Bytes of shared memory that a block may ask for.
inline std::size_t max_shared() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    cudaGetLastError();  // cleared: a launch reports only its own
    return kPortableShared;
  }
  return std::size_t(bytes);
}

}  // namespace jaxtv::cuda
