// Segment means. A signal that fits in one tile needs one kernel:
//   segment_means     computes the means and writes all results
// A long signal is cut into chunks, one per tile, and has two kernels before it and one after it:
//   summarise_chunks  writes the open segments of every chunk (partial_segments.cuh)
//   scan_chunks       turns them into the pieces of segments around every chunk
//   sum_chunk_gw      adds the chunks' parts of gw, in the VJP with one λ per signal
// Sums are in double and in a fixed order; there are no atomics.
#include "block/scan.cuh"
#include "jaxtv/common.hpp"
#include "segments/thread_samples.cuh"

namespace jaxtv::cuda {
namespace {

constexpr int kScanThreads = tuning::SegmentMeans::kScanThreads;

// ---- the two operations: what is averaged, and what becomes of the means ----
//
// Kernels take one of them as Terms:
//   load(offset)                    what is averaged, at that sample
//   jump_term(code, edge, signal)   s tw of the edge at offset `edge`: added to the sample before a
//                                   jump, subtracted from the one after it (JVP; 0 in the VJP)
//   store(offset, mean)             writes the results at that sample
//   put_gw(offset, value)           writes a value of gw, or adds it (VJP)
// kDykstraPass: the states of Dykstra's iteration are updated. kFromCodes: edges are given by
// codes.

template <class Sample, bool kDykstraPass>
struct VjpTerms {
  using T = Compute<Sample>;
  static constexpr bool kFromCodes = kDykstraPass || kHalf<Sample>;
  static constexpr bool kIsVjp = true;
  const SegmentVjp<Sample>& op;

  JAXTV_DEVICE T load(std::int64_t offset) const {
    if constexpr (!kDykstraPass) return op.g[offset];
    const T g = op.g ? T(op.g[offset]) : T(0);
    return op.gp ? g - op.gp[offset] : g;
  }
  JAXTV_DEVICE double jump_term(std::uint8_t, std::int64_t, std::int64_t) const { return 0; }
  JAXTV_DEVICE void store(std::int64_t offset, T mean) const {
    if constexpr (!kDykstraPass) {
      op.gx[offset] = mean;
    } else {
      const T b = op.gp ? mean + op.gp[offset] : mean;
      const T sum = op.add_to_gx_sum ? op.gx_sum[offset] + b : b;
      if (op.gx_sum) op.gx_sum[offset] = sum;
      if (op.gx) op.gx[offset] = sum;
      for (int j = 0; j < op.other_gp.count; ++j) {
        T* other = op.other_gp.data[j] + offset;
        *other = op.other_gp_in_use >> j & 1 ? *other - b : -b;
      }
    }
  }
  JAXTV_DEVICE void put_gw(std::int64_t offset, double value) const {
    op.gw[offset] = T(op.add_to_gw ? double(op.gw[offset]) + value : value);
  }
};

template <class Sample, bool kDykstraPass>
struct JvpTerms {
  using T = Compute<Sample>;
  static constexpr bool kFromCodes = kDykstraPass || kHalf<Sample>;
  static constexpr bool kIsVjp = false;
  const SegmentJvp<Sample>& op;

