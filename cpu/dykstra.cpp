#include "dykstra.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "jaxtv/overflow.hpp"
#include "prox1d.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {

std::int64_t Iteration::size() const {
  std::int64_t product = 1;
  for (std::int64_t d : dims) product *= d;
  return product;
}

Shape Iteration::shape(std::size_t a) const {
  Shape s{1, dims[axes[a]], 1};
  for (std::int64_t d = 0; d < std::int64_t(dims.size()); ++d) {
    if (d < axes[a]) s.outer *= dims[d];
    if (d > axes[a]) s.inner *= dims[d];
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
  const Pool part = part_of(pool, it.batch * it.size() * it.passes(), kSamplesPerThread);
  if (it.batch >= part.threads)
    parallel_for(part, it.batch, [=](std::int64_t b) { f(b, kNoPool); });
  else
    for (std::int64_t b = 0; b < it.batch; ++b) f(b, part);
}

template <class T>
Weights<T> at_element(const Weights<T>& w, const Shape& s, std::int64_t b) {
  return {w.data ? w.data + b * s.outer * w.length(s.n) * s.inner : nullptr, w.per_edge};
}

// The segments that a pass over batch element b left in the codes.
template <class T>
Segments<T> segments_of(const Iteration& it, const std::uint8_t* codes, std::int64_t b,
                        std::int64_t pass) {
  Segments<T> segments{};
  segments.shape = it.shape(pass % it.axes.size());
  segments.codes = codes + (b * it.code_arrays() + code_byte(pass)) * it.size();
  segments.code_shift = code_shift(pass);
  return segments;
}

// Whether any of the samples is beyond kDykstraLimit.
template <class T>
bool beyond_limit(const Pool& pool, std::int64_t size, const T* x) {
  using Mask = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;  // vectorises
  constexpr std::int64_t kBlock = 1 << 16;
  const std::int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<char> beyond(blocks);
  parallel_for(part_of(pool, size, kBlock), blocks, [&](std::int64_t block) {
    const std::int64_t end = std::min(size, (block + 1) * kBlock);
    Mask any = 0;
    for (std::int64_t i = block * kBlock; i < end; ++i) any |= std::abs(x[i]) > kDykstraLimit<T>;
    beyond[block] = any != 0;
  });
  return std::any_of(beyond.begin(), beyond.end(), [](char v) { return v; });
}

// All sweeps of one element, with its weights. A NaN spreads by itself: one sweep takes it to all
// samples that its axes connect, and no others.
template <class T>
void solve_element(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
                   const std::vector<Weights<T>>& w, T* y, std::uint8_t* codes) {
  const std::int64_t size = it.size();
  const int d = int(it.axes.size());
  std::vector<Pass<T>> passes(d);  // along each axis
  std::vector<std::int64_t> duals_lengths(d);
  std::size_t bytes = std::size_t(d) * Arena::bytes<T>(size);
  for (int a = 0; a < d; ++a) {
    passes[a].shape = it.shape(a);
    passes[a].x = x;
    passes[a].w = w[a];
    duals_lengths[a] = it.sweeps > 1 ? kept_duals_length(pool, passes[a], inner) : 0;
    bytes += Arena::bytes<T>(duals_lengths[a]);
  }
  const OperationScratch scratch(bytes);
  Arena arena(scratch.as<char>());
  std::vector<T*> states(d);  // p_i of each axis: A_i - prox(A_i); 0 in its first sweep
  for (int a = 0; a < d; ++a) {
    states[a] = arena.take<T>(size);
    if (duals_lengths[a]) passes[a].kept_duals = arena.take<T>(duals_lengths[a]);
  }
  if (codes) std::memset(codes, 0, it.code_arrays() * size);
  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % d);
    Pass<T>& p = passes[axis];
    p.num_minus = 0;
    for (int j = 0; j < d; ++j)
      if (j != axis && (pass >= d || j < axis)) p.minus[p.num_minus++] = states[j];
    const bool last = pass + 1 == it.passes();
    p.y = last ? y : nullptr;
    p.residual = last ? nullptr : states[axis];
    p.codes = codes ? codes + code_byte(pass) * size : nullptr;
    p.code_shift = code_shift(pass);
    p.repair = pass >= d && p.kept_duals;
    prox1d(pool, p, inner);
  }
}

// The same for an element with samples beyond kDykstraLimit.
template <class T>
void solve_scaled_element(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
                          const std::vector<Weights<T>>& w, T* y, std::uint8_t* codes) {
  const std::int64_t size = it.size();
  const DykstraScaling<T> scaling(true);
  std::vector<std::vector<T>> copies(w.size());
  std::vector<Weights<T>> scaled_weights(w);
  for (std::size_t a = 0; a < w.size(); ++a) {
    const std::int64_t n = it.shape(a).n, length = size / n * w[a].length(n);
    copies[a].assign(w[a].data, w[a].data + length);
    for (T& weight : copies[a]) weight = scaling.weight(weight);
    scaled_weights[a].data = copies[a].data();
  }
  std::vector<T> samples(x, x + size);
  for (T& sample : samples) sample = scaling.sample(sample);
  solve_element(pool, it, inner, samples.data(), scaled_weights, y, codes);
  for (std::int64_t i = 0; i < size; ++i) y[i] = scaling.result(y[i], x[i]);
}

}  // namespace

