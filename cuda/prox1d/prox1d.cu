// Exact 1D prox. Kernels by shape (route_of):
//
//   rows      one thread per signal; the signals of a tile are columns of shared memory
//   serial    one thread per signal in global memory: TautString on signals that fit nowhere
//   windows   a few threads per float32 signal of up to kLongestInSharedMemory samples
//   warp, block, wide   decomposition with a warp or a block per signal: in shared memory up to
//             kLongestInSharedMemory samples, in global memory beyond
//   grid      decomposition of one long signal by the whole device (grid.cu)
//   newton    projected Newton (newton.cu)
//
// All convert half types as they load and store.
#include "block/tiles.cuh"
#include "half.cuh"
#include "jaxtv/gap.hpp"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"
#include "prox1d/thread_per_signal.cuh"
#include "prox1d/thread_windows.cuh"

namespace jaxtv::cuda {
namespace {

// ---- one thread per signal ----

// A block owns a tile of whole signals; a thread solves one signal, in its column of the tile.
// Reads x and, with kPerEdge, the weights of the tile, by all threads, coalesced.
// Writes y of the tile, by all threads, coalesced.
template <class Sample, bool kPerEdge>
__global__ void __launch_bounds__(tuning::ThreadPerSignal::kBlockThreads,
                                  tuning::ThreadPerSignal::kBlocksPerMultiprocessor)
    prox_rows(Tiling tiling, Prox<Sample> op) {
  using T = Compute<Sample>;
  Arena arena;
  const Shared<T> samples = arena.take<T>(tiling.elements());
  const Shared<T> weights = arena.take<T>(kPerEdge ? tiling.elements() : 0);
  const Cuts cuts(arena, tiling.elements());
  const Shape& shape = tiling.shape;
  const int n = int(shape.n), lane = threadIdx.x;
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Tile tile(tiling, std::uint32_t(index));
    const Sample* source = op.x + tile.outer * shape.n * shape.inner + tile.inner;
    const T* edges = op.w + (kPerEdge ? tile.outer * (shape.n - 1) * shape.inner + tile.inner : 0);
    Sample* target = op.y + (source - op.x);
    move_whole(
        tiling, tile, [&](const TileSample& p) -> T { return source[p.offset]; },
        [&](const TileSample& p, T value) { samples[p.element] = value; });
    if constexpr (kPerEdge)
      move_whole(
          tiling, tile, [&](const TileSample& p) { return p.row + 1 < n ? edges[p.edge] : T(0); },
          [&](const TileSample& p, T value) { weights[p.element] = value; });
    cuts.clear();
    __syncthreads();
    if (lane < tiling.lanes() && tile.inside(tiling, lane)) {
      const Column<T> x{samples + lane, tiling.pitch};
      const Column<signed char> column_cuts{cuts.each + lane, tiling.pitch};
      const auto reload = [&] {
        const std::int64_t first = tile.offset(tiling, lane);
        for (int k = 0; k < n; ++k) x[k] = T(source[first + k * shape.inner]);
      };
      if constexpr (kPerEdge)
        solve_column<T, tuning::RowsPerRound::kProx>(n, x, Column<T>{weights + lane, tiling.pitch},
                                                     column_cuts, reload);
      else
        solve_column<T, tuning::RowsPerRound::kProx>(
            n, x, Uniform<T>{op.w[tile.signal(tiling, lane)]}, column_cuts, reload);
    }
    __syncthreads();
    move_whole(
        tiling, tile, [&](const TileSample& p) -> T { return samples[p.element]; },
        [&](const TileSample& p, T value) { target[p.offset] = value; });
    __syncthreads();
  }
}

// A signal in global memory.
template <class Sample>
struct SignalInMemory {
  Strided<const Sample> x;
  Strided<const Compute<Sample>> w;  // stride 0: one λ
  Strided<Sample> y;
  JAXTV_DEVICE SignalInMemory(const Shape& shape, const Prox<Sample>& op, std::int64_t signal) {
    const std::int64_t outer = signal / shape.inner, inner = signal - outer * shape.inner;
    const std::int64_t first = outer * shape.n * shape.inner + inner;
    x = {op.x + first, shape.inner};
    y = {op.y + first, shape.inner};
    w = {op.per_edge ? op.w + outer * (shape.n - 1) * shape.inner + inner : op.w + signal,
         op.per_edge ? shape.inner : 0};
  }
};

constexpr int kSerialThreads = tuning::SerialInGlobalMemory::kBlockThreads;

// A thread owns a signal; blocks and warps share nothing.
// Reads x and the weights in global memory, many times.
// Writes y; `cuts` is scratch of n bytes per signal.
template <class Sample>
__global__ void __launch_bounds__(kSerialThreads,
                                  tuning::SerialInGlobalMemory::kBlocksPerMultiprocessor)
    prox_serial(Shape shape, Prox<Sample> op, signed char* cuts) {
  const std::int64_t signals = shape.signals(), step = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < signals;
       i += step) {
    const SignalInMemory<Sample> signal(shape, op, i);
    prox_row<Compute<Sample>>(shape.n, signal.x, signal.w, cuts + i * shape.n, signal.y);
  }
}

