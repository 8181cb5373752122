// Exact 1D prox. Kernels by shape (route_of):
//   rows    one thread per signal, the signals of a tile as columns of shared memory
//   (block/tiles.cuh) serial  one thread per signal in global memory: TautString on signals that
//   fit nowhere windows a few threads per float32 signal of up to kShortest samples
//   (thread_windows.cuh) warp, block, wide   decomposition with a warp or a block per signal, in
//   shared memory up to
//           kShortest samples, beyond that in global memory
//   grid    decomposition of one long signal by the whole device (grid.cu)
//   newton  projected Newton (newton.cu)
// All convert half types as they load and store.
#include "block/tiles.cuh"
#include "half.cuh"
#include "jaxtv/gap.hpp"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"
#include "prox1d/prox1d.hpp"
#include "prox1d/thread_per_signal.cuh"
#include "prox1d/thread_windows.cuh"

namespace jaxtv::cuda {
namespace {

// ---- one thread per signal ----

template <class D, bool kPerEdge>
__global__ void __launch_bounds__(128) prox_rows(Tiling t, Prox<D> op) {
  using T = Compute<D>;
  Arena arena;
  const Shared<T> rows = arena.take<T>(t.elements(0));
  const Shared<T> weights = arena.take<T>(kPerEdge ? t.elements(0) : 0);
  const Shared<signed char> sign = arena.take<signed char>(t.elements(0));
  const Shape& s = t.shape;
  const int n = int(s.n), lane = threadIdx.x;
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const D* source = op.x + tile.first * s.n * s.inner + tile.column;
    const T* edges = op.w + (kPerEdge ? tile.first * (s.n - 1) * s.inner + tile.column : 0);
    D* target = op.y + (source - op.x);
    move_whole(
        t, tile, [&](const Spot& p) -> T { return source[p.at]; },
        [&](const Spot& p, T value) { rows[p.element] = value; });
    if constexpr (kPerEdge)
      move_whole(
          t, tile, [&](const Spot& p) { return p.row + 1 < n ? edges[p.edge] : T(0); },
          [&](const Spot& p, T value) { weights[p.element] = value; });
    __syncthreads();
    if (lane < t.lanes() && tile.inside(t, lane)) {
      const Column<T> x{rows + lane, t.pitch};
      const Column<signed char> cuts{sign + lane, t.pitch};
      const auto reload = [&] {
        const std::int64_t first = tile.offset(t, lane);
        for (int k = 0; k < n; ++k) x[k] = T(source[first + k * s.inner]);
      };
      if constexpr (kPerEdge)
        solve_column<T>(n, x, Column<T>{weights + lane, t.pitch}, cuts, reload);
      else
        solve_column<T>(n, x, Uniform<T>{op.w[tile.signal(t, lane)]}, cuts, reload);
    }
    __syncthreads();
    move_whole(
        t, tile, [&](const Spot& p) -> T { return rows[p.element]; },
        [&](const Spot& p, T value) { target[p.at] = value; });
    __syncthreads();
  }
}

// A signal in global memory.
template <class D>
struct Place {
  Strided<const D> x;
  Strided<const Compute<D>> w;  // stride 0: one λ
  Strided<D> y;
  JAXTV_DEVICE Place(const Shape& s, const Prox<D>& op, std::int64_t signal) {
    const std::int64_t outer = signal / s.inner, inner = signal - outer * s.inner;
    const std::int64_t at = outer * s.n * s.inner + inner;
    x = {op.x + at, s.inner};
    y = {op.y + at, s.inner};
    w = {op.per_edge ? op.w + outer * (s.n - 1) * s.inner + inner : op.w + signal,
         op.per_edge ? s.inner : 0};
  }
};

constexpr int kSerialThreads = 64;

template <class D>
__global__ void __launch_bounds__(kSerialThreads)
    prox_serial(Shape s, Prox<D> op, signed char* sign) {
  const std::int64_t signals = s.signals(), step = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < signals;
       i += step) {
    const Place<D> p(s, op, i);
    prox_row<Compute<D>>(s.n, p.x, p.w, sign + i * s.n, p.y);
  }
}

// ---- a warp or a block per signal ----

constexpr int kRounds = 64;  // then one thread finishes

// The cuts. d.sign is written from scratch.
template <class G, class I, class D>
JAXTV_DEVICE void find_cuts(const D& d, Range<I> r, double scale) {
  start_cuts(d, r);
  G::sync();
  double c = update<double, G>(d, r);
  int round = 0;
#pragma unroll 1
  while (round < kRounds && split<G>(d, r, c)) ++round;
  if (round == kRounds) {
    if (G::thread() == 0) refine(I(0), d.n, d.n, Samples{d}, Bars{d}, d.sign);
    G::sync();
    c = update<double, G>(d, r);
  }
#pragma unroll 1
  while (join_ties<G>(d, r, c, scale)) c = update<double, G>(d, r);
}