  JAXTV_DEVICE T load(std::int64_t offset) const {
    T a = op.tx[offset];
    if constexpr (kDykstraPass)
      for (int j = 0; j < op.other_tp.count; ++j) a -= op.other_tp.data[j][offset];
    return a;
  }
  JAXTV_DEVICE double jump_term(std::uint8_t code, std::int64_t edge, std::int64_t signal) const {
    if (code != kJumpUp && code != kJumpDown) return 0;
    const double v = double(op.tw[op.tw_per_edge ? edge : signal]);
    return code == kJumpUp ? v : -v;
  }
  JAXTV_DEVICE void store(std::int64_t offset, T mean) const {
    if constexpr (kDykstraPass)
      if (op.tp) op.tp[offset] = load(offset) - mean;  // before ty, which may be tx
    if (!kDykstraPass || op.ty) op.ty[offset] = mean;
  }
};

// ---- one thread's samples ----

struct ThreadSums {
  OpenSegments open;     // of the range alone: the edges before and after it are not looked at
  int last_segment = 0;  // first sample of the last segment; 0 where there is one segment only
};

// Sums the segments of the range, from the right. The segments at its two ends are returned as its
// open segments. Of each segment between them, the first value is replaced by the mean.
template <class T, class Terms>
JAXTV_DEVICE ThreadSums sum_segments(ThreadSamples<T>& samples, const ThreadRange& range,
                                     const Terms& terms, std::int64_t inner) {
  const auto jump_term = [&](int edge) {
    return terms.jump_term(samples.code(edge), range.edge_offset + (edge - 1) * inner,
                           range.signal);
  };
  ThreadSums sums;
  double sum = 0;
  // Values from samples.count on are 0 and add nothing to the sum; counting them brings this to 0.
  T count = T(samples.count - (range.few ? kFewSamples : kThreadSamples));
  const std::uint32_t starts = samples.segment_starts();
#pragma unroll
  for (int j = kThreadSamples - 1; j >= 0; --j) {
    if (j >= kFewSamples && range.few) continue;
    sum += double(samples.values[j]);
    if constexpr (!Terms::kIsVjp)
      if (j < samples.count) sum += jump_term(j + 1) - jump_term(j);
    count += 1;
    if (!(starts & 1u << 2 * j)) continue;
    if (sums.last_segment == 0) {
      sums.open.right = {sum, 2 * std::int64_t(count) + 1};  // ended
      sums.last_segment = j;
    } else {
      samples.values[j] = mean_of(sum, count);
    }
    sum = 0;
    count = 0;
  }
  sums.open.left = {sum, 2 * std::int64_t(count) + (sums.last_segment > 0 ? 1 : 0)};
  if (sums.last_segment == 0) sums.open.right = sums.open.left;
  return sums;
}

// The open segments of a thread as its neighbours see them. Where the edge after the range is not
// inside a segment, the left piece has ended and the right one is empty.
template <class T>
JAXTV_DEVICE OpenSegments visible_to_others(const ThreadSamples<T>& samples,
                                            const OpenSegments& open) {
  if (samples.count == 0 || samples.code(samples.count) == kInside) return open;
  return {{open.left.sum, open.left.count_and_end | 1}, {0, 1}};
}

// The pieces around this thread's range within the tile. Reads `open` of the signal's other
// threads one by one, away from the range: a segment is rarely longer than a few ranges.
JAXTV_DEVICE OpenSegments around_thread(Shared<OpenSegments> open, const Tiling& tiling,
                                        const ThreadRange& range) {
  OpenSegments around;
  if (!range.has_signal) return around;
  int thread = threadIdx.x;
  for (int rank = range.rank; rank > 0 && !around.left.ended(); --rank) {
    thread -= range.thread_stride;
    around.left = join(OpenSegments(open[thread]).right, around.left);
  }
  thread = threadIdx.x;
  for (int rank = range.rank + 1; rank < tiling.threads_per_signal && !around.right.ended();
       ++rank) {
    thread += range.thread_stride;
    around.right = join(OpenSegments(open[thread]).left, around.right);
  }
  return around;
}

// Computes the means of the first and the last segment with the pieces around the range, and
// replaces every value by the mean of its segment.
template <class T>
JAXTV_DEVICE void complete_means(ThreadSamples<T>& samples, const ThreadRange& range,
                                 const ThreadSums& sums, const OpenSegments& around) {
  const bool continues = samples.code(samples.count) == kInside;
  const PartialSegment after = continues ? around.right : PartialSegment{};
  const PartialSegment first = append(around.left, sums.open.left);
  const std::uint32_t starts = samples.segment_starts();
  const T last = mean_of<T>(append(after, starts ? sums.open.right : first));
  T mean = starts ? mean_of<T>(first) : last;
  for_each_sample(range, [&](int j) {
    if (j > 0 && starts & 1u << 2 * j) mean = j == sums.last_segment ? last : samples.values[j];
    samples.values[j] = mean;
  });
}

// gw of an edge, -s (next - here), from the means on both sides.
template <class T>
JAXTV_DEVICE double gw_of_edge(std::uint8_t code, T here, T next) {
  const double fall = double(here) - double(next);
  return code == kJumpUp ? fall : (code == kJumpDown ? -fall : 0.0);
}

// Writes gw of the edges 1 .. count of the range. `after` is the mean of the segment after it.
template <class T, class Terms>
JAXTV_DEVICE void put_gw_of_edges(const Terms& terms, const ThreadSamples<T>& samples,
                                  const ThreadRange& range, const Shape& shape, T after) {
#pragma unroll
  for (int j = 1; j <= kThreadSamples; ++j) {
    if (j > samples.count || range.first + j >= shape.n) continue;
    const T next = j == samples.count ? after : samples.values[j < kThreadSamples ? j : 0];
    terms.put_gw(range.edge_offset + (j - 1) * shape.inner,
                 gw_of_edge(samples.code(j), samples.values[j - 1], next));
  }
}
// The sum of gw over these edges.
template <class T>
JAXTV_DEVICE double sum_gw(const ThreadSamples<T>& samples, const ThreadRange& range, T after) {
  const double end =
      range.few ? samples.values[kFewSamples - 1] : samples.values[kThreadSamples - 1];
  const double jump = end - double(after);
  const std::uint8_t code = samples.code(samples.count);
  double sum = code == kJumpUp ? jump : (code == kJumpDown ? -jump : 0.0);
  double previous = samples.values[0];
  const std::uint32_t ups = samples.jumps_up(), downs = samples.jumps_down();
  for_each_sample(range, [&](int j) {
    if (j == 0) return;
    const double here = samples.values[j], fall = previous - here;
    if (ups & 1u << 2 * j) sum += fall;
    if (downs & 1u << 2 * j) sum -= fall;
    previous = here;
  });
  return sum;
}

// ---- kernels ----

// A block owns a tile: one chunk of some signals. A thread owns a range of a chunk.
// Reads what is averaged, and the solution or the codes.
// Writes the open segments of each chunk to chunks[signal * tiling.chunks + chunk].open: its left
// piece by the first thread of the chunk, its right piece by the last.
template <class T, bool kDykstraPass, class Terms, class Op>
__global__ void __launch_bounds__(tuning::SegmentMeans::kLaunchBound<T, kDykstraPass>,
                                  tuning::SegmentMeans::kBlocksPerMultiprocessor)
    summarise_chunks(Tiling tiling, Op op, ChunkSummary* chunks) {
  Arena arena;
  const SegmentMemory<T> memory(arena, tiling, !Terms::kFromCodes);
  const Terms terms{op};
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Tile tile(tiling, std::uint32_t(index));
    const ThreadRange range(tiling, tile);
    ThreadSamples<T> samples = load_samples<T>(memory, tiling, tile, range, terms);
    const OpenSegments open =
        visible_to_others(samples, sum_segments(samples, range, terms, tiling.shape.inner).open);
    memory.open[threadIdx.x] = open;
    __syncthreads();
    const bool first = range.rank == 0, last = range.rank == tiling.threads_per_signal - 1;
    if (range.has_signal && (first || last)) {
      const OpenSegments around = around_thread(memory.open, tiling, range);
      ChunkSummary& chunk = chunks[range.signal * tiling.chunks + tile.chunk];
      if (first) chunk.open.left = join(around.right, open.left);
      if (last) chunk.open.right = join(around.left, open.right);
    }
    __syncthreads();  // the next tile overwrites shared memory
  }
}

// A block owns a signal. A thread owns some neighbouring chunks of it.
// Reads the open segments of all chunks of the signal.
// Writes the pieces around each chunk in their place.
__global__ void __launch_bounds__(kScanThreads)
    scan_chunks(std::int64_t signals, std::int64_t chunks_per_signal, ChunkSummary* chunks) {
  Arena arena;
  const Shared<PartialSegment> scratch = arena.take<PartialSegment>(blockDim.x);
  const int thread = threadIdx.x, threads = blockDim.x;
  const std::int64_t chunks_per_thread = (chunks_per_signal + threads - 1) / threads;
  const std::int64_t begin = min_of(thread * chunks_per_thread, chunks_per_signal);
  const std::int64_t end = min_of(begin + chunks_per_thread, chunks_per_signal);
  for (std::int64_t signal = blockIdx.x; signal < signals; signal += gridDim.x) {
    ChunkSummary* chunk = chunks + signal * chunks_per_signal;
    // First the join of this thread's chunks, then that of all chunks before (after) them.
    PartialSegment from_left{}, from_right{};
    for (std::int64_t c = begin; c < end; ++c) from_left = join(from_left, chunk[c].open.right);
    for (std::int64_t c = end - 1; c >= begin; --c)
      from_right = join(from_right, chunk[c].open.left);
    from_left = scan_by_doubling<false>(scratch, from_left);
    from_right = scan_by_doubling<true>(scratch, from_right);
    for (std::int64_t c = end - 1; c >= begin; --c) {
      const PartialSegment left = chunk[c].open.left;
      chunk[c].open.left = from_right;  // for now: open.right is still needed
      from_right = join(from_right, left);
    }
    for (std::int64_t c = begin; c < end; ++c) {
      const PartialSegment right = chunk[c].open.right;
      chunk[c].open.right = chunk[c].open.left;
      chunk[c].open.left = from_left;
      from_left = join(from_left, right);
    }
  }
}

// A block owns a tile: some signals, or one chunk of them. A thread owns a range of a signal.
// Reads what is averaged, and the solution or the codes. Of long signals, also the pieces around
// the chunk, from chunks[...].open.
// Writes the results of the operation. The thread of rank 0 writes gw of a signal with one λ; for a
// chunk it writes the chunk's part to chunks[...].gw, which sum_chunk_gw adds.
template <class T, bool kDykstraPass, class Terms, class Op>
__global__ void __launch_bounds__(tuning::SegmentMeans::kLaunchBound<T, kDykstraPass>,
                                  tuning::SegmentMeans::kBlocksPerMultiprocessor)
    segment_means(Tiling tiling, Op op, ChunkSummary* chunks) {
  Arena arena;
  const SegmentMemory<T> memory(arena, tiling, !Terms::kFromCodes);
  const Terms terms{op};
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Tile tile(tiling, std::uint32_t(index));
    const ThreadRange range(tiling, tile);
    ThreadSamples<T> samples = load_samples<T>(memory, tiling, tile, range, terms);
    const ThreadSums sums = sum_segments(samples, range, terms, tiling.shape.inner);
    OpenSegments around;
    if (tiling.threads_per_signal > 1) {
      memory.open[threadIdx.x] = visible_to_others(samples, sums.open);
      __syncthreads();
      around = around_thread(memory.open, tiling, range);
    }
    if (tiling.chunks > 1 && range.has_signal) {
      const OpenSegments& chunk = chunks[range.signal * tiling.chunks + tile.chunk].open;
      around = {join(chunk.left, around.left), join(chunk.right, around.right)};
    }
    complete_means(samples, range, sums, around);
    double gw = 0;  // of the range's edges, with one λ per signal
    if constexpr (Terms::kIsVjp) {
      const T after = mean_of<T>(around.right);  // read only where the edge after the range jumps
      if (op.gw_per_edge && range.count > 0)
        put_gw_of_edges(terms, samples, range, tiling.shape, after);
      else if (range.count > 0)
        gw = sum_gw(samples, range, after);
    }
    memory.gw[threadIdx.x] = gw;
    if (through_shared_memory(tiling.shape))
      store_through_shared(memory, tiling.shape, tile, range, terms, samples);
    else
      store_to_memory(terms, tiling.shape, range, samples);
    if constexpr (Terms::kIsVjp) {
      __syncthreads();
      if (!op.gw_per_edge && range.has_signal && range.rank == 0) {
        for (int rank = 1; rank < tiling.threads_per_signal; ++rank)
          gw += memory.gw[threadIdx.x + rank * range.thread_stride];
        if (tiling.chunks == 1)
          terms.put_gw(range.signal, gw);
        else
          chunks[range.signal * tiling.chunks + tile.chunk].gw = gw;
      }
    }
    __syncthreads();  // the next tile overwrites shared memory
  }
}

