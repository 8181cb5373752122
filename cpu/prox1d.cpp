#include "prox1d.hpp"

#include <algorithm>

#include "isa.hpp"
#include "long_signal/long_signal.hpp"
#include "scratch.hpp"
#include "serial.hpp"

namespace jaxtv::cpu {
namespace {

// One signal would leave all lanes but one empty: the taut string is as fast then, or faster.
bool use_simd(const Shape& shape, const Solver& solver) {
  return shape.n < kLongestInLane && (solver.method == Method::kDecomposition ||
                                      (solver.method == Method::kDirect && shape.signals() > 1));
}

// Signals per chunk: `most`, or few enough that every thread gets some. If there are many, whole
// vectors of them.
std::int64_t chunk_of(std::int64_t signals, std::int64_t most, std::int64_t threads) {
  constexpr std::int64_t kLanes = 32;  // no vectors have more
  const std::int64_t per_thread = (signals + threads - 1) / threads;
  const std::int64_t whole =
      per_thread > kLanes ? (per_thread + kLanes - 1) / kLanes * kLanes : per_thread;
  return std::max<std::int64_t>(1, std::min(most, whole));
}

// Calls f(begin, end) for chunks of the signals.
template <class F>
void for_chunks(const Pool& pool, std::int64_t signals, std::int64_t chunk, F f) {
  parallel_for(pool, (signals + chunk - 1) / chunk,
               [=](std::int64_t i) { f(i * chunk, std::min(signals, (i + 1) * chunk)); });
}

// Runs a derivative kernel in chunks that are worth a thread.
template <class T, class Kernel, class Op>
void for_derivative(const Pool& pool, const Segments<T>& segments, Kernel kernel, const Op& op) {
  const Shape& s = segments.shape;
  if (s.size() == 0) return;
  const Pool part = part_of(pool, s.size(), 2 * kSamplesPerThread);
  const std::int64_t most = std::max<std::int64_t>(16, 16384 / s.n / 16 * 16);
  const std::int64_t chunk = chunk_of(s.signals(), most, part.threads);
  const std::size_t bytes = simd_kernels<T>().derivative_scratch_bytes(s.n);
  for_chunks(part, s.signals(), chunk, [=, &op](std::int64_t begin, std::int64_t end) {
    kernel(op, begin, end, thread_scratch(bytes));
  });
}

// What exact kernels report of signals: one iteration, unless there is no solution.
template <class T>
void report_exact(const Pass<T>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const T first = pass.y[pass.shape.offset(i, pass.shape.n)];
    pass.converged[i] = first - first == 0;
    pass.iterations[i] = pass.converged[i] ? 1 : 0;
  }
}

// How the signals of a pass are divided.
struct Chunks {
  bool simd;
  Pool pool;
  std::int64_t signals;  // of a chunk
};
template <class T>
Chunks chunks_of(const Pool& pool, const Shape& shape, const Solver& solver) {
  const bool simd = use_simd(shape, solver);
  const Pool part = part_of(pool, shape.size(), simd ? kSamplesPerThread : kSamplesPerThread / 4);
  const std::int64_t most = simd ? simd_kernels<T>().signals_per_group(shape.n)
                                 : std::max<std::int64_t>(1, 4096 / shape.n);
  return {simd, part, chunk_of(shape.signals(), most, part.threads)};
}

// Solves every signal in chunks of whole signals: by SIMD in whole groups, or one after the other.
template <class T>
void prox_chunks(const Pool& pool, const Pass<T>& pass, const Solver& solver) {
  const std::int64_t n = pass.shape.n;
  const Chunks chunks = chunks_of<T>(pool, pass.shape, solver);
  const bool simd = chunks.simd;
  const std::int64_t chunk = chunks.signals;
  const SimdKernels<T>& kernels = simd_kernels<T>();
  for_chunks(chunks.pool, pass.shape.signals(), chunk,
             [=, &pass, &solver, &kernels](std::int64_t begin, std::int64_t end) {
               T* duals = pass.kept_duals;
               if (duals) duals += begin / chunk * kernels.duals_length(n, chunk);
               if (simd)
                 kernels.prox(pass, begin, end, solver.method == Method::kDecomposition, duals,
                              thread_scratch(kernels.prox_scratch_bytes(n)));
               else
                 prox_serial(pass, solver, begin, end);
               if (!pass.gap) return;
               report_gap(pass, begin, end);
               if (simd) report_exact(pass, begin, end);
             });
}

}  // namespace

template <class T>
void prox1d(const Pool& pool, const Pass<T>& pass, const Solver& solver) {
  const std::int64_t n = pass.shape.n, signals = pass.shape.signals();
  if (signals == 0 || n == 0) return;
  if (solver.method != Method::kDirect || !is_long(n, signals))
    return prox_chunks(pool, pass, solver);
  prox_long_signals(pool, pass);
  if (!pass.gap) return;
  for_chunks(pool, signals, 1, [&](std::int64_t begin, std::int64_t end) {
    report_gap(pass, begin, end);
    report_exact(pass, begin, end);
  });
}

// Of longer signals a check of the old cuts is too large a part of a bundle to be made in vain.
constexpr std::int64_t kLongestRepaired = 64;

template <class T>
std::int64_t kept_duals_length(const Pool& pool, const Pass<T>& pass, const Solver& solver) {
  const std::int64_t n = pass.shape.n, signals = pass.shape.signals();
  if (signals == 0 || n == 0) return 0;
  if (solver.method != Method::kDirect || pass.w.per_edge || n > kLongestRepaired) return 0;
  const Chunks chunks = chunks_of<T>(pool, pass.shape, solver);
  if (!chunks.simd) return 0;
  return (signals + chunks.signals - 1) / chunks.signals *
         simd_kernels<T>().duals_length(n, chunks.signals);
}

template <class T>
void segment_jvp(const Pool& pool, const SegmentJvp<T>& op) {
  for_derivative(pool, op.segments, simd_kernels<T>().jvp, op);
}

template <class T>
void segment_vjp(const Pool& pool, const SegmentVjp<T>& op) {
  for_derivative(pool, op.segments, simd_kernels<T>().vjp, op);
}

template <class T>
void dykstra_vjp_pass(const Pool& pool, const DykstraVjpPass<T>& op) {
  for_derivative(pool, op.segments, simd_kernels<T>().dykstra_vjp, op);
}

#define JAXTV_INSTANTIATE(T)                                                           \
  template void prox1d(const Pool&, const Pass<T>&, const Solver&);                    \
  template std::int64_t kept_duals_length(const Pool&, const Pass<T>&, const Solver&); \
  template void segment_jvp(const Pool&, const SegmentJvp<T>&);                        \
  template void segment_vjp(const Pool&, const SegmentVjp<T>&);                        \
  template void dykstra_vjp_pass(const Pool&, const DykstraVjpPass<T>&);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