template <class T, class G, class I, class D, class Y>
JAXTV_DEVICE void solve(D d, Y y) {
  const I each = ((d.n + G::kThreads - 1) / G::kThreads) | 1;  // odd: different banks
  const I begin = min_of(I(G::thread()) * each, d.n);
  const Range<I> r{begin, min_of(begin + each, d.n)};
  Bounds b;
  G::template scan<false>(Arena{}, bounds<T>(d, r), b);
  if (b.bad) {
    for (I i = r.begin; i < r.end; ++i) y[i * d.stride] = kNaN<T>;
    return;
  }
  if (sizeof(T) == 8 && b.scale() >= kSolverLimit) d.factor = kSolverScale;
  find_cuts<G>(d, r, b.scale() * d.factor);
  spread<T>(d, r, update<T, G>(d, r), y);
}

// Shared memory of the groups of a block and their signals.
template <class T, int kWarps, int kSignals = kGroupSignals<kWarps>>
struct GroupMemory {
  int edges;
  Shared<double> c;
  Shared<T> x, w;
  Shared<signed char> sign;
  JAXTV_DEVICE GroupMemory(int n, bool per_edge) : edges(per_edge ? n : 1) {
    const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
    Arena arena;
    arena.take<Run>(kWarps == 1 ? 0 : kWarps);  // for scans
    c = arena.take<double>(kSignals * n) + mine * n;
    x = arena.take<T>(kSignals * n) + mine * n;
    w = arena.take<T>(kSignals * edges) + mine * edges;
    sign = arena.take<signed char>(kSignals * n) + mine * n;
  }
  static std::size_t bytes(std::int64_t n, bool per_edge) {
    return Group<kWarps>::kScratch +
           kSignals * (n * (sizeof(double) + sizeof(T) + 1) + (per_edge ? n : 1) * sizeof(T));
  }
};

// One signal by a group. kUniform: known to have one λ.
template <bool kUniform, class D, int kWarps, int kSignals, class T = Compute<D>>
JAXTV_DEVICE void solve_in(const GroupMemory<T, kWarps, kSignals>& m, const Shape& s,
                           const Prox<D>& op, std::int64_t signal) {
  using G = Group<kWarps>;
  const int n = int(s.n);
  const Place<D> p(s, op, signal);
  const auto solve_with = [&](auto weights, int stride) {
    using C = Chain<int, Shared<T>, decltype(weights), Shared<signed char>, Shared<double>>;
    G::sync();
    solve<T, G, int>(C{n, m.x, 1, weights, stride, m.sign, m.c, 1.0}, m.x);
  };
  for (int k = G::thread(); k < n; k += G::kThreads) m.x[k] = p.x[k];
  if constexpr (kUniform) {
    solve_with(Uniform<T>{p.w[0]}, 0);
  } else {
    for (int k = G::thread(); k < m.edges; k += G::kThreads)
      if (k == 0 || k + 1 < n) m.w[k] = p.w[k];
    solve_with(m.w, op.per_edge ? 1 : 0);
  }
  G::sync();
  for (int k = G::thread(); k < n; k += G::kThreads) p.y[k] = T(m.x[k]);
  G::sync();
}

// n <= kShortest: all in shared memory.
template <class D, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>, 4) prox_group(Shape s, Prox<D> op) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const GroupMemory<Compute<D>, kWarps> memory(int(s.n), op.per_edge);
  const std::int64_t signals = s.signals(), step = std::int64_t(gridDim.x) * kSignals;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kSignals + mine; i < signals; i += step)
    solve_in<false>(memory, s, op, i);
}

// ---- some threads per signal, some signals per block ----

constexpr int kWindowsWarps = 2, kWindowsThreads = kWindowsWarps * kWarp;

// How a block covers neighbouring signals.
struct WindowsPlan {
  int n, windows, at_once;  // samples and windows of a signal, signals of a block
  JAXTV_HD int pitch() const { return n | 1; }
  explicit WindowsPlan(std::int64_t length)
      : n(int(length)), windows((n + kWindow - 1) / kWindow), at_once(kWindowsThreads / windows) {}
  // The groups that do what remains need less.
  std::size_t bytes(bool per_edge) const {
    return std::size_t(at_once) * pitch() * ((per_edge ? 3 : 2) * sizeof(float) + 1);
  }
};