// ---- a warp or a block per signal ----

// Shared memory of the groups of a block and their signals.
template <class T, int kWarps, int kSignals = kGroupSignals<kWarps>>
struct GroupMemory {
  int edges;
  Shared<double> region_values;
  Shared<T> x, w;
  Shared<signed char> cuts;
  JAXTV_DEVICE GroupMemory(int n, bool per_edge) : edges(per_edge ? n : 1) {
    const int group = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
    Arena arena;
    arena.take<RegionSum>(kWarps == 1 ? 0 : kWarps);  // for scans
    region_values = arena.take<double>(kSignals * n) + group * n;
    x = arena.take<T>(kSignals * n) + group * n;
    w = arena.take<T>(kSignals * edges) + group * edges;
    cuts = arena.take<signed char>(kSignals * n) + group * n;
  }
  static std::size_t bytes(std::int64_t n, bool per_edge) {
    return ThreadGroup<kWarps>::kScratchBytes +
           kSignals * (n * (sizeof(double) + sizeof(T) + 1) + (per_edge ? n : 1) * sizeof(T));
  }
};

// One signal by a group. kUniform: known to have one λ.
template <bool kUniform, class Sample, int kWarps, int kSignals, class T = Compute<Sample>>
JAXTV_DEVICE void solve_in(const GroupMemory<T, kWarps, kSignals>& memory, const Shape& shape,
                           const Prox<Sample>& op, std::int64_t number) {
  using Group = ThreadGroup<kWarps>;
  const int n = int(shape.n);
  const SignalInMemory<Sample> signal(shape, op, number);
  const auto solve_with = [&](auto weights, int weight_stride) {
    using State =
        SignalState<int, Shared<T>, decltype(weights), Shared<signed char>, Shared<double>>;
    Group::sync();
    solve<T, Group, int>(State{n, held(memory.x), 1, weights, weight_stride, held(memory.cuts),
                               held(memory.region_values), 1.0},
                         memory.x);
  };
  for (int k = Group::thread(); k < n; k += Group::kThreads) memory.x[k] = signal.x[k];
  if constexpr (kUniform) {
    solve_with(Uniform<T>{signal.w[0]}, 0);
  } else {
    for (int k = Group::thread(); k < memory.edges; k += Group::kThreads)
      if (k == 0 || k + 1 < n) memory.w[k] = signal.w[k];
    solve_with(memory.w, op.per_edge ? 1 : 0);
  }
  Group::sync();
  for (int k = Group::thread(); k < n; k += Group::kThreads) signal.y[k] = T(memory.x[k]);
  Group::sync();
}

