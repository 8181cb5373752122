// Decomposition of long signals by the whole device: the steps of parallel_decomposition.cuh as one
// kernel each, with scans over the tiles of a signal between them. Launches depend on n only: some
// passes, whose kernels return at once when no region is left to cut. They leave many regions or
// short ones; a thread or a block each goes on with those that are not finished (by binary
// splitting, as ramps do, the passes make enough of them to fill a device).
//
// In all grid_* kernels but the scans a block owns a tile of a signal, kTile neighbouring samples,
// and a thread kThreadSamples of these. In the scans (grid_scan, grid_scan_bounds) and in
// grid_finish_ties a block owns a signal. Each kernel says what it reads and writes.
#include "block/launch.cuh"
#include "half.cuh"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"
#include "prox1d/thread_per_signal.cuh"

namespace jaxtv::cuda {
namespace {

using Policy = tuning::GridDecomposition;
constexpr int kThreads = Policy::kBlockThreads, kTile = kThreads * Policy::kThreadSamples;
constexpr int kMostPasses = Policy::kMostPasses, kMostTiePasses = Policy::kMostTiePasses;
constexpr int kScanThreads = Policy::kScanThreads;

using Group = ThreadGroup<kThreads / kWarp>;
using Index = std::int64_t;

// Of one signal: whether a pass of the decomposition, or of joining ties, has work.
struct SignalProgress {
  SampleBounds bounds;
  int has_cut[kMostPasses + 1], has_joined[kMostTiePasses + 1];  // by the pass before
};

// Of one tile. First what the tile contributes; a scan replaces it by what lies before the tile, in
// the scan's direction.
struct TileSummary {
  RegionSum sum;
  LastRegion last;
  Clamp messages;
  Label label;
  SampleBounds bounds;
  int left_cut;  // the cut before the tile, while others change it
};
static_assert(sizeof(SignalProgress) == kSignalProgressBytes);
static_assert(sizeof(TileSummary) == kTileSummaryBytes);
static_assert(kTile == kGridTile);

template <class Sample>
struct Job {
  Shape shape;
  Prox<Sample> op;
  std::int64_t tiles;  // of a signal
  double* region_values;
  SignalProgress* progress;
  TileSummary* summaries;
  signed char* cuts;
  signed char* marks;  // the cuts after the last pass, with kNewMark added to the new ones
};

constexpr int kNewMark = 4;
JAXTV_DEVICE bool is_new_mark(int mark) { return mark > 1; }
JAXTV_DEVICE int cut_of_mark(int mark) { return is_new_mark(mark) ? mark - kNewMark : mark; }

// After so many passes by binary splitting, regions are not longer than a tile.
constexpr int passes_of(std::int64_t n) {
  int passes = 2;
  while (passes < kMostPasses && (std::int64_t(1) << (passes - 1)) < grid_tiles(n)) ++passes;
  return passes;
}

// The tile that a block works on, and its thread's samples.
template <class Sample>
struct TileOfSignal {
  SignalState<Index, const Sample*, const Compute<Sample>*, signed char*, double*> signal;
  Sample* y;
  SignalProgress* progress;
  TileSummary* summary;
  Index first;  // sample of the tile
  SampleRange<Index> range;

