// Projected Newton, the paper's solver (include/jaxtv/newton.hpp has the serial one and the
// mathematics): a warp or a block per signal, with the whole loop inside the kernel.
//
// The tridiagonal system of the free duals needs no sequential Cholesky: with the other duals fixed
// its solution makes y constant over each maximal run of free edges. So d = the prefix sums of
// mean(y) - y over the run, and a Newton step is made of what the decomposition consists of: means
// of regions, and one more scan. (The same as the closed form of the factors, pivots (k+2)/(k+1),
// with better rounding.)
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

struct Path {  // sum of c - x from the start of the region on, after the dual at its left end
  double sum = 0;
  long long count = 0;
  int closed = 0;  // the start has been met
  template <class F>
  JAXTV_DEVICE Path each(F f) const {
    return {f(sum), f(count), f(closed)};
  }
};
JAXTV_DEVICE Path join(const Path& far, const Path& near) {
  if (near.closed) return near;
  return {far.sum + near.sum, far.count + near.count, far.closed};
}

struct Pair {
  double a = 0, b = 0;
  template <class F>
  JAXTV_DEVICE Pair each(F f) const {
    return {f(a), f(b)};
  }
};
JAXTV_DEVICE Pair join(const Pair& p, const Pair& q) { return {p.a + q.a, p.b + q.b}; }

struct Largest {
  double v = 0;
  template <class F>
  JAXTV_DEVICE Largest each(F f) const {
    return {f(v)};
  }
};
JAXTV_DEVICE Largest join(const Largest& p, const Largest& q) { return {max_of(p.v, q.v)}; }

template <class G, class V>
JAXTV_DEVICE V total_of(const V& mine) {
  V total;
  G::template scan<false>(Arena{}, mine, total);
  return total;
}

// ---- the state of a signal ----

// The runs of free duals, as the regions of a signal y without weights.
template <class I, class C, class Sign>
struct Runs {
  I n;
  C y;
  Sign binding;
  C c;
  JAXTV_DEVICE double x(I i) const { return y[i]; }
  JAXTV_DEVICE double w(I) const { return 0; }
  JAXTV_DEVICE int cut(I e) const { return binding[e]; }
  JAXTV_DEVICE bool starts(I i) const { return i == 0 || cut(i - 1) != 0; }
};

// chain: the candidate, duals at their bounds being cuts. chain.c is also the direction.
template <class I, class X, class W, class Sign, class C>
struct Iterate {
  Chain<I, X, W, Sign, C> chain;
  C u, y;
  Sign binding;
  JAXTV_DEVICE I n() const { return chain.n; }
  JAXTV_DEVICE Runs<I, C, Sign> runs() const { return {chain.n, y, binding, chain.c}; }
  JAXTV_DEVICE double jump(I e) const { return double(y[e + 1]) - double(y[e]); }
};

template <class I>
JAXTV_DEVICE Range<I> share_of(I n, int part, int parts) {
  const I each = ((n + parts - 1) / parts) | 1;  // odd: different banks
  const I begin = min_of(I(part) * each, n);
  return {begin, min_of(begin + each, n)};
}

// Calls visit(i, c, before, after) for the samples of the range: the value of the region, and the
// Path up to the sample without and with it.
template <class G, class I, class D, class F>
JAXTV_DEVICE void integrate(const D& d, Range<I> r, double in, F visit) {
  const auto walk = [&](Path path, auto f) {
    double c = in;
    for (I i = r.begin; i < r.end; ++i) {
      if (d.starts(i)) {
        c = d.c[i];
        path = {i > 0 ? double(d.cut(i - 1)) * d.w(i - 1) : 0.0, 0, 1};
      }
      const double before = path.sum;
      path.sum += c - d.x(i);
      ++path.count;
      f(i, c, before, path);
    }
    return path;
  };
  const Path mine = walk(Path{}, [](I, double, double, const Path&) {});
  walk(G::template scan<false>(Arena{}, mine), visit);
}

