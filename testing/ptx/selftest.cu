// Kernels that are right and kernels that are wrong, to test the checks of the interpreter.
#include <cstdint>
#include <cstring>
#include <vector>

#include "block/launch.cuh"
#include "machine.hpp"

namespace {

using namespace jaxtv::cuda;

// Reverses a block's values; without the barrier it is a race.
template <bool kBarrier>
__global__ void reverse(int* out, int) {
  Arena arena;
  int* tile = arena.take<int>(blockDim.x);
  tile[threadIdx.x] = threadIdx.x;
  if (kBarrier) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}
// A second write before everybody has read.
__global__ void reuse(int* out, int) {
  Arena arena;
  int* tile = arena.take<int>(blockDim.x);
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x];
  tile[threadIdx.x] = 0;
}
// __syncwarp orders the lanes of a warp, not the warps.
template <int kDistance>
__global__ void neighbours(int* out, int) {
  Arena arena;
  int* tile = arena.take<int>(blockDim.x);
  tile[threadIdx.x] = threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ kDistance];
}
// Read by others than the writer before the barrier; a shuffle is none.
__global__ void shuffle_is_no_barrier(int* out, int) {
  Arena arena;
  int* value = arena.take<int>(1);
  if (threadIdx.x == 0) value[0] = 7;
  out[threadIdx.x] = __shfl_sync(kAllLanes, 0, 0);
  out[threadIdx.x] += value[0];
}
__global__ void uninitialised_shared(int* out, int) {
  Arena arena;
  out[threadIdx.x] = arena.take<int>(blockDim.x)[threadIdx.x];
}
__global__ void beyond_shared(int* out, int) {
  Arena arena;
  int* tile = arena.take<int>(2 * blockDim.x);
  tile[2 * threadIdx.x + 2] = out[0];
}

__global__ void beyond_global(int* out, int n) {
  for (int i = threadIdx.x; i <= n; i += blockDim.x) out[i] = i;
}
__global__ void uninitialised_global(int* out, int n) {
  if (threadIdx.x < 32) out[threadIdx.x] = out[n - 1];
}
__global__ void operand_is_written(int* out, int n) {
  out[n + threadIdx.x] = 0;  // the operand lies there
}
__global__ void misaligned(int* out, int) {
  *reinterpret_cast<long long*>(out + 1 + 2 * threadIdx.x) = 0;
}

// Each block adds to what the one before has left.
__global__ void other_blocks(int* out, int) {
  if (threadIdx.x == 0) out[blockIdx.x] = blockIdx.x == 0 ? 1 : out[blockIdx.x - 1] + 1;
}
__global__ void counter(int* out, int) { out[0] += 1; }
__global__ void atomic_counter(int* out, int) { atomicAdd(out, 1); }
// All store the same: nobody is harmed.
__global__ void flag(int* out, int) { out[0] = 1; }

// Lane 31 is not in the mask.
__global__ void mask_without_itself(int* out, int) {
  out[threadIdx.x] = __shfl_sync(0x7fffffffu, int(threadIdx.x), 0);
}
__global__ void missing_source(int* out, int) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, int(threadIdx.x), 20);
}
__global__ void missing_lanes(int* out, int) {
  if (threadIdx.x % 2 == 0)
    __syncwarp();
  else
    out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}
__global__ void barrier_never_fills(int* out, int) {
  if (threadIdx.x == 0) __shfl_sync(3u, 1, 0);
  if (threadIdx.x == 1) __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void endless(int* out, int) {
  while (*reinterpret_cast<volatile int*>(out) == 0) {
  }
}

// Union-find as it once was: `root` halves paths, so it writes labels of other threads, and `out[i]
// = root(i)` may then store what is no root any more over a root.
__device__ unsigned root(volatile unsigned* label, unsigned i) {
  for (unsigned up = label[i]; up != i; up = label[i]) {
    const unsigned next = label[up];
    if (next != up) label[i] = next;
    i = next;
  }
  return i;
}
__global__ void flatten_halving(int* out, int n) {
  auto* label = reinterpret_cast<volatile unsigned*>(out);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < unsigned(n)) out[i] = int(root(label, i));
}
__global__ void flatten(int* out, int n) {
  auto* label = reinterpret_cast<volatile unsigned*>(out);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= unsigned(n)) return;
  unsigned r = label[i];
  for (unsigned up = label[r]; up != r; up = label[r]) r = up;
  label[i] = r;
}

struct Case {
  const char* name;
  void (*kernel)(int*, int);
};
const Case cases[] = {
    {"barrier", reverse<true>},
    {"no barrier", reverse<false>},
    {"reuse", reuse},
    {"within a warp", neighbours<1>},
    {"across warps", neighbours<32>},
    {"shuffle is no barrier", shuffle_is_no_barrier},
    {"uninitialised shared", uninitialised_shared},
    {"beyond shared", beyond_shared},
    {"beyond global", beyond_global},
    {"uninitialised global", uninitialised_global},
    {"operand is written", operand_is_written},
    {"misaligned", misaligned},
    {"other blocks", other_blocks},
    {"counter", counter},
    {"atomic counter", atomic_counter},
    {"flag", flag},
    {"mask without itself", mask_without_itself},
    {"missing source", missing_source},
    {"missing lanes", missing_lanes},
    {"barrier never fills", barrier_never_fills},
    {"endless", endless},
    {"flatten, halving", flatten_halving},
    {"flatten", flatten},
};

}  // namespace

// The message of a case, "" where it runs. `out` has n elements, and n more that are read only.
extern "C" __attribute__((visibility("default"))) const char* selftest(const char* name, int* out,
                                                                       int n, bool filled,
                                                                       int blocks, int threads,
                                                                       int shared) {
  machine::allow_memory(out, sizeof(int) * std::size_t(n), true, !filled);
  machine::allow_memory(out + n, sizeof(int) * std::size_t(n), false, false);
  Status bad = "no such case";
  for (const Case& c : cases)
    if (std::strcmp(c.name, name) == 0)
      bad = launch(c.name, c.kernel, blocks, threads, std::size_t(shared),
                   static_cast<cudaStream_t>(machine::stream_on(0)), out, n);
  machine::forget_memory();
  return bad ? bad : "";
}
// The same launch on the stream of another device, or with shared memory that was not asked for.
extern "C" __attribute__((visibility("default"))) const char* refused(int device, int stream,
                                                                      int shared) {
  auto* other = static_cast<cudaStream_t>(machine::stream_on(stream));
  machine::stream_on(device);
  int out[64];
  machine::allow_memory(out, sizeof out, true, true);
  const Status bad = launch("reverse", reverse<true>, 1, 64, std::size_t(shared), other,
                            static_cast<int*>(out), 0);
  machine::forget_memory();
  machine::stream_on(0);
  return bad ? bad : "";
}