  JAXTV_DEVICE TileOfSignal(const Job<Sample>& job, std::int64_t index) {
    const Shape& shape = job.shape;
    const std::int64_t number = index / job.tiles, tile = index - number * job.tiles;
    const std::int64_t outer = number / shape.inner, inner = number - outer * shape.inner;
    const std::int64_t offset = outer * shape.n * shape.inner + inner;
    const bool per_edge = job.op.per_edge;
    signal = {shape.n,
              job.op.x + offset,
              shape.inner,
              per_edge ? job.op.w + outer * (shape.n - 1) * shape.inner + inner : job.op.w + number,
              per_edge ? shape.inner : 0,
              job.cuts + number * shape.n,
              job.region_values + number * shape.n,
              1.0};
    y = job.op.y + offset;
    progress = job.progress + number;
    summary = job.summaries + index;
    first = tile * kTile;
    range.begin = min_of(first + Index(threadIdx.x) * Policy::kThreadSamples, shape.n);
    range.end = min_of(range.begin + Policy::kThreadSamples, shape.n);
  }
  JAXTV_DEVICE bool has_samples() const { return range.begin < range.end; }
  // The cut before the range.
  JAXTV_DEVICE int left_cut() const {
    if (!has_samples() || range.begin == 0) return 0;
    return threadIdx.x == 0 ? summary->left_cut : signal.cut(range.begin - 1);
  }
  JAXTV_DEVICE bool starts(Index i) const {
    return i == 0 || (i == range.begin ? left_cut() : signal.cut(i - 1)) != 0;
  }
  JAXTV_DEVICE void scale_down() {
    if (sizeof(Compute<Sample>) == 8 && progress->bounds.scale() >= kSolverLimit)
      signal.factor = kSolverScale;
  }
  JAXTV_DEVICE double scale() const { return progress->bounds.scale() * signal.factor; }
};

// What a launch is about: all signals, or those that the pass before has cut, or joined.
enum class Wanted { kAll, kCut, kJoined };
JAXTV_DEVICE bool has_work(const SignalProgress& progress, Wanted wanted, int pass) {
  if (wanted == Wanted::kAll) return true;
  return wanted == Wanted::kCut ? progress.has_cut[pass] : progress.has_joined[pass];
}

// Calls f(tile) for every tile of the signals that have work.
template <class Sample, class F>
JAXTV_DEVICE void for_tiles(const Job<Sample>& job, Wanted wanted, int pass, F f) {
  const std::int64_t count = job.shape.signals() * job.tiles;
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    TileOfSignal<Sample> tile(job, i);
    if (!has_work(*tile.progress, wanted, pass)) continue;
    tile.scale_down();
    f(tile);
    __syncthreads();
  }
}

// ---- one kernel per step ----

// Reads samples and weights. Writes the first cuts, and the bounds of every tile.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_bounds(Job<Sample> job) {
  const std::int64_t count = job.shape.signals() * job.tiles;
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const TileOfSignal<Sample> tile(job, i);
    initialise_cuts(tile.signal, tile.range);
    const SampleBounds b = Group::total<false>(bounds_of<Compute<Sample>>(tile.signal, tile.range));
    if (threadIdx.x == 0) tile.summary->bounds = b;
    __syncthreads();
  }
}

// Scans one member of the summaries of a signal by the threads of a block; returns the join of all.
template <bool kReverse, class V, class Sample>
JAXTV_DEVICE V scan_summaries(const Job<Sample>& job, std::int64_t signal,
                              V TileSummary::* member) {
  TileSummary* summaries = job.summaries + signal * job.tiles;
  const std::int64_t each = (job.tiles + blockDim.x - 1) / blockDim.x;
  const std::int64_t begin = min_of(threadIdx.x * each, job.tiles);
  const std::int64_t end = min_of(begin + each, job.tiles);
  const auto at = [&](std::int64_t k) -> V& {
    return summaries[kReverse ? begin + (end - 1 - k) : k].*member;
  };
  V before{}, total;
  for (std::int64_t k = begin; k < end; ++k) before = join(before, V(at(k)));
  before = ThreadGroup<kScanThreads / kWarp>::template scan<kReverse>(Arena{}, before, total);
  for (std::int64_t k = begin; k < end; ++k) {
    const V own = at(k);
    at(k) = before;
    before = join(before, own);
  }
  return total;
}

// Reads the bounds of all tiles. Writes those of the signal, and that the first pass has work.
template <class Sample>
__global__ void __launch_bounds__(kScanThreads) grid_scan_bounds(Job<Sample> job) {
  for (std::int64_t signal = blockIdx.x; signal < job.shape.signals(); signal += gridDim.x) {
    const SampleBounds b = scan_summaries<false>(job, signal, &TileSummary::bounds);
    if (threadIdx.x == 0) {
      SignalProgress& progress = job.progress[signal];
      progress.bounds = b;
      for (int i = 0; i <= kMostPasses; ++i) progress.has_cut[i] = i == 0 && !b.invalid;
      for (int i = 0; i <= kMostTiePasses; ++i) progress.has_joined[i] = i == 0 && !b.invalid;
    }
    __syncthreads();
  }
}

