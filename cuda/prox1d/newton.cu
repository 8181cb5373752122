// Projected Newton, the paper's solver (include/jaxtv/newton.hpp has the serial one and the
// mathematics): a warp or a block per signal, with the whole loop inside the kernel.
//
// The tridiagonal system of the free duals needs no sequential Cholesky: with the other duals fixed
// its solution makes y constant over each maximal run of free edges. So d = the prefix sums of
// mean(y) - y over the run, and a Newton step is made of what the decomposition consists of: means
// of regions, and one more scan. (The same as the closed form of the factors, pivots (k+2)/(k+1),
// with better rounding.)
#include "block/divider.hpp"
#include "block/launch.cuh"
#include "half.cuh"
#include "jaxtv/newton.hpp"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"
#include "prox1d/thread_per_signal.cuh"

namespace jaxtv::cuda {
namespace {

using newton_detail::clip;
using newton_detail::Objective;
using newton_detail::Trial;

// ---- what is scanned or summed ----

// The dual along a region: the dual at its left end plus the sum of value - x.
struct DualPath {
  double sum = 0;
  double size = 0;  // max |x|, |value|: what round-off is relative to
  long long count = 0;
  int has_start = 0;  // the start of the region was met
  template <class F>
  JAXTV_DEVICE DualPath each(F f) const {
    return {f(sum), f(size), f(count), f(has_start)};
  }
};
JAXTV_DEVICE DualPath join(const DualPath& far, const DualPath& near) {
  if (near.has_start) return near;
  return {far.sum + near.sum, max_of(far.size, near.size), far.count + near.count, far.has_start};
}

struct TwoSums {
  double first = 0, second = 0;
  template <class F>
  JAXTV_DEVICE TwoSums each(F f) const {
    return {f(first), f(second)};
  }
};
JAXTV_DEVICE TwoSums join(const TwoSums& p, const TwoSums& q) {
  return {p.first + q.first, p.second + q.second};
}

struct ObjectiveSum {
  Objective o{0, 0, 0};
  template <class F>
  JAXTV_DEVICE ObjectiveSum each(F f) const {
    return {{f(o.gap), f(o.primal), f(o.level)}};
  }
};
JAXTV_DEVICE ObjectiveSum join(const ObjectiveSum& p, const ObjectiveSum& q) {
  return {{p.o.gap + q.o.gap, p.o.primal + q.o.primal, p.o.level + q.o.level}};
}

struct Largest {
  double value = 0;
  template <class F>
  JAXTV_DEVICE Largest each(F f) const {
    return {f(value)};
  }
};
JAXTV_DEVICE Largest join(const Largest& p, const Largest& q) { return {max_of(p.value, q.value)}; }

// ---- the state of a signal ----

// The maximal ranges of samples that free duals join, as the regions of a signal y without weights.
template <class Index, class Values, class Cuts>
struct FreeRegions {
  Index n;
  Values y;
  Cuts binding;
  Values region_values;
  JAXTV_DEVICE double x(Index i) const { return y[i]; }
  JAXTV_DEVICE double w(Index) const { return 0; }
  JAXTV_DEVICE int cut(Index e) const { return binding[e]; }
  JAXTV_DEVICE bool starts(Index i) const { return i == 0 || cut(i - 1) != 0; }
};

// The state of a Newton iteration.
template <class Index, class Samples, class Weights, class Cuts, class Values>
struct Iterate {
  // The candidate for the solution: duals at their bounds are its cuts. Between candidates its
  // region_values are the direction of the step.
  SignalState<Index, Samples, Weights, Cuts, Values> candidate;
  Values u, y;   // the duals; the primal that belongs to them
  Cuts binding;  // of each dual: whether it stays at its bound in this step; 0 at n - 1
  JAXTV_DEVICE Index n() const { return candidate.n; }
  JAXTV_DEVICE FreeRegions<Index, Values, Cuts> free_regions() const {
    return {candidate.n, y, binding, candidate.region_values};
  }
  JAXTV_DEVICE double jump(Index e) const { return double(y[e + 1]) - double(y[e]); }
};

template <class Index>
JAXTV_DEVICE SampleRange<Index> part_of(Index n, int part, int parts) {
  const Index each = ((n + parts - 1) / parts) | 1;  // odd: different banks
  const Index begin = min_of(Index(part) * each, n);
  return {begin, min_of(begin + each, n)};
}

// Calls visit(i, value, before, after) for the samples of the range: the value of the region, and
// the DualPath up to the sample without and with it.
template <class Group, class Index, class Signal, class Visit>
JAXTV_DEVICE void integrate(const Signal& signal, SampleRange<Index> range, double value_before,
                            Visit visit) {
  const auto walk = [&](DualPath path, auto f) {
    double value = value_before;
    for (Index i = range.begin; i < range.end; ++i) {
      if (signal.starts(i)) {
        value = signal.region_values[i];
        path = {i > 0 ? double(signal.cut(i - 1)) * signal.w(i - 1) : 0.0, 0, 0, 1};
      }
      const double before = path.sum, x = signal.x(i);
      path.sum += value - x;
      path.size = max_of(path.size, max_of(abs_of(x), abs_of(value)));
      ++path.count;
      f(i, value, before, path);
    }
    return path;
  };
  const DualPath mine = walk(DualPath{}, [](Index, double, double, const DualPath&) {});
  walk(Group::template scan<false>(Arena{}, mine), visit);
}

// Cuts and values of the candidate that belongs to u; returns the value that comes in.
template <class Group, class Index, class State>
JAXTV_DEVICE double find_candidate(const State& state, SampleRange<Index> range, double scale) {
  Group::sync();  // all have read the cuts before
  for (Index e = range.begin; e < range.end; ++e)
    state.candidate.cuts[e] = static_cast<signed char>(
        e + 1 < state.n() ? newton_detail::cut_of(state.u[e], state.candidate.w(e)) : 0);
  Group::sync();
#pragma unroll 1
  for (;;) {
    const double c = update_means<double, Group>(state.candidate, range);
    if (!join_ties<Group>(state.candidate, range, c, scale)) return c;
  }
}

// The candidate's duality gap and objective; `certified`: its duals are inside their bounds.
template <class Group, class Index, class State>
JAXTV_DEVICE Objective evaluate(const State& state, SampleRange<Index> range, double value_before,
                                bool& certified) {
  const auto& signal = state.candidate;
  Objective o{0, 0, 0};
  bool outside = false;
  integrate<Group>(
      signal, range, value_before, [&](Index i, double value, double before, const DualPath& path) {
        const double left = i > 0 ? clip(before, signal.w(i - 1)) : 0.0;
        double here = 0;
        const double r = value - signal.x(i);
        o.primal += 0.5 * r * r;
        o.level += 0.5 * r * r;
        if (i + 1 < signal.n) {
          const double bound = signal.w(i);
          const int cut = signal.cut(i);
          here = cut != 0 ? double(cut) * bound : clip(path.sum, bound);
          const double slack = 8 * kEps * double(path.count + 1) * (path.size + bound);
          outside |= cut == 0 && abs_of(path.sum) > bound + slack;
          const double jump = cut != 0 ? double(signal.region_values[i + 1]) - value : 0.0;
          if (jump != 0) {  // keeps an infinite weight out
            o.primal += bound * abs_of(jump);
            o.level += bound * min_of(abs_of(jump), bound);
            o.gap += bound * abs_of(jump) - here * jump;
          }
        }
        const double miss = signal.x(i) - left + here - value;  // where a clip was needed
        o.gap += 0.5 * miss * miss;
      });
  certified = !Group::any(outside);
  return Group::template total<false>(ObjectiveSum{o}).o;
}

// y, the binding duals, and the direction of the step in region_values.
template <class Group, class Index, class State>
JAXTV_DEVICE void find_direction(const State& state, SampleRange<Index> range, double scale) {
  const auto& signal = state.candidate;
  for (Index i = range.begin; i < range.end; ++i)
    state.y[i] = signal.x(i) - (i > 0 ? double(state.u[i - 1]) : 0.0) + double(state.u[i]);
  Group::sync();
  const Index last = min_of(range.end, signal.n - 1);
  Largest norm;
  for (Index e = range.begin; e < last; ++e)
    norm.value = max_of(norm.value, abs_of(clip(double(state.u[e]) + state.jump(e), signal.w(e)) -
                                           double(state.u[e])));
  norm = Group::template total<false>(norm);
  for (Index e = range.begin; e < last; ++e)
    state.binding[e] = newton_detail::is_binding(
        state.u[e], signal.w(e), state.jump(e),
        max_of(abs_of(signal.x(e)), abs_of(signal.x(e + 1))), norm.value, scale);
  if (range.begin <= last && last < range.end) state.binding[last] = 0;  // after the last sample
  Group::sync();
  const auto free_regions = state.free_regions();
  const double mean = update_means<double, Group>(free_regions, range);
  integrate<Group>(free_regions, range, mean, [&](Index e, double, double, const DualPath& path) {
    if (e + 1 < signal.n) signal.region_values[e] = state.binding[e] ? state.jump(e) : path.sum;
  });
  Group::sync();
}

// The halvings of the step side by side, one per lane: the longest acceptable one. The lanes that
// share a step share the signal.
template <class Group, class Attempt>
JAXTV_DEVICE double parallel_search(Attempt attempt) {
  const int lane = int(threadIdx.x) % kWarp, choice = lane % kParallelSteps;
  const Trial trial = attempt(Group::thread() / kParallelSteps, Group::kThreads / kParallelSteps,
                              1.0 / double(1 << choice));
  Trial sum{trial.change + __shfl_xor_sync(kAllLanes, trial.change, kParallelSteps),
            trial.slope + __shfl_xor_sync(kAllLanes, trial.slope, kParallelSteps)};
  if constexpr (Group::kThreads > kWarp) {
    Arena arena;
    const Shared<Trial> sums = arena.take<Trial>(Group::kThreads / 2);
    if (lane < kParallelSteps) sums[int(threadIdx.x) / kWarp * kParallelSteps + lane] = sum;
    __syncthreads();
    sum = {0, 0};
    for (int k = choice; k < Group::kThreads / 2; k += kParallelSteps) {
      const Trial other = sums[k];
      sum = {sum.change + other.change, sum.slope + other.slope};
    }
    __syncthreads();
  }
  const unsigned good = __ballot_sync(kAllLanes, newton_detail::acceptable(sum));
  return good == 0 ? 0 : 1.0 / double(1 << (__ffs(int(good)) - 1));
}
static_assert(kParallelSteps == kWarp / 2);
// Shared memory of a block for scans and this search.
template <int kWarps>
constexpr std::size_t kNewtonScratch = kWarps == 1 ? 0 : kWarps * kParallelSteps * sizeof(Trial);

// 0: none acceptable.
template <class Group, class Index, class State>
JAXTV_DEVICE double search(const State& state, SampleRange<Index> range, LineSearch kind) {
  const auto attempt = [&](SampleRange<Index> q, double step) {
    return newton_detail::try_step(q.begin, q.end, state.n(), WeightAccessor{state.candidate},
                                   state.u, state.y, state.candidate.region_values, step);
  };
  if (kind == LineSearch::kParallel)
    return parallel_search<Group>([&](int part, int parts, double step) {
      return attempt(part_of(state.n(), part, parts), step);
    });
  return newton_detail::backtrack([&](double step) {
    const Trial mine = attempt(range, step);
    const TwoSums sum = Group::template total<false>(TwoSums{mine.change, mine.slope});
    return Trial{sum.first, sum.second};
  });
}

// projected_newton by a group; leaves the cuts of the solution.
template <class Group, class Index, class State>
JAXTV_DEVICE NewtonReport run(const State& state, SampleRange<Index> range, double scale,
                              NewtonOptions options) {
  const auto& signal = state.candidate;
  for (Index i = range.begin; i < range.end; ++i) signal.cuts[i] = 0;
  Group::sync();
  integrate<Group>(signal, range, update_means<double, Group>(signal, range),
                   [&](Index e, double, double, const DualPath& path) {
                     state.u[e] = e + 1 < signal.n ? clip(path.sum, signal.w(e)) : 0.0;
                   });
  int within_tol = 0;
#pragma unroll 1
  for (std::int64_t iteration = 0;; ++iteration) {
    const double c = find_candidate<Group>(state, range, scale);
    bool certified;
    const Objective o = evaluate<Group>(state, range, c, certified);
    const bool converged = newton_detail::within(o, options.tol, scale);
    if (iteration == options.max_iterations ||
        (converged &&
         (certified || (o.gap <= options.tol * o.level && within_tol++ == kFinishing))))
      return {iteration, converged};
    find_direction<Group>(state, range, scale);
    const double step = search<Group>(state, range, options.line_search);
    Group::sync();
    if (step == 0) return {iteration, converged};
    for (Index e = range.begin; e < min_of(range.end, signal.n - 1); ++e)
      state.u[e] = clip(double(state.u[e]) + step * double(signal.region_values[e]), signal.w(e));
  }
}

template <class T, class Group, class Index, class State, class Output>
JAXTV_DEVICE NewtonReport solve(State state, NewtonOptions options, Output y) {
  auto& signal = state.candidate;
  const SampleRange<Index> range = part_of(signal.n, Group::thread(), Group::kThreads);
  const SampleBounds b = Group::template total<false>(bounds_of<T>(signal, range));
  if (b.invalid) {
    for (Index i = range.begin; i < range.end; ++i) y[i * signal.stride] = kNaN<T>;
    return {0, false};
  }
  if (sizeof(T) == 8 && b.scale() >= kSolverLimit) signal.factor = kSolverScale;
  const NewtonReport report = run<Group>(state, range, b.scale() * signal.factor, options);
  Group::sync();
  write_solution<T>(signal, range, update_means<T, Group>(signal, range), y);
  return report;
}

// ---- kernels ----

// Calls f(signal, x, w, y) for the signals of each group.
template <int kWarps, class Sample, class F>
JAXTV_DEVICE void for_signals(const Shape& shape, const Prox<Sample>& op, F f) {
  using T = Compute<Sample>;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const std::int64_t step = std::int64_t(gridDim.x) * kGroupSignals<kWarps>;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kGroupSignals<kWarps> + mine;
       i < shape.signals(); i += step) {
    const std::int64_t outer = i / shape.inner, inner = i - outer * shape.inner;
    const std::int64_t at = outer * shape.n * shape.inner + inner;
    const T* w = op.per_edge ? op.w + outer * (shape.n - 1) * shape.inner + inner : op.w + i;
    const NewtonReport report = f(i, Strided<const Sample>{op.x + at, shape.inner},
                                  Strided<const T>{w, op.per_edge ? shape.inner : 0},
                                  Strided<Sample>{op.y + at, shape.inner});
    if (ThreadGroup<kWarps>::thread() == 0 && op.iterations) {
      op.iterations[i] = std::int32_t(report.iterations);
      op.converged[i] = report.converged;
    }
    ThreadGroup<kWarps>::sync();
  }
}

constexpr int kWideNewtonWarps = tuning::NewtonPerSignal::kWideWarps;
constexpr int kNewtonBlocks = tuning::NewtonPerSignal::kBlocksPerMultiprocessor;

// A group of kWarps warps owns a signal of up to kLongestInSharedMemory samples, a thread a range
// of it. Several groups share a block where a group is one warp. Reads x and the weights once, into
// shared memory. Writes y once, from there; iterations and convergence where they are wanted.
template <class Sample, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>, kNewtonBlocks)
    newton_group(Shape shape, Prox<Sample> op, NewtonOptions options) {
  using T = Compute<Sample>;
  using Group = ThreadGroup<kWarps>;
  const int n = int(shape.n), edges = op.per_edge ? n : 1;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  Arena arena;
  arena.take<unsigned char>(kNewtonScratch<kWarps>);
  const auto take = [&](auto zero, int size) {
    return arena.take<decltype(zero)>(kGroupSignals<kWarps> * size) + mine * size;
  };
  const auto u = take(double{}, n), y = take(double{}, n), region_values = take(double{}, n);
  const auto x = take(T{}, n), w = take(T{}, edges);
  const auto cuts = take(static_cast<signed char>(0), n);
  const auto binding = take(static_cast<signed char>(0), n);
  for_signals<kWarps>(shape, op, [&](std::int64_t, auto xs, auto ws, auto ys) {
    for (int k = Group::thread(); k < n; k += Group::kThreads) x[k] = xs[k];
    for (int k = Group::thread(); k < edges; k += Group::kThreads)
      if (k == 0 || k + 1 < n) w[k] = ws[k];
    Group::sync();
    using State = Iterate<int, Shared<T>, Shared<T>, Shared<signed char>, Shared<double>>;
    const State state{.candidate = {.n = n,
                                    .samples = x,
                                    .stride = 1,
                                    .weights = w,
                                    .weight_stride = op.per_edge ? 1 : 0,
                                    .cuts = cuts,
                                    .region_values = region_values,
                                    .factor = 1.0},
                      .u = u,
                      .y = y,
                      .binding = binding};
    const NewtonReport report = solve<T, Group, int>(state, options, x);
    Group::sync();
    for (int k = Group::thread(); k < n; k += Group::kThreads) ys[k] = T(x[k]);
    return report;
  });
}

