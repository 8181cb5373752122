#include "prox.hpp"

#include <algorithm>
#include <cstring>

#include "scratch.hpp"
#include "serial.hpp"
#include "windows.hpp"

namespace jaxtv::cpu {
namespace {

// Samples that take as long to solve as a thread to wake, or a few times as long.
constexpr std::int64_t kSolved = 4096;

// One signal would leave all lanes but one empty: the taut string is as fast then, or faster.
bool use_lanes(std::int64_t signals, const Solver& solver) {
  return solver.method == Method::kDecomposition ||
         (solver.method == Method::kDirect && signals > 1);
}

// Whole groups of lanes, or few enough signals per chunk that every thread gets some.
std::int64_t chunk_of(std::int64_t signals, std::int64_t most, std::int64_t threads) {
  const std::int64_t share = (signals + threads - 1) / threads;
  return std::max<std::int64_t>(1, std::min(most, share));
}

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
  const Pool part = part_of(pool, s.size(), 2 * kSolved);
  const std::int64_t worth = std::max<std::int64_t>(16, 16384 / s.n / 16 * 16);
  const std::int64_t chunk = chunk_of(s.signals(), worth, part.threads);
  const std::size_t bytes = lanes<T>().derivative_scratch_bytes(s.n);
  for_chunks(part, s.signals(), chunk, [=, &op](std::int64_t begin, std::int64_t end) {
    kernel(op, begin, end, thread_scratch(bytes));
  });
}

// What the exact kernels say about signals: solved at once, unless there is no solution.
template <class T>
void report_exact(const Sweep<T>& s, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const T first = s.y[s.shape.offset(i, s.shape.n)];
    s.converged[i] = first - first == 0;
    s.iterations[i] = s.converged[i] ? 1 : 0;
  }
}

// Solves every signal in chunks of whole signals.
template <class T>
void prox_chunks(const Pool& pool, const Sweep<T>& s, const Solver& solver) {
  const std::int64_t n = s.shape.n, signals = s.shape.signals();
  const bool by_lanes = use_lanes(signals, solver);
  const Pool part = part_of(pool, s.shape.size(), by_lanes ? kSolved : kSolved / 4);
  const LaneKernels<T>& k = lanes<T>();
  const std::int64_t chunk = chunk_of(
      signals, by_lanes ? k.group_size(n) : std::max<std::int64_t>(1, 4096 / n), part.threads);
  for_chunks(part, signals, chunk, [=, &s, &solver, &k](std::int64_t begin, std::int64_t end) {
    if (by_lanes)
      k.prox(s, begin, end, thread_scratch(k.scratch_bytes(n)));
    else
      prox_serial(s, solver, begin, end);
    if (!s.gap) return;
    report_gap(s, begin, end);
    if (by_lanes) report_exact(s, begin, end);
  });
}

}  // namespace

template <class T>
void prox1d(const Pool& pool, const Sweep<T>& s, const Solver& solver) {
  const std::int64_t n = s.shape.n, signals = s.shape.signals();
  if (signals == 0 || n == 0) return;
  if (solver.method != Method::kDirect || !worth_windows(n, signals))
    return prox_chunks(pool, s, solver);
  prox_windows(pool, s);
  if (!s.gap) return;
  for_chunks(pool, signals, 1, [&](std::int64_t begin, std::int64_t end) {
    report_gap(s, begin, end);
    report_exact(s, begin, end);
  });
}

template <class T>
void segment_push(const Pool& pool, const Pushforward<T>& op) {
  for_derivative(pool, op.segments, lanes<T>().push, op);
}

template <class T>
void segment_pull(const Pool& pool, const Pullback<T>& op) {
  for_derivative(pool, op.segments, lanes<T>().pull, op);
}

// ---- Dykstra ----

std::int64_t Iteration::core_size() const {
  std::int64_t size = 1;
  for (std::int64_t d : core) size *= d;
  return size;
}

Shape Iteration::shape(std::size_t axis) const {
  Shape s{1, core[axes[axis]], 1};
  for (std::int64_t d = 0; d < std::int64_t(core.size()); ++d) {
    if (d < axes[axis]) s.outer *= core[d];
    if (d > axes[axis]) s.inner *= core[d];
  }
  return s;
}

namespace {

const Pool kNoPool{1, nullptr};

// Runs f(batch element, pool for inside it): elements over threads where there are enough of them,
// so that one element stays in one core's cache for all its sweeps; else threads inside the
// element.
template <class F>
void for_batch(const Pool& pool, const Iteration& it, F f) {
  const Pool part = part_of(pool, it.batch * it.core_size() * it.passes(), kSolved);
  if (it.batch >= part.threads)
    parallel_for(part, it.batch, [=](std::int64_t b) { f(b, kNoPool); });
  else
    for (std::int64_t b = 0; b < it.batch; ++b) f(b, part);
}

template <class T>
Weights<T> at_element(const Weights<T>& w, const Shape& s, std::int64_t b) {
  return {w.data ? w.data + b * s.outer * w.length(s.n) * s.inner : nullptr, w.per_edge};
}

// The segments that a pass over batch element b left in the mask.
template <class T>
Segments<T> segments_of(const Iteration& it, const std::uint8_t* mask, std::int64_t b,
                        std::int64_t pass) {
  const std::uint8_t* plane = mask + (b * it.planes() + code_byte(pass)) * it.core_size();
  return {it.shape(pass % it.axes.size()), nullptr, {}, plane, code_shift(pass)};
}

}  // namespace