// Calls f(signal of the block, sample, its place, that of the edge after it) for `count` signals
// from `first` on; neighbouring threads get neighbours in memory.
template <class F>
JAXTV_DEVICE void for_signals(const Shape& s, std::int64_t first, int count, F f) {
  const int n = int(s.n), thread = threadIdx.x;
  if (s.inner == 1) {
    for (int g = 0; g < count; ++g) {
      const std::int64_t at = (first + g) * n, edge = at - (first + g);
#pragma unroll 4
      for (int k = thread; k < n; k += kWindowsThreads) f(g, k, at + k, edge + k);
    }
    return;
  }
  const int step = kWindowsThreads / count, start = thread / count, g = thread - start * count;
  if (start >= step) return;
  const std::int64_t outer = (first + g) / s.inner, inner = first + g - outer * s.inner;
  const std::int64_t at = outer * n * s.inner + inner, edge = at - outer * s.inner;
#pragma unroll 4
  for (int k = start; k < n; k += step) f(g, k, at + k * s.inner, edge + k * s.inner);
}

// Eight blocks are more than shared memory lets in (six of n = 1024), but unasked ptxas spills.
template <class D, bool kPerEdge>
__global__ void __launch_bounds__(kWindowsThreads, 8)
    prox_windows(Shape s, Prox<D> op, WindowsPlan plan) {
  const int pitch = plan.pitch(), elements = plan.at_once * pitch;
  Arena arena;
  const Shared<float> x = arena.take<float>(elements);
  const Shared<float> y = arena.take<float>(elements);
  const Shared<float> w = arena.take<float>(kPerEdge ? elements : 0);
  const Shared<signed char> sign = arena.take<signed char>(elements);
  const int mine = int(threadIdx.x) / plan.windows, at = mine * pitch;
  const Window window(plan.n, int(threadIdx.x) - mine * plan.windows);
  const std::int64_t signals = s.signals(), step = std::int64_t(gridDim.x) * plan.at_once;
  for (std::int64_t first = std::int64_t(blockIdx.x) * plan.at_once; first < signals;
       first += step) {
    const int count = int(min_of<std::int64_t>(plan.at_once, signals - first));
    for_signals(s, first, count, [&](int g, int k, std::int64_t sample, std::int64_t edge) {
      x[g * pitch + k] = op.x[sample];
      if (kPerEdge && k + 1 < plan.n) w[g * pitch + k] = op.w[edge];
    });
    __syncthreads();
    const auto weights = [&] {
      if constexpr (kPerEdge)
        return w + at;
      else
        return mine < count ? op.w[first + mine] : 0.0f;
    }();
    bool solved = mine >= count || find_window(window, x + at, weights, sign + at);
    __syncthreads();
    int start = 0;
    if (mine < count)
      solved = solved && certify_window(window, x + at, weights, sign + at, y + at, start);
    unsigned unsolved = 0;  // bit g: of signal g
    for (int g = 0; g < count; ++g)
      unsolved |= unsigned(__syncthreads_or(!solved && mine == g)) << g;
    if (mine < count && !(unsolved >> mine & 1))
      spread_window(window, x + at, sign + at, y + at, start);
    __syncthreads();
    for_signals(s, first, count, [&](int g, int k, std::int64_t sample, std::int64_t) {
      if (!(unsolved >> g & 1)) op.y[sample] = float(x[g * pitch + k]);
    });
    __syncthreads();
    const GroupMemory<float, 1, kWindowsWarps> memory(plan.n, kPerEdge);
    for (int g = int(threadIdx.x) / kWarp; g < count; g += kWindowsWarps)
      if (unsolved >> g & 1) solve_in<!kPerEdge>(memory, s, op, first + g);
    __syncthreads();
  }
}

// Longer signals: state in global memory, c (8 n bytes) and sign (n bytes) of each signal.
template <class D, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>)
    prox_wide(Shape s, Prox<D> op, double* c, signed char* sign) {
  using T = Compute<D>;
  Arena arena;
  arena.take<Run>(kWarps);
  for (std::int64_t i = blockIdx.x; i < s.signals(); i += gridDim.x) {
    const Place<D> p(s, op, i);
    using C = Chain<std::int64_t, const D*, const T*, signed char*, double*>;
    solve<T, Group<kWarps>, std::int64_t>(
        C{s.n, p.x.data, s.inner, p.w.data, p.w.stride, sign + i * s.n, c + i * s.n, 1.0},
        p.y.data);
    __syncthreads();
  }
}

// ---- the gap ----

