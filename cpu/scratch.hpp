// Scratch memory of one thread.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

namespace jaxtv::cpu {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// 64-byte aligned scratch of one thread; it grows and stays.
inline void* thread_scratch(std::size_t bytes) {
  thread_local std::unique_ptr<void, Free> buffer;
  thread_local std::size_t size = 0;
  if (size < bytes) {
    size = (bytes + 4095) / 4096 * 4096;
    buffer.reset(std::aligned_alloc(64, size));
    if (!buffer) {
      size = 0;
      throw std::bad_alloc();
    }
  }
  return buffer.get();
}

}  // namespace jaxtv::cpu
