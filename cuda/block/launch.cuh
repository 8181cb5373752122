// Launching kernels and reaching their shared memory. Kernels go through these two, so that the
// same .cu files compile with nvcc and, for tests without a GPU, as C++ (-DJAXTV_SIMT) against
// testing/emulator/simt.hpp.
#pragma once

#include <limits>

#include "shape.hpp"

#define JAXTV_DEVICE __device__ __forceinline__

namespace jaxtv::cuda {

// Device code may use a constant where it may not call numeric_limits.
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr std::size_t kPortableShared = 48 * 1024;  // per block, on every device without asking

#if !defined(JAXTV_SIMT)
template <class T>
using Shared = T*;
#else
template <class T>
using Shared = ::simt::Pointer<T>;
#endif

// Dynamic shared memory, handed out array by array. Every thread makes its own and takes the same
// arrays in the same order. Arrays with large alignment first: nothing is padded.
class Arena {
 public:
  template <class T>
  JAXTV_DEVICE Shared<T> take(std::size_t size) {
    used_ = (used_ + alignof(T) - 1) / alignof(T) * alignof(T);
    const std::size_t at = used_;
    used_ += size * sizeof(T);
#if !defined(JAXTV_SIMT)
    extern __shared__ __align__(16) unsigned char jaxtv_shared_memory[];
    return reinterpret_cast<T*>(jaxtv_shared_memory + at);
#else
    ::simt::Machine& machine = ::simt::Machine::here();
    if (used_ > machine.shared_bytes) machine.fail("more shared memory taken than launched with");
    return {reinterpret_cast<T*>(machine.shared_base() + at), size};
#endif
  }

 private:
  std::size_t used_ = 0;
};

constexpr std::int64_t kMaxGrid = 2147483647;  // blocks along x

// Starts `grid` blocks (all along x) of `block` threads; an empty grid is no launch. More blocks
// than fit are cut off, so kernels stride: for (int64 i = blockIdx.x; i < work; i += gridDim.x).
template <class... P, class... A>
Status launch(const char* name, void (*kernel)(P...), std::int64_t grid, int block,
              std::size_t shared_bytes, cudaStream_t stream, A... args) {
  if (grid <= 0) return nullptr;
  if (grid > kMaxGrid) grid = kMaxGrid;
  if (shared_bytes > kPortableShared) {  // every time: the permission is for the current device
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
#if !defined(JAXTV_SIMT)
  (void)name;
  kernel<<<unsigned(grid), unsigned(block), shared_bytes, stream>>>(P(args)...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#else
  return ::simt::launch(name, kernel, grid, block, shared_bytes, stream, P(args)...);
#endif
}

// i / d by a multiplication, for 0 <= i < 2^31 (Granlund & Montgomery 1994).
struct Divider {
  std::uint32_t divisor = 1, magic = 1, shift = 0;
  Divider() = default;
  explicit Divider(std::int64_t d) : divisor(std::uint32_t(d)) {
    while ((std::uint64_t(1) << shift) < std::uint64_t(d)) ++shift;
    magic = std::uint32_t((((std::uint64_t(1) << shift) - d) << 32) / d + 1);
  }
  JAXTV_HD std::uint32_t div(std::uint32_t i) const {
    return (std::uint32_t((std::uint64_t(i) * magic) >> 32) + i) >> shift;
  }
};

}  // namespace jaxtv::cuda
