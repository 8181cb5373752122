// The CUDA runtime, as far as nvcc's host code and launch.cuh call it. Kernels come from the PTX in
// the fat binaries that nvcc embeds (-no-compress).
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "launches.hpp"
#include "machine/machine.hpp"

namespace {

struct Dim3 {
  unsigned x, y, z;
};
using cudaError_t = int;
constexpr cudaError_t kSuccess = 0, kInvalidValue = 1, kInvalidConfiguration = 9,
                      kInvalidDeviceFunction = 98, kInvalidResourceHandle = 400,
                      kLaunchFailure = 719;
constexpr int kMaxDynamicShared = 8;    // cudaFuncAttributeMaxDynamicSharedMemorySize
constexpr int kMaxSharedPerBlock = 97;  // cudaDevAttrMaxSharedMemoryPerBlockOptin
constexpr unsigned kMaxThreads = 1024;

// What nvcc's host code registers as a library is loaded.
struct Registry {
  struct Function {
    ptx::Module* module;
    std::string name;
  };
  std::mutex mutex;
  std::map<const void*, std::unique_ptr<ptx::Module>> modules;  // by the fat binary
  std::map<const void*, Function> functions;                    // by the host's stub
  std::map<std::pair<int, const void*>, std::size_t> allowed;   // shared memory on a device
  bool refusing = false;
  int launches_before_failure = -1;  // negative: none fails
};
Registry& registry() {
  static Registry r;
  return r;
}

// Of this host thread.
struct Call {
  Dim3 grid, block;
  std::size_t shared;
  void* stream;
  cudaError_t last_error;
  std::string message;
};
Call& call() {
  static thread_local Call c{};
  return c;
}
cudaError_t failed(cudaError_t error, std::string message) {
  call().message = std::move(message);
  return call().last_error = error;
}

struct FatBinaryWrapper {
  int magic, version;
  const char* data;
  void* file;
};
struct FatBinaryHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;
};
std::string ptx_of(const void* wrapper) {
  const char* data = static_cast<const FatBinaryWrapper*>(wrapper)->data;
  FatBinaryHeader header;
  std::memcpy(&header, data, sizeof header);
  const std::string_view all(data, header.header_bytes + header.bytes);
  const std::size_t begin = all.find(".version ");
  if (begin == std::string_view::npos) throw ptx::Error("no PTX in a fat binary");
  return std::string(all.substr(begin, all.find('\0', begin) - begin));
}

const ptx::Kernel* find_kernel(const void* function) {
  const auto it = registry().functions.find(function);
  return it == registry().functions.end() ? nullptr : it->second.module->find(it->second.name);
}

// Why CUDA would refuse the launch, or "".
std::string refusal(const ptx::Kernel& kernel, const void* function, Dim3 grid, Dim3 block,
                    std::size_t shared) {
  const int device = ptx::current_device();
  if (grid.x < 1 || grid.x > 2147483647 || grid.y != 1 || grid.z != 1)
    return "bad grid of " + std::to_string(grid.x) + " blocks";
  if (block.x < 1 || block.x > kMaxThreads || block.y != 1 || block.z != 1)
    return "bad block of " + std::to_string(block.x);
  if (block.x > kernel.max_threads) return "more threads than the launch bounds allow";
  if (shared > ptx::max_shared(device)) return "too much shared memory: " + std::to_string(shared);
  if (shared > ptx::kPortableShared && registry().allowed[{device, function}] < shared)
    return "shared memory that the kernel may not have here";
  return "";
}

cudaError_t launch(const void* function, Dim3 grid, Dim3 block, void** arguments,
                   std::size_t shared, void* stream) try {
  const ptx::Kernel* kernel = nullptr;
  {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    kernel = find_kernel(function);
    if (!kernel) return failed(kInvalidDeviceFunction, "no kernel of this name in the PTX");
    if (stream != ptx::stream_of(ptx::current_device()))
      return failed(kInvalidResourceHandle, "launched on another stream than that of the call");
    if (const std::string why = refusal(*kernel, function, grid, block, shared); !why.empty())
      return failed(kInvalidConfiguration, kernel->function + ": " + why);
    if (registry().launches_before_failure >= 0 && registry().launches_before_failure-- == 0)
      return failed(kLaunchFailure, "told to fail");
    ptx::record_launch(*kernel, grid.x, block.x, shared);
  }
  const std::string wrong = ptx::launch(*kernel, grid.x, block.x, shared, arguments);
  return wrong.empty() ? kSuccess : failed(kLaunchFailure, wrong);
} catch (const std::exception& e) {
  return failed(kInvalidDeviceFunction, e.what());
}

}  // namespace

