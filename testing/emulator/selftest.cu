// Kernels that are right and kernels that are wrong, to test the checks of simt.hpp itself.
#include <cstring>
#include <type_traits>
#include <vector>

#include "block/divider.hpp"
#include "block/launch.cuh"
#include "jaxtv/certificate.hpp"
#include "jaxtv/newton.hpp"
#include "prox1d/thread_windows.cuh"

namespace {

using namespace jaxtv::cuda;

// Reverses a block's values; without the barrier it is a race.
template <bool kBarrier>
__global__ void reverse(int* out) {
  Arena arena;
  const Shared<int> tile = arena.take<int>(blockDim.x);
  const int t = threadIdx.x;
  tile[t] = 0;
  __syncthreads();
  tile[t] = t;
  if (kBarrier) __syncthreads();
  out[blockIdx.x * blockDim.x + t] = tile[blockDim.x - 1 - t];
}

// A second write before everybody has read.
__global__ void reuse(int* out) {
  Arena arena;
  const Shared<int> tile = arena.take<int>(blockDim.x);
  const int t = threadIdx.x;
  tile[t] = t;
  __syncthreads();
  out[t] = tile[(t + 1) % blockDim.x];
  tile[t] = 2 * t;
}

// __syncwarp orders the lanes of a warp, not the warps.
template <int kDistance>
__global__ void neighbours(int* out) {
  Arena arena;
  const Shared<int> tile = arena.take<int>(blockDim.x);
  const int t = threadIdx.x;
  tile[t] = 0;
  __syncthreads();
  tile[t] = t;
  __syncwarp();
  out[t] = tile[t ^ kDistance];
}

// Read by others than the writer before the barrier; a shuffle is none.
template <bool kShuffle>
__global__ void publish(int* out) {
  Arena arena;
  const Shared<int> value = arena.take<int>(1);
  if (threadIdx.x == 0) value[0] = 7;
  if (kShuffle) __shfl_sync(kAllLanes, 0, 0);
  out[threadIdx.x] = value[0];
}
// Written after the writer's own warp has read, but other warps have too.
__global__ void overwrite(int* out) {
  Arena arena;
  const Shared<int> value = arena.take<int>(1);
  if (threadIdx.x == 0) value[0] = 7;
  __syncthreads();
  out[threadIdx.x] = value[0];
  __syncwarp();
  if (threadIdx.x + 1 == blockDim.x) value[0] = 8;
}

__global__ void out_of_bounds(int*) {
  Arena arena;
  const Shared<int> tile = arena.take<int>(blockDim.x);
  arena.take<int>(blockDim.x);  // the byte after the end is there
  tile[threadIdx.x + 1] = 0;
}
__global__ void uninitialised(int* out) {
  Arena arena;
  out[threadIdx.x] = arena.take<int>(blockDim.x)[threadIdx.x];
}
__global__ void too_much(int*) {
  Arena arena;
  arena.take<int>(2 * blockDim.x + 1);
}
__global__ void same_bytes(int*) {
  Arena arena;
  const Shared<std::uint8_t> tile = arena.take<std::uint8_t>(4);
  tile[threadIdx.x / 2] = 1;
}
__global__ void divergent(int* out) {
  if (threadIdx.x % 2 == 0)
    __syncwarp();
  else
    out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}

// Every primitive of a warp, against what it must give.
__global__ void primitives(int* out) {
  const int t = threadIdx.x, lane = t % 32;
  bool ok = __shfl_sync(kAllLanes, lane, 5) == 5;
  ok &= __shfl_sync(kAllLanes, lane, 3, 8) == lane / 8 * 8 + 3;
  ok &= __shfl_up_sync(kAllLanes, lane, 2) == (lane < 2 ? lane : lane - 2);
  ok &= __shfl_down_sync(kAllLanes, double(lane), 4, 16) == (lane % 16 < 12 ? lane + 4 : lane);
  ok &= __shfl_xor_sync(kAllLanes, lane, 7) == (lane ^ 7);
  ok &= __ballot_sync(kAllLanes, lane % 3 == 0) == 0x49249249u;
  ok &= __any_sync(kAllLanes, lane == 9) && !__all_sync(kAllLanes, lane == 9);
  ok &= __reduce_add_sync(kAllLanes, unsigned(lane)) == 496u;
  ok &= __reduce_max_sync(kAllLanes, lane - 40) == -9;
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  ok &= __ballot_sync(half, 1) == half;
  ok &= __popc(0xf0u) == 4 && __ffs(8) == 4 && __clz(1) == 31 && __brev(1u) == 0x80000000u;
  ok &= __syncthreads_count(lane == 0) == int(blockDim.x) / 32;
  ok &= __syncthreads_or(t == 40) && !__syncthreads_and(t == 40);
  out[t] = ok;
}

// cuda/prox1d/thread_windows.cuh on a signal, one window after the other; *sure: whether all are
// certified.
template <class W>
JAXTV_DEVICE void solve_windows(int n, Shared<float> x, W w, Shared<signed char> sign,
                                Shared<float> y, Shared<WindowCuts> found, int* sure) {
  const int windows = (n + kWindow - 1) / kWindow;
  float last = x[n - 1];
  if constexpr (std::is_same_v<W, float>) last = raise_fence(n, 1, x, w);
  *sure = 1;
  for (int i = 0; i < windows; ++i) {
    WindowCuts own;
    *sure &= find_window(ThreadWindow(n, i), x, w, sign, own);
    found[i] = own;
  }
  x[n - 1] = last;
  const auto segments = [&](int i) { return WindowSegments(ThreadWindow(n, i), found); };
  for (int i = 0; i < windows; ++i) *sure &= segments(i).known();
  for (int i = 0; i < windows && *sure; ++i)
    *sure &= certify_window(ThreadWindow(n, i), segments(i), x, w, sign, y);
  for (int i = 0; i < windows && *sure; ++i)
    write_window(ThreadWindow(n, i), x, sign, y, segments(i).start);
}
__global__ void windows(int n, int edges, float* samples, const float* weights, int* sure) {
  Arena arena;
  const Shared<float> x = arena.take<float>(n + 1), y = arena.take<float>(n),
                      w = arena.take<float>(edges);
  const Shared<WindowCuts> found = arena.take<WindowCuts>(n / kWindow + 1);
  const Shared<signed char> sign = arena.take<signed char>(n);
  for (int k = 0; k < n; ++k) {
    x[k] = samples[k];
    sign[k] = 0;
  }
  for (int e = 0; e < edges; ++e) w[e] = weights[e];
  if (edges == 1)
    solve_windows(n, x, *weights, sign, y, found, sure);
  else
    solve_windows(n, x, w, sign, y, found, sure);
  for (int k = 0; k < n && *sure; ++k) samples[k] = x[k];
}

struct Case {
  const char* name;
  void (*kernel)(int*);
  int block;
  std::int64_t grid;
  cudaStream_t stream = simt::kStream;
};
const Case cases[] = {
    {"barrier", reverse<true>, 64, 70000},
    {"no barrier", reverse<false>, 64, 1},
    {"reuse", reuse, 64, 1},
    {"warp", neighbours<1>, 64, 1},
    {"across warps", neighbours<32>, 64, 1},
    {"publish", publish<false>, 64, 1},
    {"shuffle", publish<true>, 32, 1},
    {"overwrite", overwrite, 64, 1},
    {"out of bounds", out_of_bounds, 32, 1},
    {"uninitialised", uninitialised, 32, 2},
    {"too much", too_much, 32, 1},
    {"same bytes", same_bytes, 8, 1},
    {"divergent", divergent, 32, 1},
    {"primitives", primitives, 96, 1},
    {"block too large", reverse<true>, 2048, 1},
    {"other stream", reverse<true>, 64, 1, nullptr},
};

}  // namespace