// A block owns a signal. A thread owns every kScanThreads-th chunk of it.
// Reads chunks[...].gw.
// The last thread writes their sum to gw[signal], or adds it.
template <class T>
__global__ void __launch_bounds__(kScanThreads)
    sum_chunk_gw(std::int64_t signals, std::int64_t chunks_per_signal, const ChunkSummary* chunks,
                 T* gw, bool add_to_gw) {
  Arena arena;
  const Shared<PartialSegment> scratch = arena.take<PartialSegment>(blockDim.x);
  const int thread = threadIdx.x, threads = blockDim.x;
  for (std::int64_t signal = blockIdx.x; signal < signals; signal += gridDim.x) {
    PartialSegment total{};
    for (std::int64_t c = thread; c < chunks_per_signal; c += threads)
      total.sum += chunks[signal * chunks_per_signal + c].gw;
    scan_by_doubling<false>(scratch, total);
    if (thread == threads - 1)
      gw[signal] = T(add_to_gw ? double(gw[signal]) + total.sum : total.sum);
  }
}

// ---- launching ----

template <class T, bool kDykstraPass, class Terms, class Op>
Status run(cudaStream_t stream, const Tiling& tiling, const Op& op, ChunkSummary* chunks) {
  if (Status bad = check(tiling)) return bad;
  const std::size_t shared = SegmentMemory<T>::bytes(tiling, !Terms::kFromCodes);
  if (tiling.chunks > 1) {
    if (!chunks) return "jaxtv: scratch missing";
    const std::int64_t signals = tiling.shape.signals();
    if (Status bad = launch("summarise_chunks", summarise_chunks<T, kDykstraPass, Terms, Op>,
                            tiling.tiles, tiling.threads(), shared, stream, tiling, op, chunks))
      return bad;
    if (Status bad =
            launch("scan_chunks", scan_chunks, signals, kScanThreads,
                   kScanThreads * sizeof(PartialSegment), stream, signals, tiling.chunks, chunks))
      return bad;
  }
  return launch("segment_means", segment_means<T, kDykstraPass, Terms, Op>, tiling.tiles,
                tiling.threads(), shared, stream, tiling, op, chunks);
}