template <class T>
void dykstra(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
             const std::vector<Weights<T>>& w, T* y, std::uint8_t* codes) {
  const std::int64_t size = it.size();
  if (size == 0) return;
  for_batch(pool, it, [=, &it, &inner, &w](std::int64_t b, const Pool& inside) {
    std::vector<Weights<T>> of_element;
    for (std::size_t a = 0; a < w.size(); ++a)
      of_element.push_back(at_element(w[a], it.shape(a), b));
    const T* samples = x + b * size;
    std::uint8_t* element_codes = codes ? codes + b * it.code_arrays() * size : nullptr;
    const auto solve =
        beyond_limit(inside, size, samples) ? solve_scaled_element<T> : solve_element<T>;
    solve(inside, it, inner, samples, of_element, y + b * size, element_codes);
  });
}

// With a_i = tx - sum_{j != i} p_j, each pass does z = P(a - D^T(s tw)), p_i = a - z.
template <class T>
void dykstra_jvp(const Pool& pool, const Iteration& it, const std::uint8_t* codes, const T* tx,
                 const std::vector<Weights<T>>& tw, T* ty) {
  const std::int64_t size = it.size();
  const int d = int(it.axes.size());
  if (size == 0) return;
  for_batch(pool, it, [=, &it, &tw](std::int64_t b, const Pool& inside) {
    const OperationScratch scratch(std::size_t(d + 1) * size * sizeof(T));
    T *a = scratch.as<T>(), *states = a + size, *z = ty + b * size;
    for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
      const int axis = int(pass % d);
      std::copy(tx + b * size, tx + (b + 1) * size, a);
      for (int j = 0; j < d; ++j)
        if (j != axis && (pass >= d || j < axis))
          for (std::int64_t i = 0; i < size; ++i) a[i] -= states[j * size + i];
      segment_jvp<T>(inside, {.segments = segments_of<T>(it, codes, b, pass),
                              .tx = a,
                              .tw = at_element(tw[axis], it.shape(axis), b),
                              .ty = z});
      for (std::int64_t i = 0; i < size; ++i) states[axis * size + i] = a[i] - z[i];
    }
  });
}

// The passes in reverse. Of z = P(a - D^T(s tw)), p_i = a - z, a = tx - sum_{j != i} p_j:
//   h = [last] g - gp_i;  c = P h;  gw -= s Dc;  ga = c + gp_i;  gp_i = 0;  gx += ga;  gp_j -= ga.
// docs/concepts.md derives this, DykstraVjpPass says what two axes save.
template <class T>
void dykstra_vjp(const Pool& pool, const Iteration& it, const std::uint8_t* codes, const T* g,
                 T* gx, const std::vector<T*>& gw, const std::vector<bool>& per_edge) {
  const std::int64_t size = it.size();
  const int d = int(it.axes.size()), num_states = d == 2 ? 1 : d;
  if (size == 0) return;  // by a dim that is no axis: the weights are empty too
  for_batch(pool, it, [=, &it, &gw, &per_edge](std::int64_t b, const Pool& inside) {
    const OperationScratch scratch(std::size_t(num_states) * size * sizeof(T));
    T* states = scratch.as<T>();
    for (std::int64_t pass = it.passes(); pass-- > 0;) {
      const int axis = int(pass % d);
      DykstraVjpPass<T> op{};
      op.segments = segments_of<T>(it, codes, b, pass);
      op.g = pass + 1 == it.passes() ? g + b * size : nullptr;
      op.two_axes = d == 2;
      op.state = states + (op.two_axes ? 0 : axis * size);
      for (int j = 0; j < d && !op.two_axes; ++j)
        if (j != axis) op.other_states[op.num_other_states++] = states + j * size;
      op.gx = op.two_axes && axis == 1 ? nullptr : gx + b * size;
      op.add_to_gx = pass + d < it.passes();
      op.per_edge = per_edge[axis];
      const Shape& shape = op.segments.shape;
      const std::int64_t weights = shape.signals() * (op.per_edge ? shape.n - 1 : 1);
      op.gw = gw[axis] + b * weights;
      op.add_to_gw = pass + d < it.passes();
      dykstra_vjp_pass(inside, op);
    }
  });
}

#define JAXTV_INSTANTIATE(T)                                                                  \
  template void dykstra(const Pool&, const Iteration&, const Solver&, const T*,               \
                        const std::vector<Weights<T>>&, T*, std::uint8_t*);                   \
  template void dykstra_jvp(const Pool&, const Iteration&, const std::uint8_t*, const T*,     \
                            const std::vector<Weights<T>>&, T*);                              \
  template void dykstra_vjp(const Pool&, const Iteration&, const std::uint8_t*, const T*, T*, \
                            const std::vector<T*>&, const std::vector<bool>&);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
