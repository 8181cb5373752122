// Which samples a thread of the segment kernels owns, and how they get into its registers and back.
//
// A block works on one tile (block/tiles.cuh) of some signals at a time. The threads of a signal
// own neighbouring ranges of up to kThreadSamples samples of it. A thread keeps its samples in
// registers, and the codes of the edges before, between and after them in one 32-bit word.
// A warp has no part of its own: threads meet at the block's barriers only.
#pragma once

#include "block/tiles.cuh"
#include "half.cuh"
#include "segments/partial_segments.cuh"
#include "segments/segment_tiling.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {

static_assert(kThreadBytes == sizeof(OpenSegments) + sizeof(double));
static_assert(kChunkSummaryBytes == sizeof(ChunkSummary));

// The samples of a signal that this thread owns. "First" is the first of them.
struct ThreadRange {
  int rank;                  // of this thread among the threads of its signal, from the left
  int count;                 // samples owned
  int thread_stride;         // threadIdx.x of rank + 1 minus threadIdx.x of this rank
  int shared_offset;         // of the first, in a tile in shared memory
  bool has_signal;           // false for threads past the tile; with a signal, count may be 0 too
  bool few;                  // no thread of the launch owns more than kFewSamples
  std::int64_t first;        // index of the first in its signal
  std::int64_t offset;       // of the first in an array of samples, (batch, outer, n, inner)
  std::int64_t edge_offset;  // of the edge after it in an array of edges, with n - 1 in place of n
  std::int64_t signal;       // index of the signal in the array

  JAXTV_DEVICE ThreadRange(const Tiling& tiling, const Tile& tile) {
    const int thread = threadIdx.x;
    const std::int64_t inner = tiling.shape.inner;
    int group_index, inner_index;
    if (through_shared_memory(tiling.shape)) {
      const int group_and_rank = int(tiling.by_across.div(thread));
      group_index = int(tiling.by_threads.div(group_and_rank));
      rank = group_and_rank - group_index * tiling.threads_per_signal;
      inner_index = thread - group_and_rank * tiling.across;
      thread_stride = tiling.across;
    } else {
      thread_stride = tiling.lanes();
      rank = int(tiling.by_lanes.div(thread));
      const int lane = thread - rank * thread_stride;
      group_index = int(tiling.by_across.div(lane));
      inner_index = lane - group_index * tiling.across;
    }
    has_signal =
        group_index < tile.group && inner_index < tile.across && rank < tiling.threads_per_signal;
    few = tiling.thread_rows <= kFewSamples;
    const int begin = rank * tiling.thread_rows;
    count = has_signal ? max_of(min_of(tiling.thread_rows, tile.rows - begin), 0) : 0;
    shared_offset = (group_index * tile.rows + begin) * tiling.across + inner_index;
    first = tile.row + begin;
    const std::int64_t outer = tile.outer + group_index;
    offset = (outer * tiling.shape.n + first) * inner + tile.inner + inner_index;
    edge_offset = offset - outer * inner;
    signal = outer * inner + tile.inner + inner_index;
  }
};

// Calls f(j) for the samples j that a thread may own, in order.
template <class F>
JAXTV_DEVICE void for_each_sample(const ThreadRange& range, F f) {
#pragma unroll
  for (int j = 0; j < kThreadSamples; ++j) {
    if (j == kFewSamples && range.few) break;
    f(j);
  }
}

// ---- registers ----

constexpr std::uint32_t kLowBits = 0x55555555;

// The samples of a thread. Sample j is 0 <= j < count; edge j is the edge before sample j, so edge
// `count` is the one after the last sample.
template <class T>
struct ThreadSamples {
  T values[kThreadSamples];  // what is averaged, 0 from count on; at last the means
  std::uint32_t codes;       // of edge j in the bits 2 j and 2 j + 1
  int count;

  JAXTV_DEVICE std::uint8_t code(int edge) const { return codes >> 2 * edge & 3; }
  // Masks of the edges between two of the samples, edge j at bit 2 j: those after which a segment
  // starts, those where y jumps up, those where y jumps down.
  JAXTV_DEVICE std::uint32_t segment_starts() const { return (codes | codes >> 1) & between(); }
  JAXTV_DEVICE std::uint32_t jumps_up() const { return codes & ~(codes >> 1) & between(); }
  JAXTV_DEVICE std::uint32_t jumps_down() const { return codes >> 1 & ~codes & between(); }

 private:
  // Bits 2, 4, ... 2 (count - 1). Without samples `codes` is 0, whatever this is.
  JAXTV_DEVICE std::uint32_t between() const { return kLowBits & ((1u << 2 * count) - 4); }
};