// Whether it is a pass of Dykstra's iteration. The edges of half types are given by codes always.
template <class Sample, class Op>
bool is_dykstra_pass(const Op& op) {
  return kHalf<Sample> ? op.updates_states() : !op.edges.y;
}

bool empty(const Shape& shape) { return shape.signals() == 0 || shape.n == 0; }

}  // namespace

template <class Sample>
Status segment_jvp(cudaStream_t stream, const Shape& shape, const SegmentJvp<Sample>& op,
                   void* scratch) {
  using T = Compute<Sample>;
  if (empty(shape)) return nullptr;
  const Tiling tiling = segment_tiles<T>(shape);
  ChunkSummary* chunks = static_cast<ChunkSummary*>(scratch);
  return is_dykstra_pass<Sample>(op)
             ? run<T, true, JvpTerms<Sample, true>>(stream, tiling, op, chunks)
             : run<T, false, JvpTerms<Sample, false>>(stream, tiling, op, chunks);
}

template <class Sample>
Status segment_vjp(cudaStream_t stream, const Shape& shape, const SegmentVjp<Sample>& op,
                   void* scratch) {
  using T = Compute<Sample>;
  if (empty(shape)) return nullptr;
  const Tiling tiling = segment_tiles<T>(shape);
  ChunkSummary* chunks = static_cast<ChunkSummary*>(scratch);
  if (Status bad = is_dykstra_pass<Sample>(op)
                       ? run<T, true, VjpTerms<Sample, true>>(stream, tiling, op, chunks)
                       : run<T, false, VjpTerms<Sample, false>>(stream, tiling, op, chunks))
    return bad;
  if (tiling.chunks == 1 || op.gw_per_edge) return nullptr;
  return launch("sum_chunk_gw", sum_chunk_gw<T>, shape.signals(), kScanThreads,
                kScanThreads * sizeof(PartialSegment), stream, shape.signals(), tiling.chunks,
                chunks, op.gw, op.add_to_gw);
}

#define JAXTV_INSTANTIATE(Sample)                                                            \
  template Status segment_jvp(cudaStream_t, const Shape&, const SegmentJvp<Sample>&, void*); \
  template Status segment_vjp(cudaStream_t, const Shape&, const SegmentVjp<Sample>&, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