// A block owns a signal of any length, a thread a range of it.
// Reads x and the weights in global memory, in every iteration.
// Writes y; `scratch` has three doubles and two chars per sample.
template <class Sample>
__global__ void __launch_bounds__(kGroupThreads<kWideNewtonWarps>, kNewtonBlocks)
    newton_wide(Shape shape, Prox<Sample> op, NewtonOptions options, double* scratch) {
  using T = Compute<Sample>;
  using State = Iterate<std::int64_t, const Sample*, const T*, signed char*, double*>;
  const std::int64_t size = shape.signals() * shape.n;
  signed char* chars = reinterpret_cast<signed char*>(scratch + 3 * size);
  for_signals<kWideNewtonWarps>(shape, op, [&](std::int64_t i, auto x, auto w, auto y) {
    double* region_values = scratch + i * shape.n;
    signed char* cuts = chars + i * shape.n;
    const State state{.candidate = {.n = shape.n,
                                    .samples = x.data,
                                    .stride = shape.inner,
                                    .weights = w.data,
                                    .weight_stride = w.stride,
                                    .cuts = cuts,
                                    .region_values = region_values,
                                    .factor = 1.0},
                      .u = region_values + size,
                      .y = region_values + 2 * size,
                      .binding = cuts + size};
    return solve<T, ThreadGroup<kWideNewtonWarps>, std::int64_t>(state, options, y.data);
  });
}