// The message of a case, "" where it runs; the sum of what it wrote is left in *sum.
extern "C" __attribute__((visibility("default"))) const char* selftest(const char* name,
                                                                       std::int64_t* sum) {
  for (const Case& c : cases) {
    if (std::strcmp(c.name, name) != 0) continue;
    std::vector<int> out(c.grid * c.block);
    const Status bad =
        launch(c.name, c.kernel, c.grid, c.block, c.block * sizeof(int) * 2, c.stream, out.data());
    *sum = 0;
    for (int v : out) *sum += v;
    return bad ? bad : "";
  }
  return "no such case";
}

// A launch on the stream of `stream` and on `device`, with shared memory that was allowed on
// `asked`.
extern "C" __attribute__((visibility("default"))) const char* on_device(int device, int stream,
                                                                        int asked, int bytes) {
  simt::allowed().bytes.clear();
  simt::current_device() = asked;
  int out[32];
  Status bad = launch("reverse", reverse<true>, 1, 32, std::size_t(bytes), simt::stream_of(asked),
                      static_cast<int*>(out));
  simt::current_device() = device;
  if (!bad)
    bad = simt::launch("reverse", reverse<true>, 1, 32, std::size_t(bytes), simt::stream_of(stream),
                       static_cast<int*>(out));
  simt::current_device() = 0;
  return bad ? bad : "";
}