// Cuts and values of the candidate that belongs to u; returns the value that comes in.
template <class G, class I, class S>
JAXTV_DEVICE double candidate(const S& s, Range<I> r, double scale) {
  G::sync();  // all have read the cuts before
  for (I e = r.begin; e < r.end; ++e)
    s.chain.sign[e] =
        static_cast<signed char>(e + 1 < s.n() ? newton_detail::cut_of(s.u[e], s.chain.w(e)) : 0);
  G::sync();
#pragma unroll 1
  for (;;) {
    const double c = update<double, G>(s.chain, r);
    if (!join_ties<G>(s.chain, r, c, scale)) return c;
  }
}

// The candidate's duality gap and objective; `certified`: its duals are inside their bounds.
template <class G, class I, class S>
JAXTV_DEVICE Objective judge(const S& s, Range<I> r, double c, double scale, bool& certified) {
  const auto& d = s.chain;
  Objective o{0, 0};
  bool outside = false;
  integrate<G>(d, r, c, [&](I i, double value, double before, const Path& path) {
    const double left = i > 0 ? clip(before, d.w(i - 1)) : 0.0;
    double here = 0;
    o.primal += 0.5 * (value - d.x(i)) * (value - d.x(i));
    if (i + 1 < d.n) {
      const double bound = d.w(i);
      const int cut = d.cut(i);
      here = cut != 0 ? double(cut) * bound : clip(path.sum, bound);
      const double slack = 8 * kEps * double(path.count + 1) * (scale + bound);
      outside |= cut == 0 && abs_of(path.sum) > bound + slack;
      const double jump = cut != 0 ? double(d.c[i + 1]) - value : 0.0;
      if (jump != 0) {  // keeps an infinite weight out
        o.primal += bound * abs_of(jump);
        o.gap += bound * abs_of(jump) - here * jump;
      }
    }
    const double miss = d.x(i) - left + here - value;  // where a clip was needed
    o.gap += 0.5 * miss * miss;
  });
  certified = !G::any(outside);
  const Pair sums = total_of<G>(Pair{o.gap, o.primal});
  return {sums.a, sums.b};
}

// y, the binding duals, and the direction in chain.c.
template <class G, class I, class S>
JAXTV_DEVICE void find_direction(const S& s, Range<I> r, double scale) {
  const auto& d = s.chain;
  for (I i = r.begin; i < r.end; ++i)
    s.y[i] = d.x(i) - (i > 0 ? double(s.u[i - 1]) : 0.0) + double(s.u[i]);
  G::sync();
  const I last = min_of(r.end, d.n - 1);
  Largest norm;
  for (I e = r.begin; e < last; ++e)
    norm.v = max_of(norm.v, abs_of(clip(double(s.u[e]) + s.jump(e), d.w(e)) - double(s.u[e])));
  norm = total_of<G>(norm);
  for (I e = r.begin; e < last; ++e)
    s.binding[e] = newton_detail::is_binding(s.u[e], d.w(e), s.jump(e), norm.v, scale);
  G::sync();
  const auto runs = s.runs();
  const double mean = update<double, G>(runs, r);
  integrate<G>(runs, r, mean, [&](I e, double, double, const Path& path) {
    if (e + 1 < d.n) d.c[e] = s.binding[e] ? s.jump(e) : path.sum;
  });
  G::sync();
}