// y of the sample before the range, of its samples, and of the sample after it; NaN where there is
// none.
template <class T>
using SolutionWindow = T[kThreadSamples + 2];

// Codes of the edges 0 .. count of the range from y, for weights > 0. Where y is NaN the code is
// kSeparate: beyond the range, and before and after the signal.
template <class T>
JAXTV_DEVICE std::uint32_t codes_from_solution(const SegmentEdges<T>& edges,
                                               const ThreadRange& range,
                                               const SolutionWindow<T>& y) {
  // The first bit of a code is 0 inside a segment and for a jump down, the second inside a segment
  // and for a jump up.
  std::uint32_t codes = 0;
#pragma unroll
  for (int j = 0; j <= kThreadSamples; ++j) {
    const T here = y[j], next = y[j + 1];
    if (!(here >= next)) codes |= 1u << 2 * j;
    if (!(here <= next)) codes |= 2u << 2 * j;
  }
  if (!edges.weight_per_edge && !(edges.weights[range.signal] > T(0)))
    codes |= (~(codes | codes >> 1) & kLowBits) * kSeparate;
  return codes;
}
// Makes the code of an edge of weight 0 between equal neighbours kSeparate.
template <class T>
JAXTV_DEVICE std::uint32_t separate_weightless(std::uint32_t codes, const SegmentEdges<T>& edges,
                                               const Shape& shape, const ThreadRange& range) {
#pragma unroll 1
  for (int j = 0; j <= range.count; ++j)
    if ((codes >> 2 * j & 3) == kInside &&
        !(edges.weights[range.edge_offset + (j - 1) * shape.inner] > T(0)))
      codes |= std::uint32_t(kSeparate) << 2 * j;
  return codes;
}
// Codes of the edges 0 .. count of the range from an array of codes, which has the code of an edge
// at the sample before it. All others are kSeparate.
template <class T>
JAXTV_DEVICE std::uint32_t codes_from_memory(const SegmentEdges<T>& edges, const Shape& shape,
                                             const ThreadRange& range, std::int64_t batch) {
  const std::int64_t element = batch * shape.outer * shape.n * shape.inner;
  const std::uint8_t* bytes = edges.codes + batch * edges.code_stride + (range.offset - element);
  // The edges before and after the signal have no byte.
  const int last = int(min_of<std::int64_t>(shape.n - range.first - 1, range.count));
  std::uint32_t codes = kSeparate;
  if (range.first > 0) codes = *(bytes - shape.inner) >> edges.code_shift & kCodeMask;
#pragma unroll
  for (int j = 1; j <= kThreadSamples; ++j) {
    if (j > kFewSamples && range.few) break;
    if (j <= last) codes |= std::uint32_t(*bytes >> edges.code_shift & kCodeMask) << 2 * j;
    bytes += shape.inner;
  }
  return codes | ~0u << 2 * last << 2;
}

// ---- shared memory ----

// A block's arrays. The last two are empty unless the tile is copied through shared memory.
template <class T>
struct SegmentMemory {
  Shared<OpenSegments> open;  // by threadIdx.x, each written by its thread and read by the signal's
  Shared<double> gw;          // likewise, read by the signal's thread of rank 0
  Shared<T> values;           // of the tile: what is averaged, then the means
  Shared<T> y;                // of the tile, with one more row before it and one after it

  JAXTV_DEVICE SegmentMemory(Arena& arena, const Tiling& tiling, bool with_y) {
    open = arena.take<OpenSegments>(blockDim.x);
    gw = arena.take<double>(blockDim.x);
    const int size = through_shared_memory(tiling.shape) ? tiling.rows * tiling.lanes() : 0;
    const int halo = size ? 2 * tiling.across : 0;
    values = arena.take<T>(size);
    y = arena.take<T>(with_y ? size + halo : 0);
  }
  static std::size_t bytes(const Tiling& tiling, bool with_y) {
    const std::size_t size =
        through_shared_memory(tiling.shape) ? std::size_t(tiling.rows) * tiling.lanes() : 0;
    return tiling.threads() * std::size_t(kThreadBytes) +
           sizeof(T) * (with_y ? 2 * (size + tiling.across) : size);
  }
};

// ---- memory to shared memory to registers ----

