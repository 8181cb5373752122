// Projected Newton, the paper's solver: the whole loop of a signal in one thread, no host between
// the steps (include/jaxtv/newton.hpp). The signals of a warp lie side by side in the workspace, so
// what its lanes read together is coalesced.
#include "jaxtv/newton.hpp"
#include "prox1d_parts.hpp"
#include "solve.cuh"

namespace jaxtv::cuda {
namespace {

constexpr int kThreads = 64;

// State of one signal: kNewtonScratch arrays and the result, of n doubles, and the cuts.
struct State {
  Strided<double> scratch, result;
  Strided<signed char> sign;
  JAXTV_DEVICE State(unsigned char* workspace, std::int64_t n, std::int64_t signals,
                     std::int64_t signal) {
    const std::int64_t first = signal / kWarp * kWarp, lane = signal - first;
    const std::int64_t lanes = min_of<std::int64_t>(kWarp, signals - first);
    unsigned char* base = workspace + first * newton_bytes(n);
    scratch = {reinterpret_cast<double*>(base) + lane, lanes};
    result = scratch + kNewtonScratch * n;
    sign = {reinterpret_cast<signed char*>(base) + lanes * (kNewtonScratch + 1) * n * 8 + lane,
            lanes};
  }
};
static_assert(kNewtonScratch == 6);  // newton_bytes

template <class T, bool kParallel>
__global__ void __launch_bounds__(kThreads)
    newton(Shape s, Prox<T> op, NewtonOptions options, unsigned char* workspace) {
  // A constant: the other search costs no registers.
  options.line_search = kParallel ? LineSearch::kParallel : LineSearch::kBacktracking;
  const std::int64_t n = s.n, signals = s.signals();
  const std::int64_t step = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < signals;
       i += step) {
    const std::int64_t outer = i / s.inner, inner = i - outer * s.inner;
    const std::int64_t at = outer * n * s.inner + inner;
    const Strided<const T> x{op.x + at, s.inner};
    const Strided<const T> w{op.per_edge ? op.w + outer * (n - 1) * s.inner + inner : op.w + i,
                             op.per_edge ? s.inner : 0};
    const Strided<T> y{op.y + at, s.inner};
    const State state(workspace, n, signals, i);
    const Extent e = extent_of<T>(n, x, w);
    NewtonReport report{0, false};
    if (e.valid && w[0] >= T(0)) {
      const double f = e.scale() < kLarge ? 1.0 : kDown;
      report = projected_newton(n, Scaled<Strided<const T>>{x, f}, Scaled<Strided<const T>>{w, f},
                                state.sign, state.result, state.scratch, e.scale() * f, options);
      write_values<T>(n, x, w, state.sign, y);
    } else {
      for (std::int64_t k = 0; k < n; ++k) y[k] = kNaN<T>;
    }
    if (!op.iterations) continue;
    op.iterations[i] = std::int32_t(report.iterations);
    op.converged[i] = report.converged;
  }
}

}  // namespace

template <class T>
Status prox_newton(cudaStream_t stream, const Shape& s, const Prox<T>& op, const Solver& solver,
                   void* workspace) {
  const NewtonOptions options{solver.tol, solver.max_iterations, LineSearch(solver.line_search)};
  const bool parallel = options.line_search == LineSearch::kParallel;
  const auto kernel = parallel ? newton<T, true> : newton<T, false>;
  return launch("newton", kernel, (s.signals() + kThreads - 1) / kThreads, kThreads, 0, stream, s,
                op, options, static_cast<unsigned char*>(workspace));
}

#define JAXTV_INSTANTIATE(T) \
  template Status prox_newton(cudaStream_t, const Shape&, const Prox<T>&, const Solver&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cuda