// Which member of a summary a scan is about (nvcc takes no pointer to member as a kernel's
// argument).
JAXTV_DEVICE auto member_of(const RegionSum&) { return &TileSummary::sum; }
JAXTV_DEVICE auto member_of(const LastRegion&) { return &TileSummary::last; }
JAXTV_DEVICE auto member_of(const Clamp&) { return &TileSummary::messages; }
JAXTV_DEVICE auto member_of(const Label&) { return &TileSummary::label; }

// Reads and writes one member of the summaries of each signal.
template <class Sample, class V, bool kReverse>
__global__ void __launch_bounds__(kScanThreads)
    grid_scan(Job<Sample> job, Wanted wanted, int pass) {
  for (std::int64_t signal = blockIdx.x; signal < job.shape.signals(); signal += gridDim.x) {
    if (!has_work(job.progress[signal], wanted, pass)) continue;
    scan_summaries<kReverse>(job, signal, member_of(V{}));
    __syncthreads();
  }
}

// Reads samples and cuts. Writes the sum of the region at the left end of every tile.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_sums(Job<Sample> job, Wanted wanted, int pass) {
  for_tiles(job, wanted, pass, [&](TileOfSignal<Sample>& tile) {
    const RegionSum sum = Group::total<true>(region_sum_of(tile.signal, tile.range));
    if (threadIdx.x == 0) tile.summary->sum = sum;
  });
}

// Reads samples, cuts and scanned sums. Writes the values of all regions, rounded to Value, and the
// last one of every tile.
template <class Sample, class Value>
__global__ void __launch_bounds__(kThreads) grid_means(Job<Sample> job, Wanted wanted, int pass) {
  for_tiles(job, wanted, pass, [&](TileOfSignal<Sample>& tile) {
    RegionMeans<Value, Index, decltype(tile.signal)> means(tile.signal, tile.range);
    means.add_all();
    const RegionSum right = Group::scan<true>(Arena{}, means.begin());
    const LastRegion last = Group::total<false>(means.end(join(tile.summary->sum, right)));
    if (threadIdx.x != 0) return;
    tile.summary->last = last;
    tile.summary->left_cut = tile.range.begin > 0 ? tile.signal.cut(tile.range.begin - 1) : 0;
  });
}

// The value that comes in from the left: of the last region that starts in the tile before the
// thread, or before the tile.
template <class Sample>
JAXTV_DEVICE double left_value(const TileOfSignal<Sample>& tile) {
  LastRegion last;
  for (Index i = tile.range.end - 1; i >= tile.range.begin && !last.found; --i)
    if (tile.starts(i)) last = {tile.signal.region_values[i], 1};
  const LastRegion before = Group::scan<false>(Arena{}, last);
  return join(LastRegion(tile.summary->last), before).value;
}

// Reads samples, cuts and values. Writes the messages of every tile as a function.
template <class Sample>
__global__ void __launch_bounds__(kThreads)
    grid_messages(Job<Sample> job, Wanted wanted, int pass) {
  for_tiles(job, wanted, pass, [&](TileOfSignal<Sample>& tile) {
    const Clamp messages = Group::total<false>(
        compose_messages(tile.signal, tile.range, left_value(tile), tile.left_cut()));
    if (threadIdx.x == 0) tile.summary->messages = messages;
  });
}

// Reads samples, cuts, values and scanned messages. Writes the labels on top of the cuts, and the
// first label of every tile.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_labels(Job<Sample> job, Wanted wanted, int pass) {
  for_tiles(job, wanted, pass, [&](TileOfSignal<Sample>& tile) {
    const double value = left_value(tile);
    const int left = tile.left_cut();
    Clamp before =
        Group::scan<false>(Arena{}, compose_messages(tile.signal, tile.range, value, left));
    before = join(Clamp(tile.summary->messages), before);
    __syncthreads();
    const Label label =
        Group::total<true>(label_samples(tile.signal, tile.range, value, left, before.low));
    if (threadIdx.x == 0) tile.summary->label = label;
  });
}