template <class Sample, int kWarps>
Status run_group(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op,
                 NewtonOptions options) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  const std::size_t n = shape.n, edges = op.per_edge ? n : 1;
  const std::size_t bytes =
      kSignals * (n * (3 * sizeof(double) + 2) + (n + edges) * sizeof(Compute<Sample>));
  return launch("newton_group", newton_group<Sample, kWarps>, ceil_div(shape.signals(), kSignals),
                kGroupThreads<kWarps>, kNewtonScratch<kWarps> + bytes, stream, shape, op, options);
}

}  // namespace

template <class Sample>
Status prox_newton(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op,
                   const Solver& solver, void* scratch) {
  const NewtonOptions options{solver.tol, solver.max_iterations, LineSearch(solver.line_search)};
  if (shape.n <= Crossovers::kLongestForWarp)
    return run_group<Sample, 1>(stream, shape, op, options);
  if (shape.n <= Crossovers::kLongestInSharedMemory)
    return run_group<Sample, kBlockWarps>(stream, shape, op, options);
  return launch("newton_wide", newton_wide<Sample>, shape.signals(),
                kGroupThreads<kWideNewtonWarps>, kNewtonScratch<kWideNewtonWarps>, stream, shape,
                op, options, static_cast<double*>(scratch));
}

#define JAXTV_INSTANTIATE(Sample)                                                             \
  template Status prox_newton(cudaStream_t, const Shape&, const Prox<Sample>&, const Solver&, \
                              void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