struct Sum {
  double v = 0;
  template <class F>
  JAXTV_DEVICE Sum each(F f) const {
    return {f(v)};
  }
};
JAXTV_DEVICE Sum join(const Sum& a, const Sum& b) { return {a.v + b.v}; }

// jaxtv/gap.hpp by a group, at `factor` of the signal's size.
template <class G, class T>
JAXTV_DEVICE double gap_at(double factor, std::int64_t n, const Place<T>& p) {
  const Scaled x{p.x, factor}, w{p.w, factor};
  const Scaled y{p.y, factor};  // of its own: not of const samples
  const std::int64_t each = (n + G::kThreads - 1) / G::kThreads;
  const std::int64_t begin = min_of(G::thread() * each, n), end = min_of(begin + each, n);
  Sum sum;
  for (std::int64_t k = begin; k < end; ++k) sum.v += y[k] - x[k];
  sum = G::template scan<false>(Arena{}, sum);
  const auto dual = [&](std::int64_t e) { return max_of(-w[e], min_of(w[e], sum.v)); };
  double last = begin > 0 && begin < end ? dual(begin - 1) : 0;
  Sum gap, total;
  for (std::int64_t k = begin; k < end; ++k) {
    sum.v += y[k] - x[k];
    double u = 0;
    if (k + 1 < n) {
      const double jump = y[k + 1] - y[k];
      u = dual(k);
      if (jump != 0) gap.v += (w[k] - (jump > 0 ? u : -u)) * abs_of(jump);
    }
    const double miss = y[k] - (x[k] - last + u);
    gap.v += 0.5 * miss * miss;
    last = u;
  }
  G::template scan<false>(Arena{}, gap, total);
  return total.v;
}

// The gap of each signal. `exact`: also what exact solvers report.
template <class T, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>) gaps(Shape s, Prox<T> op, bool exact) {
  using G = Group<kWarps>;
  Arena arena;
  arena.take<Run>(kWarps == 1 ? 0 : kWarps);
  constexpr int kSignals = kGroupSignals<kWarps>;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const std::int64_t signals = s.signals(), step = std::int64_t(gridDim.x) * kSignals;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kSignals + mine; i < signals; i += step) {
    const Place<T> p(s, op, i);
    double gap = gap_at<G>(1, s.n, p);
    if (!is_finite(gap))
      gap = gap_at<G>(kSolverScale, s.n, p) / kSolverScale / kSolverScale;  // else inf - inf
    if (G::thread() == 0) {
      op.gap[i] = T(gap);
      if (!exact) continue;
      const bool solved = T(p.y[0]) == T(p.y[0]);  // else all of it is NaN
      op.converged[i] = solved;
      op.iterations[i] = solved ? 1 : 0;
    }
  }
}

// ---- which kernel ----

// Direct's crossovers, estimated from SOLVERS.md's cost model for an H100; not measured.
constexpr std::int64_t kRowsAlways = 64;       // up to here one thread per signal is never slow
constexpr std::int64_t kManySignals = 4096;    // from here on it is the best throughput
constexpr int kFewestLanes = 8;                // of a tile, or threads idle
constexpr std::int64_t kGridShortest = 32768;  // the whole device for one signal
constexpr std::int64_t kGridSignals = 64;      // beyond that blocks fill the device

enum class Route { kRows, kSerial, kWindows, kWarp, kBlock, kWide, kGrid, kNewton };

// T: what is computed in.
template <class T>
Route route_of(const Shape& s, Method method, const Tiling& t) {
  if (method == Method::kProjectedNewton) return Route::kNewton;
  const bool fits = t.chunks == 1;
  if (method == Method::kTautString) return fits ? Route::kRows : Route::kSerial;
  const bool middle = s.n > kWarpLongest && s.n <= kShortest;
  if (method == Method::kDirect && middle && sizeof(T) == 4) return Route::kWindows;
  const bool many =
      s.n <= kRowsAlways || (s.signals() >= kManySignals && t.lanes() >= kFewestLanes);
  if (method == Method::kDirect && fits && many) return Route::kRows;
  if (s.n <= kWarpLongest) return Route::kWarp;
  if (s.n <= kShortest) return Route::kBlock;
  return s.n >= kGridShortest && s.signals() <= kGridSignals ? Route::kGrid : Route::kWide;
}

template <class D, int kWarps>
Status run_group(cudaStream_t stream, const Shape& s, const Prox<D>& op) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  return launch("prox_group", prox_group<D, kWarps>, (s.signals() + kSignals - 1) / kSignals,
                kGroupThreads<kWarps>, GroupMemory<Compute<D>, kWarps>::bytes(s.n, op.per_edge),
                stream, s, op);
}