// All threads of the block copy a contiguous tile into memory.values, and y into memory.y where it
// gives the edges. The caller synchronises.
template <class T, class Terms>
JAXTV_DEVICE void load_tile(const SegmentMemory<T>& memory, const Shape& shape, const Tile& tile,
                            const Terms& terms) {
  const int across = int(shape.inner), count = tile.group * tile.rows * across;
  const std::int64_t first = (tile.outer * shape.n + tile.row) * across;
  if constexpr (!Terms::kFromCodes) {
    const int before = tile.row > 0 ? across : 0;
    const int after = tile.row + tile.rows < shape.n ? across : 0;
    const T* y = terms.op.edges.y + (first - before);
    move_contiguous(
        before + count + after, [&](int m) { return y[m]; },
        [&](int m, T v) { memory.y[across - before + m] = v; });
  }
  move_contiguous(
      count, [&](int m) { return terms.load(first + m); },
      [&](int m, T v) { memory.values[m] = v; });
}

// y and the values of this thread's range. `from`: the first sample, in shared memory or in global
// memory, where neighbours are `step` apart.
template <class T, class From, class Step>
JAXTV_DEVICE void load_y(const Shape& shape, const ThreadRange& range, From from, Step step,
                         SolutionWindow<T>& y) {
  const int stop = int(min_of<std::int64_t>(shape.n - range.first, range.count + 1));
  y[0] = range.first > 0 ? T((from + -step)[0]) : kNaN<T>;
#pragma unroll
  for (int j = 0; j <= kThreadSamples; ++j) {
    const bool skipped = j > kFewSamples && range.few;
    y[j + 1] = !skipped && j < stop ? T(from[0]) : kNaN<T>;
    from = from + step;
  }
}

// The samples of this thread. Edge codes are read, or made from y. All threads of the block call
// it: it may synchronise.
template <class T, class Terms>
JAXTV_DEVICE ThreadSamples<T> load_samples(const SegmentMemory<T>& memory, const Tiling& tiling,
                                           const Tile& tile, const ThreadRange& range,
                                           const Terms& terms) {
  const Shape& shape = tiling.shape;
  const SegmentEdges<T>& edges = terms.op.edges;
  const bool shared = through_shared_memory(shape);
  const int step = int(shape.inner);
  if (shared) {
    load_tile(memory, shape, tile, terms);
    __syncthreads();
  }
  ThreadSamples<T> samples{};
  samples.count = range.count;
  if (range.count == 0) return samples;
  if constexpr (Terms::kFromCodes) {
    samples.codes = codes_from_memory(edges, shape, range, tile.batch);
  } else {
    SolutionWindow<T> y;
    if (shared)  // memory.y has a row more before the tile
      load_y(shape, range, memory.y + range.shared_offset + step, step, y);
    else
      load_y(shape, range, edges.y + range.offset, shape.inner, y);
    samples.codes = codes_from_solution(edges, range, y);
    if (edges.weight_per_edge)
      samples.codes = separate_weightless(samples.codes, edges, shape, range);
  }
  if (shared) {
    Shared<T> from = memory.values + range.shared_offset;
    for_each_sample(range, [&](int j) {
      samples.values[j] = j < range.count ? T(from[0]) : T(0);
      from = from + step;
    });
  } else {
    std::int64_t offset = range.offset;
    for_each_sample(range, [&](int j) {
      samples.values[j] = j < range.count ? terms.load(offset) : T(0);
      offset += shape.inner;
    });
  }
  return samples;
}

// ---- registers to memory ----

// The means of this thread to terms.store: straight to global memory, or through shared memory,
// where all threads of the block have to call it.
template <class T, class Terms>
JAXTV_DEVICE void store_to_memory(const Terms& terms, const Shape& shape, const ThreadRange& range,
                                  const ThreadSamples<T>& samples) {
  std::int64_t offset = range.offset;
  for_each_sample(range, [&](int j) {
    if (j < range.count) terms.store(offset, samples.values[j]);
    offset += shape.inner;
  });
}
template <class T, class Terms>
JAXTV_DEVICE void store_through_shared(const SegmentMemory<T>& memory, const Shape& shape,
                                       const Tile& tile, const ThreadRange& range,
                                       const Terms& terms, const ThreadSamples<T>& samples) {
  const int across = int(shape.inner);
  Shared<T> to = memory.values + range.shared_offset;
  for_each_sample(range, [&](int j) {
    if (j < range.count) to[0] = samples.values[j];
    to = to + across;
  });
  __syncthreads();
  const std::int64_t first = (tile.outer * shape.n + tile.row) * across;
  move_contiguous(
      tile.group * tile.rows * across, [&](int m) -> T { return memory.values[m]; },
      [&](int m, T v) { terms.store(first + m, v); });
}

}  // namespace jaxtv::cuda
