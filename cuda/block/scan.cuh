// Scans and sums over the threads that share a signal.
//
// What is scanned is a struct V with
//   V{}                                        the neutral value
//   V each(f) const                            the struct with f applied to every member
//   V join(const V& far, const V& near)        found by its argument's namespace
// In the direction of the scan, `near` comes after `far`. join need not commute. With kReverse the
// direction is from the last thread to the first.
//
// Example: the sum of `mine` over all threads before this one, and over all threads.
//   Sum total;
//   const Sum before = ThreadGroup<4>::scan<false>(Arena{}, mine, total);
#pragma once

#include "block/arena.cuh"

namespace jaxtv::cuda {

// The threads that work on one signal. kWarps = 1: each warp of the block has its own signal.
// Otherwise the whole block of kWarps warps has one signal.
template <int kWarps>
struct ThreadGroup {
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr std::size_t kLargestScanned = 40;  // bytes of a V
  // Bytes of shared memory that a scan takes from its arena.
  static constexpr std::size_t kScratchBytes = kWarps == 1 ? 0 : kWarps * kLargestScanned;

  // Number of this thread in its group.
  JAXTV_DEVICE static int thread() {
    return kWarps == 1 ? int(threadIdx.x) % kWarp : int(threadIdx.x);
  }
  JAXTV_DEVICE static void sync() {
    if constexpr (kWarps == 1)
      __syncwarp();
    else
      __syncthreads();
  }
  JAXTV_DEVICE static bool any(bool v) {
    if constexpr (kWarps == 1)
      return __any_sync(kAllLanes, v);
    else
      return __syncthreads_or(v);
  }

  // The join of the values of all threads before this one. `total` gets the join of all values.
  template <bool kReverse, class V>
  JAXTV_DEVICE static V scan(Arena arena, V mine, V& total) {
    static_assert(sizeof(V) <= kLargestScanned);
    const int lane = int(threadIdx.x) % kWarp, rank = kReverse ? kWarp - 1 - lane : lane;
    const auto fetch = [&](unsigned distance) {
      return mine.each([&](auto v) {
        return kReverse ? __shfl_down_sync(kAllLanes, v, distance)
                        : __shfl_up_sync(kAllLanes, v, distance);
      });
    };
#pragma unroll 1
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const V other = fetch(distance);
      if (rank >= distance) mine = join(other, mine);
    }
    V before = fetch(1);
    if (rank == 0) before = V{};
    total = mine.each([&](auto v) { return __shfl_sync(kAllLanes, v, kReverse ? 0 : kWarp - 1); });
    if constexpr (kWarps > 1) {
      const Shared<V> totals = arena.take<V>(kWarps);
      const int warp = int(threadIdx.x) / kWarp;
      const int warp_rank = kReverse ? kWarps - 1 - warp : warp;
      if (lane == 0) totals[warp_rank] = total;
      __syncthreads();
      V sum{};
      for (int i = 0; i < kWarps; ++i) {
        if (i == warp_rank) before = join(sum, before);
        sum = join(sum, V(totals[i]));
      }
      total = sum;
      __syncthreads();
    }
    return before;
  }
  template <bool kReverse, class V>
  JAXTV_DEVICE static V scan(Arena arena, V mine) {
    V total;
    return scan<kReverse>(arena, mine, total);
  }
  // The join of the values of all threads.
  template <bool kReverse, class V>
  JAXTV_DEVICE static V total(const V& mine) {
    V total;
    scan<kReverse>(Arena{}, mine, total);
    return total;
  }
};

// The same for V without each(), in shared memory: `values` has one element per thread of the
// block. It joins the last 2, 4, 8, ... threads, where ThreadGroup::scan joins warp after warp:
// sums over more than a warp round differently. The derivatives of signals with more than 32 chunks
// have the bits of this one. `mine` becomes the join of the values up to and with this thread's.
template <bool kReverse, class V>
JAXTV_DEVICE V scan_by_doubling(Shared<V> values, V& mine) {
  const int thread = threadIdx.x, threads = blockDim.x;
  const auto fetch = [&](int distance) -> V {
    const int from = kReverse ? thread + distance : thread - distance;
    if (from < 0 || from >= threads) return {};
    return values[from];
  };
  for (int distance = 1; distance < threads; distance *= 2) {
    values[thread] = mine;
    __syncthreads();
    const V other = fetch(distance);
    __syncthreads();
    mine = join(other, mine);
  }
  values[thread] = mine;
  __syncthreads();
  const V before = fetch(1);
  __syncthreads();
  return before;
}

}  // namespace jaxtv::cuda