// The halvings of the step side by side, one per lane: the longest acceptable one. The lanes that
// share a step share the signal.
template <class G, class F>
JAXTV_DEVICE double parallel_search(F attempt) {
  const int lane = int(threadIdx.x) % kWarp, choice = lane % kParallelSteps;
  const Trial t = attempt(G::thread() / kParallelSteps, G::kThreads / kParallelSteps,
                          1.0 / double(1 << choice));
  Trial sum{t.change + __shfl_xor_sync(kAllLanes, t.change, kParallelSteps),
            t.slope + __shfl_xor_sync(kAllLanes, t.slope, kParallelSteps)};
  if constexpr (G::kThreads > kWarp) {
    Arena arena;
    const Shared<Trial> sums = arena.take<Trial>(G::kThreads / 2);
    if (lane < kParallelSteps) sums[int(threadIdx.x) / kWarp * kParallelSteps + lane] = sum;
    __syncthreads();
    sum = {0, 0};
    for (int k = choice; k < G::kThreads / 2; k += kParallelSteps) {
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
constexpr std::size_t kScratch = kWarps == 1 ? 0 : kWarps * kParallelSteps * sizeof(Trial);

// 0: none acceptable.
template <class G, class I, class S>
JAXTV_DEVICE double search(const S& s, Range<I> r, LineSearch kind) {
  const auto attempt = [&](Range<I> q, double step) {
    return newton_detail::try_step(q.begin, q.end, s.n(), Bars{s.chain}, s.u, s.y, s.chain.c, step);
  };
  if (kind == LineSearch::kParallel)
    return parallel_search<G>([&](int part, int parts, double step) {
      return attempt(share_of(s.n(), part, parts), step);
    });
  return newton_detail::backtrack([&](double step) {
    const Trial mine = attempt(r, step);
    const Pair sum = total_of<G>(Pair{mine.change, mine.slope});
    return Trial{sum.a, sum.b};
  });
}

// projected_newton by a group; leaves the cuts in chain.sign.
template <class G, class I, class S>
JAXTV_DEVICE NewtonReport run(const S& s, Range<I> r, double scale, NewtonOptions options) {
  const auto& d = s.chain;
  for (I i = r.begin; i < r.end; ++i) d.sign[i] = 0;
  G::sync();
  integrate<G>(d, r, update<double, G>(d, r), [&](I e, double, double, const Path& path) {
    s.u[e] = e + 1 < d.n ? clip(path.sum, d.w(e)) : 0.0;
  });
  int within_tol = 0;
#pragma unroll 1
  for (std::int64_t iteration = 0;; ++iteration) {
    const double c = candidate<G>(s, r, scale);
    bool certified;
    const Objective o = judge<G>(s, r, c, scale, certified);
    const bool converged = newton_detail::within(o, options.tol, scale);
    if (iteration == options.max_iterations ||
        (converged && (within_tol++ == kFinishing || certified)))
      return {iteration, converged};
    find_direction<G>(s, r, scale);
    const double step = search<G>(s, r, options.line_search);
    G::sync();
    if (step == 0) return {iteration, converged};
    for (I e = r.begin; e < min_of(r.end, d.n - 1); ++e)
      s.u[e] = clip(double(s.u[e]) + step * double(d.c[e]), d.w(e));
  }
}

template <class T, class G, class I, class S, class Y>
JAXTV_DEVICE NewtonReport solve(S s, NewtonOptions options, Y y) {
  auto& d = s.chain;
  const Range<I> r = share_of(d.n, G::thread(), G::kThreads);
  const Bounds b = total_of<G>(bounds<T>(d, r));
  if (b.bad) {
    for (I i = r.begin; i < r.end; ++i) y[i * d.stride] = kNaN<T>;
    return {0, false};
  }
  if (sizeof(T) == 8 && b.scale() >= kSolverLimit) d.factor = kSolverScale;
  const NewtonReport report = run<G>(s, r, b.scale() * d.factor, options);
  G::sync();
  spread<T>(d, r, update<T, G>(d, r), y);
  return report;
}

// ---- kernels ----

// Calls f(signal, x, w, y) for the signals of each group.
template <int kWarps, class D, class F>
JAXTV_DEVICE void for_signals(const Shape& s, const Prox<D>& op, F f) {
  using T = Compute<D>;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const std::int64_t step = std::int64_t(gridDim.x) * kGroupSignals<kWarps>;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kGroupSignals<kWarps> + mine; i < s.signals();
       i += step) {
    const std::int64_t outer = i / s.inner, inner = i - outer * s.inner;
    const std::int64_t at = outer * s.n * s.inner + inner;
    const T* w = op.per_edge ? op.w + outer * (s.n - 1) * s.inner + inner : op.w + i;
    const NewtonReport report =
        f(i, Strided<const D>{op.x + at, s.inner}, Strided<const T>{w, op.per_edge ? s.inner : 0},
          Strided<D>{op.y + at, s.inner});
    if (Group<kWarps>::thread() == 0 && op.iterations) {
      op.iterations[i] = std::int32_t(report.iterations);
      op.converged[i] = report.converged;
    }
    Group<kWarps>::sync();
  }
}

// n <= kShortest: all in shared memory.
template <class D, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>, 1)
    newton_group(Shape s, Prox<D> op, NewtonOptions options) {
  using T = Compute<D>;
  using G = Group<kWarps>;
  const int n = int(s.n), edges = op.per_edge ? n : 1;
  const int mine = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  Arena arena;
  arena.take<unsigned char>(kScratch<kWarps>);
  const auto take = [&](auto t, int size) {
    return arena.take<decltype(t)>(kGroupSignals<kWarps> * size) + mine * size;
  };
  const auto u = take(double{}, n), y = take(double{}, n), c = take(double{}, n);
  const auto x = take(T{}, n), w = take(T{}, edges);
  const auto sign = take(static_cast<signed char>(0), n);
  const auto binding = take(static_cast<signed char>(0), n);
  for_signals<kWarps>(s, op, [&](std::int64_t, auto xs, auto ws, auto ys) {
    for (int k = G::thread(); k < n; k += G::kThreads) x[k] = xs[k];
    for (int k = G::thread(); k < edges; k += G::kThreads)
      if (k == 0 || k + 1 < n) w[k] = ws[k];
    G::sync();
    using S = Iterate<int, Shared<T>, Shared<T>, Shared<signed char>, Shared<double>>;
    const int per_edge = op.per_edge ? 1 : 0;
    const NewtonReport report =
        solve<T, G, int>(S{{n, x, 1, w, per_edge, sign, c, 1.0}, u, y, binding}, options, x);
    G::sync();
    for (int k = G::thread(); k < n; k += G::kThreads) ys[k] = T(x[k]);
    return report;
  });
}

constexpr int kNewtonWarps = 8;  // more would have too few registers each

// Longer signals: state in global memory, three doubles and two chars per sample.
template <class D>
__global__ void __launch_bounds__(kGroupThreads<kNewtonWarps>, 1)
    newton_wide(Shape s, Prox<D> op, NewtonOptions options, double* state) {
  const std::int64_t size = s.signals() * s.n;
  signed char* chars = reinterpret_cast<signed char*>(state + 3 * size);
  for_signals<kNewtonWarps>(s, op, [&](std::int64_t i, auto x, auto w, auto y) {
    double* at = state + i * s.n;
    signed char* sign = chars + i * s.n;
    using T = Compute<D>;
    using S = Iterate<std::int64_t, const D*, const T*, signed char*, double*>;
    return solve<T, Group<kNewtonWarps>, std::int64_t>(
        S{{s.n, x.data, s.inner, w.data, w.stride, sign, at, 1.0},
          at + size,
          at + 2 * size,
          sign + size},
        options, y.data);
  });
}

template <class D, int kWarps>
Status run_group(cudaStream_t stream, const Shape& s, const Prox<D>& op, NewtonOptions options) {
  constexpr int kSignals = kGroupSignals<kWarps>;
  const std::size_t n = s.n, edges = op.per_edge ? n : 1;
  const std::size_t bytes =
      kSignals * (n * (3 * sizeof(double) + 2) + (n + edges) * sizeof(Compute<D>));
  return launch("newton_group", newton_group<D, kWarps>, (s.signals() + kSignals - 1) / kSignals,
                kGroupThreads<kWarps>, kScratch<kWarps> + bytes, stream, s, op, options);
}

}  // namespace

template <class D>
Status prox_newton(cudaStream_t stream, const Shape& s, const Prox<D>& op, const Solver& solver,
                   void* workspace) {
  const NewtonOptions options{solver.tol, solver.max_iterations, LineSearch(solver.line_search)};
  if (s.n <= kWarpLongest) return run_group<D, 1>(stream, s, op, options);
  if (s.n <= kShortest) return run_group<D, kBlockWarps>(stream, s, op, options);
  return launch("newton_wide", newton_wide<D>, s.signals(), kGroupThreads<kNewtonWarps>,
                kScratch<kNewtonWarps>, stream, s, op, options, static_cast<double*>(workspace));
}

#define JAXTV_INSTANTIATE(D) \
  template Status prox_newton(cudaStream_t, const Shape&, const Prox<D>&, const Solver&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
