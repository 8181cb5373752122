// Global memory that other threads write at the same time. An access is one instruction and never a
// value that a register still holds; nothing is said about the order of accesses to different
// addresses. The emulator lets other threads go on at each of them.
#pragma once

#include "block/arena.cuh"

namespace jaxtv::cuda {

template <class T>
JAXTV_DEVICE T load_relaxed(const T* at) {
#if defined(JAXTV_SIMT)
  ::simt::Machine::here().yield();
#endif
  return *static_cast<const volatile T*>(at);
}
template <class T>
JAXTV_DEVICE void store_relaxed(T* at, T value) {
#if defined(JAXTV_SIMT)
  ::simt::Machine::here().yield();
#endif
  *static_cast<volatile T*>(at) = value;
}

}  // namespace jaxtv::cuda