// A group of kWarps warps owns a signal of up to kLongestInSharedMemory samples, a thread a range
// of it. Several groups share a block where a group is one warp. Reads x and the weights once, into
// shared memory. Writes y once, from there.
template <class Sample, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>,
                                  tuning::GroupPerSignal::kBlocksPerMultiprocessor)
    prox_group(Shape shape, Prox<Sample> op) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  const int group = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const GroupMemory<Compute<Sample>, kWarps> memory(int(shape.n), op.per_edge);
  const std::int64_t signals = shape.signals(), step = std::int64_t(gridDim.x) * kSignals;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kSignals + group; i < signals; i += step)
    solve_in<false>(memory, shape, op, i);
}

// ---- some threads per signal, some signals per block ----

constexpr int kWindowsWarps = tuning::ThreadWindows::kWarps;
constexpr int kWindowsThreads = kWindowsWarps * kWarp;

// How a block covers neighbouring signals.
struct WindowsPlan {
  int n;        // samples of a signal
  int windows;  // threads of a signal
  int signals;  // of a block at once
  // One more for the fence.
  JAXTV_HD int pitch() const { return (n + 1) | 1; }
  explicit WindowsPlan(std::int64_t length)
      : n(int(length)), windows((n + kWindow - 1) / kWindow), signals(kWindowsThreads / windows) {}
  // The groups that do what remains need less.
  std::size_t bytes(bool per_edge) const {
    return std::size_t(signals) * pitch() * ((per_edge ? 3 : 2) * sizeof(float) + 1) +
           kWindowsThreads * sizeof(WindowCuts);
  }
};

// Calls f(signal of the block, sample, its offset in memory, that of the edge after it) for `count`
// signals from `first` on; neighbouring threads get neighbours in memory.
template <class F>
JAXTV_DEVICE void for_signals(const Shape& shape, std::int64_t first, int count, F f) {
  const int n = int(shape.n), thread = threadIdx.x;
  if (shape.inner == 1) {
    for (int g = 0; g < count; ++g) {
      const std::int64_t sample = (first + g) * n, edge = sample - (first + g);
#pragma unroll 4
      for (int k = thread; k < n; k += kWindowsThreads) f(g, k, sample + k, edge + k);
    }
    return;
  }
  const int step = kWindowsThreads / count, start = thread / count, g = thread - start * count;
  if (start >= step) return;
  const std::int64_t outer = (first + g) / shape.inner, inner = first + g - outer * shape.inner;
  const std::int64_t sample = outer * n * shape.inner + inner, edge = sample - outer * shape.inner;
#pragma unroll 4
  for (int k = start; k < n; k += step) f(g, k, sample + k * shape.inner, edge + k * shape.inner);
}

