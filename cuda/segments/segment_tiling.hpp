// The tiles of the segment kernels: how a signal is divided among threads, blocks and launches.
// Plain C++.
#pragma once

#include "block/tiling.hpp"

namespace jaxtv::cuda {

constexpr int kThreadSamples = tuning::SegmentMeans::kThreadSamples;
constexpr int kFewSamples = tuning::SegmentMeans::kFewSamples;
static_assert(2 * (kThreadSamples + 1) <= 32, "the codes fit into a word");

// How a tile is loaded and stored. With few signals side by side in memory (inner), threads that
// each walk along their own signal would use a part of every sector. Then the tile is one
// contiguous piece of memory, and is copied through shared memory. Else threads access global
// memory themselves: neighbouring threads, neighbouring signals.
JAXTV_HD inline bool through_shared_memory(const Shape& shape) {
  return shape.inner < tuning::kSectorLanes;
}

// Bytes of shared memory per sample of such a tile (y and values), and per thread of any (its
// OpenSegments, its part of gw).
template <class T>
constexpr int kSampleBytes = 2 * sizeof(T);
constexpr int kThreadBytes = 40;

// Tiles of whole signals where a block has enough threads for one; a longer signal is cut into
// chunks, one tile each.
template <class T>
Tiling segment_tiles(const Shape& shape) {
  using Policy = tuning::SegmentMeans;
  using Int = std::int64_t;
  const bool shared = through_shared_memory(shape);
  const Int threads_that_fit = kPortableShared / (kThreadSamples * kSampleBytes<T> + kThreadBytes);
  const Int most_threads = shared ? threads_that_fit / kWarp * kWarp : Policy::kMostBlockThreads<T>;
  const Int wanted_threads = min_of<Int>(most_threads, Policy::kBlockThreads);
  const Int least_lanes = shared ? shape.inner : tuning::kSectorLanes;  // lanes are its multiples

  Int threads = ceil_div(shape.n, kThreadSamples);  // per signal
  if (threads * least_lanes > most_threads) threads = wanted_threads / least_lanes;
  // Odd: threads of a signal start in different banks of shared memory.
  const int thread_rows = int(ceil_div(min_of(shape.n, threads * kThreadSamples), threads) | 1);
  const Int rows = min_of(shape.n, threads * thread_rows);
  threads = ceil_div(rows, thread_rows);

  const Int chunks = ceil_div(shape.n, rows);
  Int lanes = max_of<Int>(wanted_threads / threads / least_lanes, 1) * least_lanes;
  if (chunks > 1) lanes = least_lanes;
  const Int fewest_lanes = max_of(least_lanes, ceil_div(Policy::kFewestBlockThreads, threads));
  lanes = lanes_for_enough_tiles(shape, chunks, lanes, fewest_lanes, least_lanes);
  Tiling tiling = cover(shape, rows, lanes, lanes);
  tiling.threads_per_signal = int(threads);
  tiling.thread_rows = thread_rows;
  tiling.by_threads = Divider(threads);
  return tiling;
}

// Bytes of a ChunkSummary (partial_segments.cuh): scratch per chunk of a long signal.
constexpr int kChunkSummaryBytes = 40;

}  // namespace jaxtv::cuda
