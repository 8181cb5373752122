// Scratch memory of one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace jaxtv::cpu {

struct Delete64 {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
};
using Memory = std::unique_ptr<void, Delete64>;

inline Memory allocate(std::size_t bytes) {
  return Memory(::operator new((bytes + 4095) / 4096 * 4096, std::align_val_t(64)));
}

// A thread has one buffer for a kernel, one for a signal that several threads solve, and one for
// the operation that calls these.
enum class Use { kKernel, kSignal, kOperation };

// 64-byte aligned scratch of one thread; it grows and stays.
template <Use kUse = Use::kKernel>
void* thread_scratch(std::size_t bytes) {
  thread_local Memory buffer;
  thread_local std::size_t size = 0;
  if (size < bytes) {
    size = 0;  // also where there is not enough memory
    buffer.reset();
    buffer = allocate(bytes);
    size = bytes;
  }
  return buffer.get();
}

// Scratch for longer than a kernel. Up to kMostKept bytes it is the thread's, so that it stays in
// cache from one call to the next; more than a cache holds is freed after use.
template <Use kUse>
class LongScratch {
 public:
  explicit LongScratch(std::size_t bytes)
      : allocated_(bytes > kMostKept ? allocate(bytes) : nullptr),
        data_(allocated_ ? allocated_.get() : thread_scratch<kUse>(bytes)) {}
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  static constexpr std::size_t kMostKept = 16 << 20;
  Memory allocated_;
  void* data_;
};
// Hands out arrays of a buffer, each aligned to 64 bytes.
class Arena {
 public:
  explicit Arena(void* begin) : next_(static_cast<char*>(begin)) {}
  template <class T>
  T* take(std::size_t count) {
    return reinterpret_cast<T*>(std::exchange(next_, next_ + bytes<T>(count)));
  }
  template <class T>
  static std::size_t bytes(std::size_t count) {
    return (count * sizeof(T) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

using OperationScratch = LongScratch<Use::kOperation>;

}  // namespace jaxtv::cpu