// A block owns plan.signals neighbouring signals, a thread a window of one of them. A warp solves
// what no certificate was found for, a signal at a time.
// Reads x and the weights once, into shared memory, and again for those.
// Writes y once, from there.
template <class Sample, bool kPerEdge>
__global__ void __launch_bounds__(kWindowsThreads, tuning::ThreadWindows::kBlocksPerMultiprocessor)
    prox_windows(Shape shape, Prox<Sample> op, WindowsPlan plan) {
  const int pitch = plan.pitch(), elements = plan.signals * pitch;
  Arena arena;
  const Shared<float> x = arena.take<float>(elements);
  const Shared<float> y = arena.take<float>(elements);
  const Shared<float> w = arena.take<float>(kPerEdge ? elements : 0);
  const Shared<WindowCuts> found = arena.take<WindowCuts>(kWindowsThreads);
  const Cuts cuts(arena, elements);
  const int mine = int(threadIdx.x) / plan.windows, at = mine * pitch;  // this thread's signal
  const ThreadWindow window(plan.n, int(threadIdx.x) - mine * plan.windows);
  const std::int64_t signals = shape.signals(), step = std::int64_t(gridDim.x) * plan.signals;
  for (std::int64_t first = std::int64_t(blockIdx.x) * plan.signals; first < signals;
       first += step) {
    const int count = int(min_of<std::int64_t>(plan.signals, signals - first));
    for_signals(shape, first, count, [&](int g, int k, std::int64_t sample, std::int64_t edge) {
      x[g * pitch + k] = op.x[sample];
      if (kPerEdge && k + 1 < plan.n) w[g * pitch + k] = op.w[edge];
    });
    cuts.clear();
    __syncthreads();
    const auto weights = [&] {
      if constexpr (kPerEdge)
        return w + at;
      else
        return mine < count ? op.w[first + mine] : 0.0f;
    }();
    // Bit g: whether a thread of signal g says so.
    const auto signals_where = [&](bool bad) {
      unsigned bits = 0;
      for (int g = 0; g < count; ++g) bits |= unsigned(__syncthreads_or(bad && mine == g)) << g;
      return bits;
    };
    WindowCuts own;
    WindowSegments segments;
    const bool fences = !kPerEdge && mine < count && window.is_last();
    float last = 0;
    if constexpr (!kPerEdge) {
      if (fences) last = raise_fence(plan.n, 1, x + at, weights);
      __syncthreads();
    }
    bool solved = mine >= count || find_window(window, x + at, weights, cuts.each + at, own);
    found[threadIdx.x] = own;
    __syncthreads();
    if (fences) x[at + plan.n - 1] = last;
    if (mine < count) segments = WindowSegments(window, found + mine * plan.windows);
    unsigned unsolved = signals_where(!(solved && segments.known()));
    if (mine < count && !(unsolved >> mine & 1))
      solved = certify_window(window, segments, x + at, weights, cuts.each + at, y + at);
    unsolved |= signals_where(!solved);
    if (mine < count && !(unsolved >> mine & 1))
      write_window(window, x + at, cuts.each + at, y + at, segments.start);
    __syncthreads();
    for_signals(shape, first, count, [&](int g, int k, std::int64_t sample, std::int64_t) {
      if (!(unsolved >> g & 1)) op.y[sample] = float(x[g * pitch + k]);
    });
    __syncthreads();
    const GroupMemory<float, 1, kWindowsWarps> memory(plan.n, kPerEdge);
    for (int g = int(threadIdx.x) / kWarp; g < count; g += kWindowsWarps)
      if (unsolved >> g & 1) solve_in<!kPerEdge>(memory, shape, op, first + g);
    __syncthreads();
  }
}

// A block owns a signal of any length, a thread a range of it.
// Reads x and the weights in global memory, in every pass.
// Writes y; region_values (8 n bytes) and cuts (n bytes) of each signal are scratch.
template <class Sample, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>)
    prox_wide(Shape shape, Prox<Sample> op, double* region_values, signed char* cuts) {
  using T = Compute<Sample>;
  Arena arena;
  arena.take<RegionSum>(kWarps);
  for (std::int64_t i = blockIdx.x; i < shape.signals(); i += gridDim.x) {
    const SignalInMemory<Sample> signal(shape, op, i);
    using State = SignalState<std::int64_t, const Sample*, const T*, signed char*, double*>;
    solve<T, ThreadGroup<kWarps>, std::int64_t>(
        State{shape.n, signal.x.data, shape.inner, signal.w.data, signal.w.stride,
              cuts + i * shape.n, region_values + i * shape.n, 1.0},
        signal.y.data);
    __syncthreads();
  }
}

// ---- the gap ----

struct Sum {
  double value = 0;
  template <class F>
  JAXTV_DEVICE Sum each(F f) const {
    return {f(value)};
  }
};
JAXTV_DEVICE Sum join(const Sum& a, const Sum& b) { return {a.value + b.value}; }

