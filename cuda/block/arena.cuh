// Shared memory of a block. Kernels reach it through Arena only, so that the same .cu files compile
// with nvcc and, for tests without a GPU, as C++ (-DJAXTV_SIMT) against testing/emulator/simt.hpp.
#pragma once

#include <cstddef>
#include <limits>

#include "shape.hpp"

#define JAXTV_DEVICE __device__ __forceinline__

namespace jaxtv::cuda {

// Device code may use a constant where it may not call numeric_limits.
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

constexpr unsigned kAllLanes = 0xffffffffu;

// A pointer into shared memory. The emulator's one checks bounds and races.
#if !defined(JAXTV_SIMT)
template <class T>
using Shared = T*;
#else
template <class T>
using Shared = ::simt::Pointer<T>;
#endif

// The same pointer, in one register: nvcc would otherwise compute its offset again in every block
// of code that uses it.
#if !defined(JAXTV_SIMT)
template <class T>
JAXTV_DEVICE T* held(T* pointer) {
  unsigned address = unsigned(__cvta_generic_to_shared(pointer));
  asm("" : "+r"(address));
  return static_cast<T*>(__cvta_shared_to_generic(address));
}
#else
template <class T>
T held(T pointer) {
  return pointer;
}
#endif

// Dynamic shared memory, handed out array by array. Every thread makes its own Arena and takes the
// same arrays in the same order. Take arrays with large alignment first: then nothing is padded.
//
//   Arena arena;
//   const Shared<double> sums = arena.take<double>(blockDim.x);  // bytes [0, 8 blockDim.x)
//   const Shared<float> values = arena.take<float>(tile_size);   // the bytes after those
class Arena {
 public:
  template <class T>
  JAXTV_DEVICE Shared<T> take(std::size_t size) {
    used_ = (used_ + alignof(T) - 1) / alignof(T) * alignof(T);
    const std::size_t begin = used_;
    used_ += size * sizeof(T);
#if !defined(JAXTV_SIMT)
    extern __shared__ __align__(16) unsigned char jaxtv_shared_memory[];
    return reinterpret_cast<T*>(jaxtv_shared_memory + begin);
#else
    ::simt::Machine& machine = ::simt::Machine::here();
    if (used_ > machine.shared_bytes) machine.fail("more shared memory taken than launched with");
    return {reinterpret_cast<T*>(machine.shared_base() + begin), size};
#endif
  }

 private:
  std::size_t used_ = 0;
};

}  // namespace jaxtv::cuda