void ptx::mutate(Mutation m) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  mutation() = std::move(m);
  for (auto& [binary, module] : registry().modules) module->forget();
}

void machine::refuse_shared(bool on) { registry().refusing = on; }
void machine::fail_launch(int others) { registry().launches_before_failure = others; }
std::size_t machine::least_allowed(int device) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  std::size_t least = ptx::max_shared(0);
  for (const auto& [function, bytes] : registry().allowed)
    if (function.first == device) least = std::min(least, bytes);
  return least;
}

std::string ptx::demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (!text) return name;
  std::string s(text);
  std::free(text);
  if (s.starts_with("void ")) s.erase(0, 5);
  for (const char* space : {"(anonymous namespace)::", "jaxtv::cuda::", "jaxtv::"})
    for (std::size_t at; (at = s.find(space)) != std::string::npos;)
      s.erase(at, std::strlen(space));
  return s.substr(0, s.find('('));
}

#define PTX_API extern "C" __attribute__((visibility("default")))

PTX_API void** __cudaRegisterFatBinary(void* wrapper) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  registry().modules[wrapper] = std::make_unique<ptx::Module>(ptx_of(wrapper));
  return static_cast<void**>(wrapper);  // the handle
}
PTX_API void __cudaRegisterFatBinaryEnd(void**) {}
PTX_API void __cudaUnregisterFatBinary(void**) {}
PTX_API char __cudaInitModule(void**) { return 0; }
PTX_API void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int,
                                    void*, void*, void*, void*, int*) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  registry().functions[stub] = {registry().modules.at(handle).get(), name};
}
PTX_API unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, std::size_t shared,
                                             void* stream) {
  Call& c = call();
  c.grid = grid;
  c.block = block;
  c.shared = shared;
  c.stream = stream;
  return 0;
}
PTX_API cudaError_t __cudaPopCallConfiguration(Dim3* grid, Dim3* block, std::size_t* shared,
                                               void** stream) {
  const Call& c = call();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *stream = c.stream;
  return kSuccess;
}
// CUDA 13 launches by a handle, for which the stub stands here.
PTX_API cudaError_t __cudaGetKernel(const void** handle, const void* stub) {
  *handle = stub;
  return kSuccess;
}
PTX_API cudaError_t __cudaLaunchKernel(const void* handle, Dim3 grid, Dim3 block, void** arguments,
                                       std::size_t shared, void* stream) {
  return launch(handle, grid, block, arguments, shared, stream);
}
PTX_API cudaError_t cudaLaunchKernel(const void* stub, Dim3 grid, Dim3 block, void** arguments,
                                     std::size_t shared, void* stream) {
  return launch(stub, grid, block, arguments, shared, stream);
}
PTX_API cudaError_t cudaFuncSetAttribute(const void* stub, int attribute, int value) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const int device = ptx::current_device();
  if (registry().refusing || attribute != kMaxDynamicShared || value < 0 ||
      std::size_t(value) > ptx::max_shared(device))
    return failed(kInvalidValue, "invalid argument");
  registry().allowed[{device, stub}] = std::size_t(value);
  return kSuccess;
}
PTX_API cudaError_t cudaGetLastError() { return std::exchange(call().last_error, kSuccess); }
PTX_API const char* cudaGetErrorString(cudaError_t error) {
  return error == kSuccess ? "no error" : call().message.c_str();
}
PTX_API cudaError_t cudaGetDevice(int* device) {
  *device = ptx::current_device();
  return kSuccess;
}
PTX_API cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int device) {
  if (attribute != kMaxSharedPerBlock) return failed(kInvalidValue, "invalid argument");
  *value = int(ptx::max_shared(device));
  return kSuccess;
}
