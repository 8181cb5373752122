// The CUDA handlers as a plain shared library, for ctypes (tests/simt_platform.py).
#include <cstddef>

#include "prox1d.hpp"
#include "targets.hpp"

namespace {
struct Entry {
  const char* name;
  void* handler;
};
#define JAXTV_ENTRY(name) {#name, reinterpret_cast<void*>(&name)},
const Entry entries[] = {JAXTV_HANDLERS(JAXTV_ENTRY)};
}  // namespace

extern "C" __attribute__((visibility("default"))) const char* jaxtv_simt_name(std::size_t i) {
  return i < sizeof entries / sizeof *entries ? entries[i].name : nullptr;
}
extern "C" __attribute__((visibility("default"))) void* jaxtv_simt_handler(std::size_t i) {
  return entries[i].handler;
}

// Scratch of the 1D prox, for sizes that no test can run.
extern "C" __attribute__((visibility("default"))) std::int64_t jaxtv_simt_workspace(
    int method, std::int64_t signals, std::int64_t n) {
  return jaxtv::cuda::prox_workspace<float>({1, signals, n, 1}, jaxtv::Method(method));
}