// A NaN spreads by itself: one sweep takes it to all samples that its axes connect, and no others.
template <class T>
void dykstra(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
             const std::vector<Weights<T>>& w, T* y, std::uint8_t* mask) {
  const std::int64_t size = it.core_size();
  const int d = int(it.axes.size());
  if (size == 0) return;
  for_batch(pool, it, [=, &it, &inner, &w](std::int64_t b, const Pool& inside) {
    const OperationScratch scratch(std::size_t(d) * size * sizeof(T));
    T* states = scratch.as<T>();  // p_i of each axis: A_i - prox(A_i); 0 in its first sweep
    std::uint8_t* planes = mask ? mask + b * it.planes() * size : nullptr;
    if (planes) std::memset(planes, 0, it.planes() * size);
    for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
      const int axis = int(pass % d);
      Sweep<T> s{};
      s.shape = it.shape(axis);
      s.x = x + b * size;
      for (int j = 0; j < d; ++j)
        if (j != axis && (pass >= d || j < axis)) s.minus[s.num_minus++] = states + j * size;
      s.w = at_element(w[axis], s.shape, b);
      const bool last = pass + 1 == it.passes();
      s.y = last ? y + b * size : nullptr;
      s.residual = last ? nullptr : states + axis * size;
      s.mask = planes ? planes + code_byte(pass) * size : nullptr;
      s.shift = code_shift(pass);
      prox1d(inside, s, inner);
    }
  });
}

// With a_i = tx - sum_{j != i} p_j, each pass does z = P(a - D^T(s tw)), p_i = a - z.
template <class T>
void dykstra_push(const Pool& pool, const Iteration& it, const std::uint8_t* mask, const T* tx,
                  const std::vector<Weights<T>>& tw, T* ty) {
  const std::int64_t size = it.core_size();
  const int d = int(it.axes.size());
  if (size == 0) return;
  for_batch(pool, it, [=, &it, &tw](std::int64_t b, const Pool& inside) {
    const OperationScratch scratch(std::size_t(d + 1) * size * sizeof(T));
    T *a = scratch.as<T>(), *states = a + size, *z = ty + b * size;
    for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
      const int axis = int(pass % d);
      const Shape shape = it.shape(axis);
      std::copy(tx + b * size, tx + (b + 1) * size, a);
      for (int j = 0; j < d; ++j)
        if (j != axis && (pass >= d || j < axis))
          for (std::int64_t i = 0; i < size; ++i) a[i] -= states[j * size + i];
      segment_push<T>(inside,
                      {segments_of<T>(it, mask, b, pass), a, at_element(tw[axis], shape, b), z});
      for (std::int64_t i = 0; i < size; ++i) states[axis * size + i] = a[i] - z[i];
    }
  });
}

// The adjoint, passes in reverse. Of z = P(a - D^T(s tw)), p_i = a - z, a = tx - sum_{j != i} p_j:
//   h = [last] g - gp_i;  c = P h;  gw -= s Dc;  ga = c + gp_i;  gp_i = 0;  gx += ga;  gp_j -= ga.
// With two axes gp_j is 0 until then, so that one array holds whichever is not.
template <class T>
void dykstra_pull(const Pool& pool, const Iteration& it, const std::uint8_t* mask, const T* g,
                  T* gx, const std::vector<T*>& gw, const std::vector<bool>& per_edge) {
  const std::int64_t size = it.core_size();
  const int d = int(it.axes.size()), arrays = d == 2 ? 1 : d;
  if (size == 0) return;  // by a dim that is no axis: the weights are empty too
  for_batch(pool, it, [=, &it, &gw, &per_edge](std::int64_t b, const Pool& inside) {
    const OperationScratch scratch(std::size_t(arrays) * size * sizeof(T));
    T* states = scratch.as<T>();
    std::fill(states, states + arrays * size, T(0));
    std::fill(gx + b * size, gx + (b + 1) * size, T(0));
    for (std::int64_t pass = it.passes(); pass-- > 0;) {
      const int axis = int(pass % d);
      Adjoint<T> op{};
      op.segments = segments_of<T>(it, mask, b, pass);
      op.g = pass + 1 == it.passes() ? g + b * size : nullptr;
      op.swap = d == 2;
      op.state = states + (op.swap ? 0 : axis * size);
      for (int j = 0; j < d && !op.swap; ++j)
        if (j != axis) op.others[op.num_others++] = states + j * size;
      op.gx = gx + b * size;
      op.per_edge = per_edge[axis];
      const Shape& shape = op.segments.shape;
      const std::int64_t weights = shape.signals() * (op.per_edge ? shape.n - 1 : 1);
      op.gw = gw[axis] + b * weights;
      if (pass >= it.passes() - d) std::fill(op.gw, op.gw + weights, T(0));
      for_derivative(inside, op.segments, lanes<T>().adjoint, op);
    }
  });
}

#define JAXTV_INSTANTIATE(T)                                                                   \
  template void prox1d(const Pool&, const Sweep<T>&, const Solver&);                           \
  template void segment_push(const Pool&, const Pushforward<T>&);                              \
  template void segment_pull(const Pool&, const Pullback<T>&);                                 \
  template void dykstra(const Pool&, const Iteration&, const Solver&, const T*,                \
                        const std::vector<Weights<T>>&, T*, std::uint8_t*);                    \
  template void dykstra_push(const Pool&, const Iteration&, const std::uint8_t*, const T*,     \
                             const std::vector<Weights<T>>&, T*);                              \
  template void dykstra_pull(const Pool&, const Iteration&, const std::uint8_t*, const T*, T*, \
                             const std::vector<T*>&, const std::vector<bool>&);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
