#include "allocations.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

#include "host.hpp"

namespace {

std::atomic<std::int64_t> countdown{-1};

void* checked(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void maybe_fail() {
  if (jaxtv::callframe::inside_handler && countdown.load() >= 0 && countdown.fetch_sub(1) == 0)
    throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) {
  maybe_fail();
  return checked(std::malloc(bytes));
}
void* operator new(std::size_t bytes, std::align_val_t align) {
  maybe_fail();
  const std::size_t a = std::size_t(align);
  return checked(std::aligned_alloc(a, (bytes + a - 1) / a * a));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

void jaxtv::fuzz::fail_allocation(std::int64_t number) { countdown = number; }