// Reads cuts with labels, scanned labels, and samples. Writes the cuts of this pass, after the last
// pass also the marks, and the sums that the next pass needs.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_cut(Job<Sample> job, int pass, bool last_pass) {
  for_tiles(job, Wanted::kCut, pass, [&](TileOfSignal<Sample>& tile) {
    Label first;
    for (Index i = tile.range.end - 1; i >= tile.range.begin; --i) {
      const int code = (int(tile.signal.cuts[i]) + 1) >> 2;
      if (code != kCopyRight) first.code = code;
    }
    Label right = Group::scan<true>(Arena{}, first);
    right = join(Label(tile.summary->label), right);
    signed char* marks = job.marks + (tile.signal.cuts - job.cuts);
    RegionSum sum = empty_region_sum(tile.signal, tile.range);
    const auto note = [&](Index i, int cut, bool is_new) {
      if (last_pass) marks[i] = static_cast<signed char>(is_new ? cut + kNewMark : cut);
      extend(tile.signal, i, cut, sum);
    };
    if (cut_between_labels(tile.signal, tile.range, right.code, note))
      tile.progress->has_cut[pass + 1] = 1;
    sum = Group::total<true>(sum);
    if (threadIdx.x == 0) tile.summary->sum = sum;
  });
}

// ---- the regions that the last pass made ----
// A region belongs to the new cut at its left end, or else to that at its right end. Short ones are
// finished by a thread each, then the others by a block each.

constexpr Index kTooFar = -2;

// The first edge from e on, in steps of `direction`, that has a mark; -1 or n - 1 when none has;
// kTooFar when more than kLongestForThread edges have none.
template <class Signal>
JAXTV_DEVICE Index near_mark(const Signal& signal, const signed char* marks, Index e,
                             int direction) {
  for (int k = 0; k < Policy::kLongestForThread; ++k, e += direction)
    if (e < 0 || e + 1 >= signal.n || marks[e] != 0) return e;
  return kTooFar;
}

// Reads marks, samples and cuts. Writes the cuts in short regions, a thread each.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_finish_short(Job<Sample> job, int passes) {
  for_tiles(job, Wanted::kCut, passes, [&](TileOfSignal<Sample>& tile) {
    const auto& signal = tile.signal;
    const signed char* marks = job.marks + (signal.cuts - job.cuts);
    const auto finish = [&](Index first, Index last) {
      refine(first, last + 1, signal.n, SampleAccessor{signal}, WeightAccessor{signal},
             signal.cuts);
    };
    for (Index e = tile.range.begin; e < tile.range.end; ++e) {
      if (!is_new_mark(marks[e])) continue;
      const Index right = near_mark(signal, marks, e + 1, 1);
      const Index left = near_mark(signal, marks, e - 1, -1);
      if (right != kTooFar) finish(e + 1, right);
      if (left != kTooFar && (left < 0 || !is_new_mark(marks[left]))) finish(left + 1, e);
    }
  });
}

// A signal of which a block finishes the samples from `first` on: others may change the cut before.
template <class Signal>
struct SignalFrom : Signal {
  Index first;
  int cut_before;
  JAXTV_DEVICE SignalFrom(const Signal& signal, Index first, int cut_before)
      : Signal(signal), first(first), cut_before(cut_before) {}
  JAXTV_DEVICE int cut(Index e) const { return e < first ? cut_before : Signal::cut(e); }
  JAXTV_DEVICE bool starts(Index i) const { return i == 0 || cut(i - 1) != 0; }
};

// The first thread that has found a cut with a long region, and on which sides.
struct FirstFound {
  int thread = kThreads, left = 0, right = 0;
  template <class F>
  JAXTV_DEVICE FirstFound each(F f) const {
    return {f(thread), f(left), f(right)};
  }
};
JAXTV_DEVICE FirstFound join(const FirstFound& a, const FirstFound& b) {
  return a.thread <= b.thread ? a : b;
}

// near_mark by a block, however far.
template <class Signal>
JAXTV_DEVICE Index find_mark(const Signal& signal, const signed char* marks, Index e,
                             int direction) {
  for (;; e += direction * kThreads) {
    const Index mine = e + direction * Index(threadIdx.x);
    const bool stop = mine < 0 || mine + 1 >= signal.n || marks[mine] != 0;
    FirstFound total;
    Group::scan<false>(Arena{}, stop ? FirstFound{int(threadIdx.x), 0, 0} : FirstFound{}, total);
    if (total.thread < kThreads)
      return min_of(max_of(e + direction * total.thread, Index(-1)), signal.n - 1);
  }
}