template <class D>
Status run_windows(cudaStream_t stream, const Shape& s, const Prox<D>& op) {
  const WindowsPlan plan(s.n);
  return launch("prox_windows", op.per_edge ? prox_windows<D, true> : prox_windows<D, false>,
                (s.signals() + plan.at_once - 1) / plan.at_once, kWindowsThreads,
                plan.bytes(op.per_edge), stream, s, op, plan);
}

template <class D>
Status run_rows(cudaStream_t stream, Tiling t, const Prox<D>& op) {
  if (Status bad = check(t)) return bad;
  t.parts = 1;
  t.part_rows = t.rows;
  const std::size_t bytes = t.elements(0) * std::size_t(rows_need<Compute<D>>(op.per_edge).bytes);
  return launch("prox_rows", op.per_edge ? prox_rows<D, true> : prox_rows<D, false>, t.tiles,
                t.threads(), bytes, stream, t, op);
}

// The kernels that work in global memory.
template <class D>
Status run_long(cudaStream_t stream, const Shape& s, const Prox<D>& op, const Solver& solver,
                Route route, void* workspace) {
  const std::int64_t signals = s.signals();
  double* c = static_cast<double*>(workspace);
  switch (route) {
    case Route::kNewton:
      return prox_newton(stream, s, op, solver, workspace);
    case Route::kSerial:
      return launch("prox_serial", prox_serial<D>, (signals + kSerialThreads - 1) / kSerialThreads,
                    kSerialThreads, 0, stream, s, op, static_cast<signed char*>(workspace));
    case Route::kWide:
      return launch("prox_wide", prox_wide<D, kWideWarps>, signals, kWideWarps * kWarp,
                    Group<kWideWarps>::kScratch, stream, s, op, c,
                    reinterpret_cast<signed char*>(c + signals * s.n));
    default:
      return prox_grid(stream, s, op, workspace);
  }
}

template <class D>
Status run(cudaStream_t stream, const Shape& s, const Prox<D>& op, const Solver& solver,
           void* workspace) {
  using T = Compute<D>;
  const Tiling t = tiling_of(s, rows_need<T>(op.per_edge));
  const Route route = route_of<T>(s, solver.method, t);
  switch (route) {
    case Route::kRows:
      return run_rows(stream, t, op);
    case Route::kWindows:
      if constexpr (sizeof(T) == 4) return run_windows(stream, s, op);
      return nullptr;
    case Route::kWarp:
      return run_group<D, 1>(stream, s, op);
    case Route::kBlock:
      return run_group<D, kBlockWarps>(stream, s, op);
    default:
      return run_long(stream, s, op, solver, route, workspace);
  }
}

template <class T, int kWarps>
Status run_gaps(cudaStream_t stream, const Shape& s, const Prox<T>& op, bool exact) {
  return launch("gaps", gaps<T, kWarps>,
                (s.signals() + kGroupSignals<kWarps> - 1) / kGroupSignals<kWarps>,
                kGroupThreads<kWarps>, Group<kWarps>::kScratch, stream, s, op, exact);
}

}  // namespace

template <class T>
bool by_rows(const Shape& s, Method method, bool per_edge) {
  return route_of<T>(s, method, tiling_of(s, rows_need<T>(per_edge))) == Route::kRows;
}
template bool by_rows<float>(const Shape&, Method, bool);
template bool by_rows<double>(const Shape&, Method, bool);

// Upper bounds, whatever kernel is picked.
std::int64_t prox_workspace(const Shape& s, Method method) {
  if (method == Method::kProjectedNewton) return s.signals() * newton_bytes(s.n);
  if (method == Method::kTautString) return s.n <= kMinChunk ? 0 : s.signals() * serial_bytes(s.n);
  if (s.n <= kShortest) return 0;
  const bool grid = s.n >= kGridShortest && s.signals() <= kGridSignals;
  return s.signals() * (grid ? grid_bytes(s.n) : block_bytes(s.n));
}

template <class D>
Status prox1d(cudaStream_t stream, const Shape& s, const Prox<D>& op, const Solver& solver,
              void* workspace) {
  if (s.signals() == 0 || s.n == 0) return nullptr;
  if (Status bad = run(stream, s, op, solver, workspace)) return bad;
  if constexpr (!kHalf<D>) {
    if (!op.gap) return nullptr;
    const bool exact = solver.method != Method::kProjectedNewton;
    return s.n <= kWarpLongest ? run_gaps<D, 1>(stream, s, op, exact)
                               : run_gaps<D, kWideWarps>(stream, s, op, exact);
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(D) \
  template Status prox1d(cudaStream_t, const Shape&, const Prox<D>&, const Solver&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
