// Scratch memory of one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace jaxtv::cpu {

struct Delete64 {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
};

// 64-byte aligned scratch of one thread; it grows and stays.
inline void* thread_scratch(std::size_t bytes) {
  thread_local std::unique_ptr<void, Delete64> buffer;
  thread_local std::size_t size = 0;
  if (size < bytes) {
    size = 0;  // also where there is not enough memory
    buffer.reset();
    const std::size_t whole = (bytes + 4095) / 4096 * 4096;
    buffer.reset(::operator new(whole, std::align_val_t(64)));
    size = whole;
  }
  return buffer.get();
}

}  // namespace jaxtv::cpu