// Finishes the region of the samples first .. last by a block.
template <class Signal>
JAXTV_DEVICE void finish_region(const Signal& signal, const signed char* marks, Index first,
                                Index last) {
  const Index each = (last - first + kThreads) / kThreads;
  const Index begin = min_of(first + Index(threadIdx.x) * each, last + 1);
  const SampleRange<Index> range{begin, min_of(begin + each, last + 1)};
  const SignalFrom<Signal> region(signal, first, first > 0 ? cut_of_mark(marks[first - 1]) : 0);
  // As many passes as it takes: the exponent range of the data bounds them.
  double value = update_means<double, Group>(region, range);
  NewCuts<Index> unused;
  while (decomposition_pass<Group>(region, range, value, unused)) {
  }
}

// Reads marks, samples and cuts. Writes the cuts in long regions, a block each.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_finish_long(Job<Sample> job, int passes) {
  for_tiles(job, Wanted::kCut, passes, [&](TileOfSignal<Sample>& tile) {
    const auto& signal = tile.signal;
    const signed char* marks = job.marks + (signal.cuts - job.cuts);
    const Index stop = min_of(tile.first + kTile, signal.n - 1);
    for (Index base = tile.first; base < stop; base += kThreads) {
      const Index mine = base + Index(threadIdx.x);
      const bool is_new = mine < stop && is_new_mark(marks[mine]);
      const int right = is_new && near_mark(signal, marks, mine + 1, 1) == kTooFar;
      const int left = is_new && near_mark(signal, marks, mine - 1, -1) == kTooFar;
      const int thread = int(threadIdx.x);
      int next = -1;
      for (;;) {  // the cuts with long regions among these edges, one after the other
        const bool waiting = (left | right) != 0 && thread > next;
        FirstFound total;
        Group::scan<false>(Arena{}, waiting ? FirstFound{thread, left, right} : FirstFound{},
                           total);
        next = total.thread;
        if (next == kThreads) break;
        const Index e = base + next;
        if (total.right) finish_region(signal, marks, e + 1, find_mark(signal, marks, e + 1, 1));
        if (!total.left) continue;
        const Index end = find_mark(signal, marks, e - 1, -1);
        if (end < 0 || !is_new_mark(marks[end])) finish_region(signal, marks, end + 1, e);
      }
    }
  });
}

// Reads cuts and values. Writes cuts without ties between neighbouring regions.
template <class Sample>
__global__ void __launch_bounds__(kThreads)
    grid_join_ties(Job<Sample> job, Wanted wanted, int pass) {
  for_tiles(job, wanted, pass, [&](TileOfSignal<Sample>& tile) {
    const bool starts = tile.has_samples() && tile.starts(tile.range.begin);
    const double value = left_value(tile);
    __syncthreads();
    if (join_ties_in_range(tile.signal, tile.range, value, starts, tile.scale()))
      tile.progress->has_joined[pass + 1] = 1;
  });
}

// Reads samples and cuts. Writes cuts without any ties, by one thread per signal that still has
// some.
template <class Sample>
__global__ void __launch_bounds__(kScanThreads) grid_finish_ties(Job<Sample> job) {
  for (std::int64_t i = blockIdx.x; i < job.shape.signals(); i += gridDim.x) {
    TileOfSignal<Sample> tile(job, i * job.tiles);
    if (!tile.progress->has_joined[kMostTiePasses] || threadIdx.x != 0) continue;
    tile.scale_down();
    const auto& signal = tile.signal;
    while (fuse_ties(signal.n, SampleAccessor{signal}, WeightAccessor{signal}, signal.cuts,
                     tile.scale())) {
    }
  }
}

// Reads cuts, values and, between weights 0, samples. Writes y; NaN where there is no solution.
template <class Sample>
__global__ void __launch_bounds__(kThreads) grid_write(Job<Sample> job) {
  for_tiles(job, Wanted::kAll, 0, [&](TileOfSignal<Sample>& tile) {
    if (tile.progress->bounds.invalid) {
      for (Index i = tile.range.begin; i < tile.range.end; ++i)
        tile.y[i * tile.signal.stride] = kNaN<Compute<Sample>>;
      return;
    }
    write_solution<Compute<Sample>>(tile.signal, tile.range, left_value(tile), tile.y);
  });
}