// The step that the line search of projected Newton takes where f(step) = curvature step^2 - step.
extern "C" __attribute__((visibility("default"))) double backtracked(double curvature) {
  return jaxtv::newton_detail::backtrack([&](double step) {
    return jaxtv::newton_detail::Trial{(curvature * step - 1) * step, -step};
  });
}

// i / d for many i and d.
extern "C" __attribute__((visibility("default"))) int divider_errors() {
  int errors = 0;
  for (std::int64_t d : {1, 2, 3, 5, 7, 56, 64, 1000, 65537, 1 << 30, 2147483647})
    for (std::int64_t i = 0; i < 2147483648; i += i < 2000 ? 1 : i / 7)
      errors +=
          Divider(d).div(std::uint32_t(i)) != i / d || Divider(d).div(2147483647) != 2147483647 / d;
  return errors;
}

// The certified float32 solution (jaxtv/certificate.hpp) of one signal in place; 0 where it is
// none.
extern "C" __attribute__((visibility("default"))) int certified(float* x, const float* w, int n,
                                                                int per_edge) {
  std::vector<signed char> sign(n + 1);
  std::vector<float> fenced(x, x + n);
  fenced.push_back(__builtin_huge_valf());
  if (!per_edge) fenced[n - 1] -= *w;
  const auto solve = [&](auto edges, auto weights) {
    constexpr bool kPerEdge = decltype(edges)::value;
    return jaxtv::taut_string_float<3, kPerEdge, !kPerEdge>(n, n, 1, fenced.data(), weights,
                                                            sign.data(), 8 * n) &&
           jaxtv::certified_values<3, kPerEdge, true>(n, 1, x, weights, sign.data(), x);
  };
  if (!(per_edge ? solve(std::true_type{}, w) : solve(std::false_type{}, *w))) return 0;
  for (int k = 1; k < n; ++k)
    if (sign[k - 1] == 0) x[k] = x[k - 1];
  return 1;
}

// The same by windows, of many signals; sure[i]: whether signal i is certified.
extern "C" __attribute__((visibility("default"))) const char* certified_windows(
    float* x, const float* w, int signals, int n, int edges, int* sure) {
  for (int i = 0; i < signals; ++i)
    if (Status bad = launch("windows", windows, 1, 1, n * 9 + 4 + edges * 4 + (n / kWindow + 1) * 8,
                            simt::kStream, n, edges, x + i * n, w + i * edges, sure + i))
      return bad;
  return "";
}