// jaxtv/gap.hpp by a group, at `factor` of the signal's size.
template <class Group, class T>
JAXTV_DEVICE double gap_at(double factor, std::int64_t n, const SignalInMemory<T>& signal) {
  const Scaled x{signal.x, factor}, w{signal.w, factor};
  const Scaled y{signal.y, factor};  // of its own type: its samples are not const
  const std::int64_t each = (n + Group::kThreads - 1) / Group::kThreads;
  const std::int64_t begin = min_of(Group::thread() * each, n), end = min_of(begin + each, n);
  Sum dual_sum;
  for (std::int64_t k = begin; k < end; ++k) dual_sum.value += y[k] - x[k];
  dual_sum = Group::template scan<false>(Arena{}, dual_sum);
  const auto dual = [&](std::int64_t e) { return max_of(-w[e], min_of(w[e], dual_sum.value)); };
  double last = begin > 0 && begin < end ? dual(begin - 1) : 0;
  Sum gap, total;
  for (std::int64_t k = begin; k < end; ++k) {
    dual_sum.value += y[k] - x[k];
    double u = 0;
    if (k + 1 < n) {
      const double jump = y[k + 1] - y[k];
      u = dual(k);
      if (jump != 0) gap.value += (w[k] - (jump > 0 ? u : -u)) * abs_of(jump);
    }
    const double miss = y[k] - (x[k] - last + u);
    gap.value += 0.5 * miss * miss;
    last = u;
  }
  Group::template scan<false>(Arena{}, gap, total);
  return total.value;
}

// A group of kWarps warps owns a signal, a thread a range of it.
// Reads x, y and the weights.
// Writes the gap of each signal; `exact`: also what exact solvers report.
template <class T, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>) gaps(Shape shape, Prox<T> op, bool exact) {
  using Group = ThreadGroup<kWarps>;
  Arena arena;
  arena.take<RegionSum>(kWarps == 1 ? 0 : kWarps);
  constexpr int kSignals = kGroupSignals<kWarps>;
  const int group = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const std::int64_t signals = shape.signals(), step = std::int64_t(gridDim.x) * kSignals;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kSignals + group; i < signals; i += step) {
    const SignalInMemory<T> signal(shape, op, i);
    double gap = gap_at<Group>(1, shape.n, signal);
    if (!is_finite(gap))  // else inf - inf
      gap = gap_at<Group>(kSolverScale, shape.n, signal) / kSolverScale / kSolverScale;
    if (Group::thread() == 0) {
      op.gap[i] = T(gap);
      if (!exact) continue;
      const bool solved = T(signal.y[0]) == T(signal.y[0]);  // else all of it is NaN
      op.converged[i] = solved;
      op.iterations[i] = solved ? 1 : 0;
    }
  }
}

// ---- which kernel ----

enum class Route { kRows, kSerial, kWindows, kWarp, kBlock, kWide, kGrid, kNewton };

// T: what is computed in.
template <class T>
Route route_of(const Shape& shape, Method method, const Tiling& tiling) {
  if (method == Method::kProjectedNewton) return Route::kNewton;
  const bool fits = tiling.chunks == 1;
  if (method == Method::kTautString) return fits ? Route::kRows : Route::kSerial;
  const bool middle =
      shape.n > Crossovers::kLongestForWarp && shape.n <= Crossovers::kLongestInSharedMemory;
  if (method == Method::kDirect && middle && sizeof(T) == 4) return Route::kWindows;
  const bool many =
      shape.n <= Crossovers::kLongestForThreads ||
      (shape.signals() >= Crossovers::kManySignals && tiling.lanes() >= Crossovers::kFewestLanes);
  if (method == Method::kDirect && fits && many) return Route::kRows;
  if (shape.n <= Crossovers::kLongestForWarp) return Route::kWarp;
  if (shape.n <= Crossovers::kLongestInSharedMemory) return Route::kBlock;
  return for_grid(shape) ? Route::kGrid : Route::kWide;
}

template <class Sample, int kWarps>
Status run_group(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  return launch("prox_group", prox_group<Sample, kWarps>, ceil_div(shape.signals(), kSignals),
                kGroupThreads<kWarps>,
                GroupMemory<Compute<Sample>, kWarps>::bytes(shape.n, op.per_edge), stream, shape,
                op);
}

