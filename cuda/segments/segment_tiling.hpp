// The tiles of the segment kernels: how a signal is divided among threads, blocks and launches.
// Plain C++.
#pragma once

#include "block/tiling.hpp"

namespace jaxtv::cuda {

constexpr int kThreadSamples = tuning::SegmentMeans::kThreadSamples;
static_assert(2 * (kThreadSamples + 1) <= 32, "the codes fit into a word");

// A tile with fewer than a sector's lanes in memory order is one piece of memory, which passes
// through shared memory. Other tiles are read row by row.
JAXTV_HD inline bool through_shared_memory(const Shape& shape) {
  return shape.inner < tuning::kSectorLanes;
}

// Bytes of shared memory per sample that passes through it (y and values), and per thread (its open
// segments, its part of gw).
template <class T>
constexpr int kSampleBytes = 2 * sizeof(T);
constexpr int kThreadBytes = 40;

// Tiles with all of a signal wherever a block can have that.
template <class T>
Tiling segment_tiles(const Shape& shape) {
  using Policy = tuning::SegmentMeans;
  using Int = std::int64_t;
  const bool shared = through_shared_memory(shape);
  const Int fit = kPortableShared / (kThreadSamples * kSampleBytes<T> + kThreadBytes);
  const Int most_threads = shared ? fit / kWarp * kWarp : Policy::kMostBlockThreads<T>;
  const Int wanted_threads = min_of<Int>(most_threads, Policy::kBlockThreads);
  const Int narrow = shared ? shape.inner : tuning::kSectorLanes;

  Int threads = ceil_div(shape.n, kThreadSamples);  // of a signal
  if (threads * narrow > most_threads) threads = wanted_threads / narrow;
  const int thread_rows = int(ceil_div(min_of(shape.n, threads * kThreadSamples), threads) | 1);
  const Int rows = min_of(shape.n, threads * thread_rows);
  threads = ceil_div(rows, thread_rows);

  const Int chunks = ceil_div(shape.n, rows);
  Int lanes = max_of<Int>(wanted_threads / threads / narrow, 1) * narrow;
  if (chunks > 1) lanes = narrow;
  const Int fewest = max_of(narrow, ceil_div(Policy::kFewestBlockThreads, threads));
  lanes = lanes_for_enough_tiles(shape, chunks, lanes, fewest, narrow);
  Tiling tiling = cover(shape, rows, lanes, lanes);
  tiling.threads_per_signal = int(threads);
  tiling.thread_rows = thread_rows;
  tiling.by_threads = Divider(threads);
  return tiling;
}

// What a launch leaves of each chunk of a long signal for the next one, in bytes.
constexpr int kChunkSummaryBytes = 40;

}  // namespace jaxtv::cuda