// ---- launching ----

// Launches kernel after kernel until one goes wrong.
template <class Sample>
struct Launcher {
  cudaStream_t stream;
  Job<Sample> job;
  Status bad = nullptr;

  template <class Kernel, class... Arguments>
  void for_tiles(const char* name, Kernel kernel, Arguments... arguments) {
    if (!bad)
      bad = launch(name, kernel, job.shape.signals() * job.tiles, kThreads, Group::kScratchBytes,
                   stream, job, arguments...);
  }
  template <class Kernel, class... Arguments>
  void for_signals(const char* name, Kernel kernel, Arguments... arguments) {
    if (!bad)
      bad = launch(name, kernel, job.shape.signals(), kScanThreads,
                   ThreadGroup<kScanThreads / kWarp>::kScratchBytes, stream, job, arguments...);
  }

  void sums(Wanted wanted, int pass) { for_tiles("grid_sums", grid_sums<Sample>, wanted, pass); }
  template <class Value>
  void means(Wanted wanted, int pass) {
    for_signals("grid_scan", grid_scan<Sample, RegionSum, true>, wanted, pass);
    for_tiles("grid_means", grid_means<Sample, Value>, wanted, pass);
    for_signals("grid_scan", grid_scan<Sample, LastRegion, false>, wanted, pass);
  }
  void cut(int pass, bool last_pass) {
    const Wanted wanted = Wanted::kCut;
    means<double>(wanted, pass);
    for_tiles("grid_messages", grid_messages<Sample>, wanted, pass);
    for_signals("grid_scan", grid_scan<Sample, Clamp, false>, wanted, pass);
    for_tiles("grid_labels", grid_labels<Sample>, wanted, pass);
    for_signals("grid_scan", grid_scan<Sample, Label, true>, wanted, pass);
    for_tiles("grid_cut", grid_cut<Sample>, pass, last_pass);
  }
  void run() {
    const int passes = passes_of(job.shape.n);
    for_tiles("grid_bounds", grid_bounds<Sample>);
    for_signals("grid_scan_bounds", grid_scan_bounds<Sample>);
    sums(Wanted::kCut, 0);
    for (int pass = 0; pass < passes; ++pass) cut(pass, pass + 1 == passes);
    for_tiles("grid_finish_short", grid_finish_short<Sample>, passes);
    for_tiles("grid_finish_long", grid_finish_long<Sample>, passes);
    for (int pass = 0; pass < kMostTiePasses; ++pass) {
      sums(Wanted::kJoined, pass);
      means<double>(Wanted::kJoined, pass);
      for_tiles("grid_join_ties", grid_join_ties<Sample>, Wanted::kJoined, pass);
    }
    for_signals("grid_finish_ties", grid_finish_ties<Sample>);
    sums(Wanted::kAll, 0);
    means<Compute<Sample>>(Wanted::kAll, 0);
    for_tiles("grid_write", grid_write<Sample>);
  }
};

}  // namespace

template <class Sample>
Status prox_grid(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op, void* scratch) {
  const std::int64_t signals = shape.signals(), samples = signals * shape.n,
                     tiles = grid_tiles(shape.n);
  double* region_values = static_cast<double*>(scratch);
  SignalProgress* progress = reinterpret_cast<SignalProgress*>(region_values + samples);
  TileSummary* summaries = reinterpret_cast<TileSummary*>(progress + signals);
  signed char* cuts = reinterpret_cast<signed char*>(summaries + signals * tiles);
  Launcher<Sample> launcher{.stream = stream,
                            .job = {.shape = shape,
                                    .op = op,
                                    .tiles = tiles,
                                    .region_values = region_values,
                                    .progress = progress,
                                    .summaries = summaries,
                                    .cuts = cuts,
                                    .marks = cuts + samples}};
  launcher.run();
  return launcher.bad;
}

#define JAXTV_INSTANTIATE(Sample) \
  template Status prox_grid(cudaStream_t, const Shape&, const Prox<Sample>&, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