template <class Sample>
Status run_windows(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op) {
  const WindowsPlan plan(shape.n);
  return launch("prox_windows",
                op.per_edge ? prox_windows<Sample, true> : prox_windows<Sample, false>,
                ceil_div(shape.signals(), plan.signals), kWindowsThreads, plan.bytes(op.per_edge),
                stream, shape, op, plan);
}

template <class Sample>
Status run_rows(cudaStream_t stream, const Tiling& tiling, const Prox<Sample>& op) {
  if (Status bad = check(tiling)) return bad;
  const std::size_t bytes =
      tiling.elements() * std::size_t(bytes_per_sample<Compute<Sample>>(op.per_edge));
  return launch("prox_rows", op.per_edge ? prox_rows<Sample, true> : prox_rows<Sample, false>,
                tiling.tiles, tiling.threads(), bytes, stream, tiling, op);
}

// The kernels that work in global memory.
template <class Sample>
Status run_long(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op,
                const Solver& solver, Route route, void* scratch) {
  const std::int64_t signals = shape.signals();
  double* region_values = static_cast<double*>(scratch);
  switch (route) {
    case Route::kNewton:
      return prox_newton(stream, shape, op, solver, scratch);
    case Route::kSerial:
      return launch("prox_serial", prox_serial<Sample>, ceil_div(signals, kSerialThreads),
                    kSerialThreads, 0, stream, shape, op, static_cast<signed char*>(scratch));
    case Route::kWide:
      return launch("prox_wide", prox_wide<Sample, kWideWarps>, signals, kWideWarps * kWarp,
                    ThreadGroup<kWideWarps>::kScratchBytes, stream, shape, op, region_values,
                    reinterpret_cast<signed char*>(region_values + signals * shape.n));
    default:
      return prox_grid(stream, shape, op, scratch);
  }
}

template <class Sample>
Status run(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op, const Solver& solver,
           void* scratch) {
  using T = Compute<Sample>;
  const Tiling tiling = tiles_of_signals(shape, bytes_per_sample<T>(op.per_edge));
  const Route route = route_of<T>(shape, solver.method, tiling);
  switch (route) {
    case Route::kRows:
      return run_rows(stream, tiling, op);
    case Route::kWindows:
      if constexpr (sizeof(T) == 4) return run_windows(stream, shape, op);
      return nullptr;
    case Route::kWarp:
      return run_group<Sample, 1>(stream, shape, op);
    case Route::kBlock:
      return run_group<Sample, kBlockWarps>(stream, shape, op);
    default:
      return run_long(stream, shape, op, solver, route, scratch);
  }
}

template <class T, int kWarps>
Status run_gaps(cudaStream_t stream, const Shape& shape, const Prox<T>& op, bool exact) {
  return launch("gaps", gaps<T, kWarps>, ceil_div(shape.signals(), kGroupSignals<kWarps>),
                kGroupThreads<kWarps>, ThreadGroup<kWarps>::kScratchBytes, stream, shape, op,
                exact);
}

}  // namespace

template <class T>
bool one_thread_per_signal(const Shape& shape, Method method, bool per_edge) {
  return route_of<T>(shape, method, tiles_of_signals(shape, bytes_per_sample<T>(per_edge))) ==
         Route::kRows;
}
template bool one_thread_per_signal<float>(const Shape&, Method, bool);
template bool one_thread_per_signal<double>(const Shape&, Method, bool);

template <class Sample>
Status prox1d(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op, const Solver& solver,
              void* scratch) {
  if (shape.signals() == 0 || shape.n == 0) return nullptr;
  if (Status bad = run(stream, shape, op, solver, scratch)) return bad;
  if constexpr (!kHalf<Sample>) {
    if (!op.gap) return nullptr;
    const bool exact = solver.method != Method::kProjectedNewton;
    return shape.n <= Crossovers::kLongestForWarp
               ? run_gaps<Sample, 1>(stream, shape, op, exact)
               : run_gaps<Sample, kWideWarps>(stream, shape, op, exact);
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(Sample) \
  template Status prox1d(cudaStream_t, const Shape&, const Prox<Sample>&, const Solver&, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
