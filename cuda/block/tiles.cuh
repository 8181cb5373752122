// The tiles of a tiling on the device: which one a block has, and how its samples come from memory
// and go back (tiling.hpp says how an array is divided).
#pragma once

#include "block/launch.cuh"
#include "block/tiling.hpp"

namespace jaxtv::cuda {

// One tile of the grid, cut off where the array ends.
struct Tile {
  std::int64_t outer;       // first outer index, counted through all batch elements
  std::int64_t batch;       // batch element; a tile has samples of one only
  std::int64_t inner, row;  // first inner index, first sample
  std::int64_t chunk;       // index of the tile along its signals
  int group, across, rows;  // as in Tiling, less what would lie outside the array

  JAXTV_DEVICE Tile(const Tiling& tiling, std::uint32_t index) {
    std::uint32_t rest = tiling.by_columns.div(index);
    inner = std::int64_t(index - rest * tiling.by_columns.divisor) * tiling.across;
    std::uint32_t next = tiling.by_chunks.div(rest);
    chunk = rest - next * tiling.by_chunks.divisor;
    row = chunk * tiling.rows;
    batch = tiling.by_groups.div(next);
    const std::int64_t in_batch =
        std::int64_t(next - batch * tiling.by_groups.divisor) * tiling.group;
    outer = batch * tiling.shape.outer + in_batch;
    group = int(min_of<std::int64_t>(tiling.group, tiling.shape.outer - in_batch));
    across = int(min_of<std::int64_t>(tiling.across, tiling.shape.inner - inner));
    rows = int(min_of<std::int64_t>(tiling.rows, tiling.shape.n - row));
  }

  // Index in the array of the signal of a lane; the lane lies inside the array.
  JAXTV_DEVICE std::int64_t signal(const Tiling& tiling, int lane) const {
    const int g = int(tiling.by_across.div(lane));
    return (outer + g) * tiling.shape.inner + inner + (lane - g * tiling.across);
  }
  // From the first sample of lane 0 to the first sample of `lane` in memory, for whole signals.
  JAXTV_DEVICE std::int64_t offset(const Tiling& tiling, int lane) const {
    const int g = int(tiling.by_across.div(lane));
    return g * tiling.shape.n * tiling.shape.inner + (lane - g * tiling.across);
  }
  JAXTV_DEVICE bool inside(const Tiling& tiling, int lane) const {
    const int g = int(tiling.by_across.div(lane));
    return g < group && lane - g * tiling.across < across;
  }
};

// Calls f(row, lane, outer, inner) for the samples of the tile, by all threads of the block.
// Neighbouring threads get neighbours in memory.
template <class F>
JAXTV_DEVICE void for_samples(const Tiling& tiling, const Tile& tile, F f) {
  const std::uint32_t count = std::uint32_t(tile.group) * tiling.rows * tiling.across;
  for (std::uint32_t m = threadIdx.x; m < count; m += blockDim.x) {
    const std::uint32_t q = tiling.by_across.div(m), g = tiling.by_rows.div(q);
    const int i = int(m - q * tiling.across), k = int(q - g * tiling.rows);
    if (i < tile.across && k < tile.rows)
      f(k, int(g) * tiling.across + i, tile.outer + g, tile.inner + i);
  }
}

// put(index, get(index)) for index = position(0), position(step), ... below position(count). A
// batch of loads is in flight before the first value is used.
template <class Position, class Get, class Put>
JAXTV_DEVICE void move_batched(int count, int step, Position position, Get get, Put put) {
  constexpr int kBatch = tuning::kLoadsInFlight;
  int m = 0;
  for (; m + (kBatch - 1) * step < count; m += kBatch * step) {
    decltype(get(position(0))) values[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) values[i] = get(position(m + i * step));
#pragma unroll
    for (int i = 0; i < kBatch; ++i) put(position(m + i * step), values[i]);
  }
#pragma unroll 1
  for (; m < count; m += step) put(position(m), get(position(m)));
}

// put(m, get(m)) for 0 <= m < count by all threads of the block. A warp takes kLoadsInFlight * 32
// neighbours at a time, and each of its loads is coalesced.
template <class Get, class Put>
JAXTV_DEVICE void move_contiguous(int count, Get get, Put put) {
  constexpr int kBatch = tuning::kLoadsInFlight;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
#pragma unroll 1  // few iterations; copies of it only fill the instruction cache
  for (int m = warp * kBatch * kWarp + lane; m < count; m += warps * kBatch * kWarp) {
    if (m + (kBatch - 1) * kWarp < count) {
      decltype(get(m)) values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) values[i] = get(m + i * kWarp);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) put(m + i * kWarp, values[i]);
    } else {
#pragma unroll 1
      for (int p = m; p < count; p += kWarp) put(p, get(p));
    }
  }
}

// A sample of a tile of whole signals.
struct TileSample {
  int row, element;  // row of the tile; index in an array of the tile in shared memory
  // In memory, from the tile's first sample to this one, and from its first edge to the edge after
  // this sample.
  std::int64_t offset, edge;
};

// put(sample, get(sample)) for the samples of a tile of whole signals (chunks == 1), where the
// block has a thread per lane. The threads share the work in the way that takes fewest
// instructions: each thread walks along its signal; or, on the last axis, a warp along one signal
// after the other; else (few channels) the block along the tile, which is contiguous.
template <class Get, class Put>
JAXTV_DEVICE void move_whole(const Tiling& tiling, const Tile& tile, Get get, Put put) {
  const int thread = threadIdx.x, across = tiling.across, pitch = tiling.pitch, rows = tiling.rows;
  if (across >= tuning::kSectorLanes) {
    if (thread >= tiling.lanes() || !tile.inside(tiling, thread)) return;
    const std::int64_t inner = tiling.shape.inner, first = tile.offset(tiling, thread);
    const std::int64_t first_edge = first - tiling.by_across.div(thread) * inner;
    const auto position = [&](int k) {
      return TileSample{k, k * pitch + thread, first + k * inner, first_edge + k * inner};
    };
    move_batched(rows, 1, position, get, put);
    return;
  }
  if (across == 1 && rows >= kWarp / 2) {  // else most of a warp would be idle
    const int warps = int(blockDim.x) / kWarp, warp = thread / kWarp;
    for (int k = thread % kWarp; k < rows; k += kWarp) {
      const auto position = [&](int m) {
        const int g = warp + m, at = g * rows + k;
        return TileSample{k, k * pitch + g, at, at - g};
      };
      move_batched(tile.group - warp, warps, position, get, put);
    }
  } else {  // across == inner
    const auto position = [&](int m) {
      m += thread;
      const int q = int(tiling.by_across.div(m)), g = int(tiling.by_rows.div(q)), k = q - g * rows;
      return TileSample{k, k * pitch + g * across + (m - q * across), m, m - g * across};
    };
    move_batched(tile.group * rows * across - thread, blockDim.x, position, get, put);
  }
}

}  // namespace jaxtv::cuda
