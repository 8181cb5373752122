// Connected components by union-find on the whole device, and sums over them that do not depend on
// the order of the atomics.
//
// **Labels.** A label is a sample of the same component that does not come later: labels only fall,
// and that of a root is itself. `start_labels` points every sample at its least neighbour,
// `hook_labels` unites what that has left apart, `flatten_labels` puts the root, the first sample
// of the component, everywhere. An edge is hooked by compare-and-swap on a root, so the result does
// not depend on the order of threads.
//
// **Sums.** Integers: the atomics commute. A group is a component, or the edges of a signal.
// `find_exponents` finds the largest exponent of a group, `add_terms` sums up its values in two
// words of fixed point that reach 62 bits below that. So a mean is right to the last bit of a
// double next to the largest value, the mean of equal values is that value, and a group may be as
// large as the whole image: nothing is sequential. Neighbouring lanes of one group go to memory
// together.
//
// In all kernels a thread owns one sample (in write_totals and clear_sums one signal); blocks share
// nothing, and a warp shares what its lanes add to one group.
#include <cstring>

#include "block/divider.hpp"
#include "block/launch.cuh"
#include "block/relaxed.cuh"
#include "components/components.hpp"
#include "half.cuh"
#include "scratch.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {
namespace {

using Index = std::uint32_t;
constexpr int kThreads = tuning::Components::kBlockThreads;
constexpr Index kNone = ~Index(0);

// ---- the grid as kernels see it: as many arrays as have less than 2^31 samples ----

struct Axis {
  Index n, inner;
  Divider by_n, by_inner;
};
struct Graph {
  const std::uint8_t* codes;
  Index samples, size;  // size: of one array
  int axes;
  int bytes_per_sample;  // of codes
  Divider by_size;
  Axis axis[kMaxAxes];

  // Of the edge after sample i along axis a.
  JAXTV_DEVICE int code(int a, Index i) const {
    std::int64_t at = i;  // and the other bytes of the arrays before it
    if (bytes_per_sample > 1)
      at += std::int64_t(by_size.div(i)) * (bytes_per_sample - 1) * size +
            std::int64_t(a / kPassesPerByte) * size;
    return codes[at] >> kCodeBits * (a % kPassesPerByte) & kCodeMask;
  }
};

// Sample k of the signal (outer, inner).
struct Coordinates {
  Index outer, k, inner;
  JAXTV_DEVICE Coordinates(const Axis& a, Index i) {
    const Index row = a.by_inner.div(i);
    inner = i - row * a.inner;
    outer = a.by_n.div(row);
    k = row - outer * a.n;
  }
};

JAXTV_DEVICE Index sample() { return blockIdx.x * kThreads + threadIdx.x; }

JAXTV_DEVICE bool joined_before(const Graph& g, int a, Index i) {
  const Axis& axis = g.axis[a];
  return Coordinates(axis, i).k > 0 && g.code(a, i - axis.inner) == kInside;
}

// ---- labels ----

// Of a group: what the atomics add up; the mean takes its place.
struct Sum {
  union {
    unsigned long long whole;
    double mean;
  };
  unsigned long long part;  // 2^-32 of whole
  int exponent, count;
};
static_assert(sizeof(Sum) == kComponentSumBytes && sizeof(Index) == kLabelBytes);

// The axis along which `start_labels` points: that of the least joined neighbour. -1: there is
// none.
JAXTV_DEVICE int axis_to_start(const Graph& g, Index i) {
  int best = -1;
  for (int a = 0; a < g.axes; ++a)
    if ((best < 0 || g.axis[a].inner > g.axis[best].inner) && joined_before(g, a, i)) best = a;
  return best;
}

// Reads codes. Writes the first label of every sample, and an empty sum.
__global__ void __launch_bounds__(kThreads) start_labels(Graph g, Index* label, Sum* sums) {
  const Index i = sample();
  if (i >= g.samples) return;
  const int a = axis_to_start(g, i);
  label[i] = a < 0 ? i : i - g.axis[a].inner;
  sums[i] = Sum{};
}

// Halves the path that it walks. Others may do the same: all store what is further up, though not
// always as far as what they overwrite.
JAXTV_DEVICE Index root(Index* label, Index i) {
  for (Index up = load_relaxed(label + i); up != i; up = load_relaxed(label + i)) {
    const Index next = load_relaxed(label + up);
    if (next != up) store_relaxed(label + i, next);
    i = next;
  }
  return i;
}

JAXTV_DEVICE void unite(Index* label, Index a, Index b) {
  for (;;) {
    a = root(label, a);
    b = root(label, b);
    if (a == b) return;
    const Index high = max_of(a, b), low = min_of(a, b);
    if (atomicCAS(label + high, high, low) == high) return;  // else it is no root any more
  }
}

// Reads codes and labels. Writes labels, by compare-and-swap.
// An edge whose two ends are joined around the other side of a square needs no hook: of the four
// edges it is the last, and the others hold together by the same argument.
__global__ void __launch_bounds__(kThreads) hook_labels(Graph g, Index* label) {
  const Index i = sample();
  if (i >= g.samples) return;
  const int up = axis_to_start(g, i);
  for (int a = 0; a < g.axes; ++a) {
    if (a == up || !joined_before(g, a, i)) continue;
    const Index corner = i - g.axis[up].inner - g.axis[a].inner;
    if (g.code(a, corner) == kInside && g.code(up, corner) == kInside) continue;
    unite(label, i, i - g.axis[a].inner);
  }
}

// Reads labels. Writes the root of every sample as its label.
// Not by root(): that writes the labels of others, who may have stored their root before. Where all
// threads go on together, each step doubles the reach of all labels.
__global__ void __launch_bounds__(kThreads) flatten_labels(Index samples, Index* label) {
  const Index i = sample();
  if (i >= samples) return;
  Index up = load_relaxed(label + i);
  for (Index next = load_relaxed(label + up); next != up; next = load_relaxed(label + up)) {
    store_relaxed(label + i, next);
    up = next;
  }
}

// ---- sums ----

// Neighbouring lanes of one group. All lanes of the warp make one and call fold.
struct LaneGroup {
  int lane, end;  // this lane; the lane after the last of its group
  bool first;     // of its group

  JAXTV_DEVICE explicit LaneGroup(Index group) : lane(threadIdx.x % kWarp) {
    const Index before = __shfl_up_sync(kAllLanes, group, 1);
    const unsigned starts = __ballot_sync(kAllLanes, lane == 0 || before != group);
    const unsigned later = starts & ~0u << lane << 1;
    first = starts >> lane & 1;
    end = later != 0 ? __ffs(int(later)) - 1 : kWarp;
  }
  // Of the first lane: f over the group.
  template <class V, class F>
  JAXTV_DEVICE V fold(V v, F f) const {
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const V other = __shfl_down_sync(kAllLanes, v, distance);
      if (lane + distance < end) v = f(v, other);
    }
    return v;
  }
};

constexpr int kNotFinite = 2047;
// |v| < 2^(exponent - 1022).
JAXTV_DEVICE int exponent_of(double v) {
  std::uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return int(bits >> 52 & 2047);
}
JAXTV_DEVICE double power_of_2(int k) {
  const std::uint64_t bits = std::uint64_t(k + 1023) << 52;
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
// Of values below 2^(exponent - 1022) to fixed point below 2^31, which 2^31 of them can not
// overflow.
JAXTV_DEVICE int shift_of(const Sum& sum) { return min_of(1053 - sum.exponent, 1022); }

// Sums are as two whole numbers: whole is signed, part in [0, 2^32).
JAXTV_DEVICE void carry(const Sum& sum, long long& whole, std::uint64_t& part) {
  whole = static_cast<long long>(sum.whole) + (static_cast<long long>(sum.part) >> 32);
  part = sum.part & 0xffffffffu;
}
constexpr double kParts = 4294967296.0;

JAXTV_DEVICE double total_of(const Sum& sum) {
  if (sum.exponent == kNotFinite) return kNaN<double>;
  long long whole;
  std::uint64_t part;
  carry(sum, whole, part);
  return (double(whole) + double(part) / kParts) * power_of_2(-shift_of(sum));
}
// Long division, so that rounding comes last.
JAXTV_DEVICE double mean_of(const Sum& sum) {
  if (sum.exponent == kNotFinite) return kNaN<double>;
  long long whole;
  std::uint64_t part;
  carry(sum, whole, part);
  long long quotient = whole / sum.count;
  if (quotient * sum.count > whole) --quotient;
  const std::uint64_t rest = std::uint64_t(whole - quotient * sum.count) << 32 | part;
  return (double(quotient) + double(rest / sum.count) / kParts) * power_of_2(-shift_of(sum));
}

// A value and the group that it belongs to, or kNone.
struct Term {
  Index group;
  double value;
};

// Reads terms. Writes the largest exponent and the number of terms of every group.
template <class Terms>
__global__ void __launch_bounds__(kThreads) find_exponents(Terms terms, Sum* sums) {
  const Term term = terms(sample());
  const LaneGroup lanes(term.group);
  const int exponent =
      lanes.fold(exponent_of(term.value), [](int a, int b) { return max_of(a, b); });
  if (!lanes.first || term.group == kNone) return;
  atomicMax(&sums[term.group].exponent, exponent);
  atomicAdd(&sums[term.group].count, lanes.end - lanes.lane);
}

// Reads terms and exponents. Adds to the sum of every group.
template <class Terms>
__global__ void __launch_bounds__(kThreads) add_terms(Terms terms, Sum* sums) {
  const Term term = terms(sample());
  const LaneGroup lanes(term.group);
  double v = 0;
  if (term.group != kNone && sums[term.group].exponent != kNotFinite)
    v = term.value * power_of_2(shift_of(sums[term.group]));
  const long long whole = static_cast<long long>(v);
  const long long part = static_cast<long long>((v - double(whole)) * kParts);
  const auto plus = [](long long a, long long b) { return a + b; };
  const long long wholes = lanes.fold(whole, plus), parts = lanes.fold(part, plus);
  if (!lanes.first || term.group == kNone) return;
  atomicAdd(&sums[term.group].whole, static_cast<unsigned long long>(wholes));
  atomicAdd(&sums[term.group].part, static_cast<unsigned long long>(parts));
}

// Reads labels and sums. Writes the mean in place of the sum of every root.
__global__ void __launch_bounds__(kThreads)
    write_component_means(Index samples, const Index* label, Sum* sums) {
  const Index i = sample();
  if (i < samples && label[i] == i) sums[i].mean = mean_of(sums[i]);
}

// ---- what is averaged, and what becomes of it ----

template <class Sample>
struct VjpTerms {
  Index samples;
  const Index* label;
  const Sample* g;
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= samples) return {kNone, 0};
    return {label[i], double(Compute<Sample>(g[i]))};
  }
};

template <class Sample>
struct JvpTerms {
  Graph graph;
  const Index* label;
  const Sample* tx;
  GridWeights<const Compute<Sample>> tw;

  // s tw of the edge after sample k along axis a, which D^T takes from that sample and gives to the
  // next.
  JAXTV_DEVICE double jump_term(int a, const Coordinates& p, Index k, Index i) const {
    const Axis& shape = graph.axis[a];
    const int code = graph.code(a, i);
    if (code != kJumpUp && code != kJumpDown) return 0;
    const Index edge = tw.per_edge[a] ? p.outer * (shape.n - 1) + k : p.outer;
    const double w = double(tw.data[a][edge * shape.inner + p.inner]);
    return code == kJumpUp ? w : -w;
  }
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= graph.samples) return {kNone, 0};
    double v = double(Compute<Sample>(tx[i]));
    for (int a = 0; a < graph.axes; ++a) {
      const Coordinates p(graph.axis[a], i);
      if (p.k > 0) v -= jump_term(a, p, p.k - 1, i - graph.axis[a].inner);
      if (p.k + 1 < graph.axis[a].n) v += jump_term(a, p, p.k, i);
    }
    return {label[i], v};
  }
};

// -s_e (mean_{e+1} - mean_e), group by group of the edges of a signal.
struct Slopes {
  Graph graph;
  int axis;
  const Index* label;
  const Sum* sums;

  JAXTV_DEVICE double slope(Index i) const {
    const int code = graph.code(axis, i);
    if (code != kJumpUp && code != kJumpDown) return 0;
    const double jump = sums[label[i + graph.axis[axis].inner]].mean - sums[label[i]].mean;
    return code == kJumpUp ? -jump : jump;
  }
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= graph.samples) return {kNone, 0};
    const Axis& shape = graph.axis[axis];
    const Coordinates p(shape, i);
    if (p.k + 1 >= shape.n) return {kNone, 0};
    return {p.outer * shape.inner + p.inner, slope(i)};
  }
};

// Reads labels and means. Writes the mean of every sample.
template <class Sample>
__global__ void __launch_bounds__(kThreads)
    write_means(Index samples, const Index* label, const Sum* sums, Sample* out) {
  const Index i = sample();
  if (i < samples) out[i] = Compute<Sample>(sums[label[i]].mean);
}

// Reads codes, labels and means. Writes the slope of every edge.
template <class T>
__global__ void __launch_bounds__(kThreads) write_slopes(Slopes slopes, T* gw) {
  const Index i = sample();
  if (i >= slopes.graph.samples) return;
  const Axis& shape = slopes.graph.axis[slopes.axis];
  const Coordinates p(shape, i);
  if (p.k + 1 < shape.n)
    gw[(p.outer * (shape.n - 1) + p.k) * shape.inner + p.inner] = T(slopes.slope(i));
}

// Reads nothing. Writes an empty sum for every signal.
__global__ void __launch_bounds__(kThreads) clear_sums(Index groups, Sum* sums) {
  const Index i = sample();
  if (i < groups) sums[i] = Sum{};
}
// Reads sums of signals. Writes them as the cotangents of one λ each.
template <class T>
__global__ void __launch_bounds__(kThreads) write_totals(Index groups, const Sum* sums, T* gw) {
  const Index i = sample();
  if (i < groups) gw[i] = T(total_of(sums[i]));
}
// Of signals without edges: a thread owns every gridDim.x * kThreads-th element. Writes zeros.
template <class T>
__global__ void __launch_bounds__(kThreads) write_zeros(std::int64_t size, T* gw) {
  const std::int64_t step = std::int64_t(gridDim.x) * kThreads;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x; i < size; i += step)
    gw[i] = T(0);
}

// ---- launching ----

// Launches until one goes wrong.
struct Launches {
  cudaStream_t stream;
  Status bad = nullptr;
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), std::int64_t threads, A... args) {
    if (!bad) bad = launch(name, kernel, ceil_div(threads, kThreads), kThreads, 0, stream, args...);
  }
};

// Scratch: sums of components, sums of signals, labels.
struct Scratch {
  Sum *sums, *signals;
  Index* label;
  Scratch(const Grid& grid, const bool* per_edge, void* scratch_memory)
      : sums(static_cast<Sum*>(scratch_memory)),
        signals(sums + arrays_at_once(grid) * grid.size),
        label(reinterpret_cast<Index*>(signals + summed_signals(grid, per_edge))) {}
};

Graph graph_of(const Grid& grid, const std::uint8_t* codes, std::int64_t arrays) {
  Graph g{.codes = codes,
          .samples = Index(arrays * grid.size),
          .size = Index(grid.size),
          .axes = grid.axes,
          .bytes_per_sample = int(grid.bytes_per_sample()),
          .by_size = Divider(grid.size),
          .axis = {}};
  for (int a = 0; a < grid.axes; ++a) {
    const Shape& shape = grid.shapes[a];
    g.axis[a] = {.n = Index(shape.n),
                 .inner = Index(shape.inner),
                 .by_n = Divider(shape.n),
                 .by_inner = Divider(shape.inner)};
  }
  return g;
}

// The means of the terms of all samples, at the roots.
template <class Terms>
void average(Launches& run, const Graph& g, const Terms& terms, const Scratch& scratch) {
  run("start_labels", start_labels, g.samples, g, scratch.label, scratch.sums);
  run("hook_labels", hook_labels, g.samples, g, scratch.label);
  run("flatten_labels", flatten_labels, g.samples, g.samples, scratch.label);
  run("find_exponents", find_exponents<Terms>, g.samples, terms, scratch.sums);
  run("add_terms", add_terms<Terms>, g.samples, terms, scratch.sums);
  run("write_component_means", write_component_means, g.samples, g.samples, scratch.label,
      scratch.sums);
}

template <class T>
void write_weights(Launches& run, const Graph& g, int axis, bool per_edge, const Scratch& scratch,
                   T* gw) {
  const Slopes slopes{g, axis, scratch.label, scratch.sums};
  const Index groups = g.samples / g.axis[axis].n;
  if (per_edge) return run("write_slopes", write_slopes<T>, g.samples, slopes, gw);
  run("clear_sums", clear_sums, groups, groups, scratch.signals);
  run("find_exponents", find_exponents<Slopes>, g.samples, slopes, scratch.signals);
  run("add_terms", add_terms<Slopes>, g.samples, slopes, scratch.signals);
  run("write_totals", write_totals<T>, groups, groups, scratch.signals, gw);
}

// Weights of one array.
std::int64_t weights_of(const Shape& shape, bool per_edge) {
  return shape.signals() * (per_edge ? shape.n - 1 : 1);
}

constexpr Status kTooLarge = "an array of more than 2^31 - 1 samples behind its batch";

}  // namespace

template <class Sample>
Status components_jvp(cudaStream_t stream, const Grid& grid, const std::uint8_t* codes,
                      const Sample* tx, const GridWeights<const Compute<Sample>>& tw, Sample* ty,
                      void* scratch_memory) {
  if (grid.size > kMostSamples) return kTooLarge;
  if (grid.batch == 0 || grid.size == 0) return nullptr;
  const Scratch scratch(grid, nullptr, scratch_memory);
  const std::int64_t arrays = arrays_at_once(grid);
  Launches run{stream};
  for (std::int64_t first = 0; first < grid.batch; first += arrays) {
    const Graph g = graph_of(grid, codes + first * grid.bytes_per_sample() * grid.size,
                             min_of(arrays, grid.batch - first));
    JvpTerms<Sample> terms{g, scratch.label, tx + first * grid.size, tw};
    for (int a = 0; a < grid.axes; ++a)
      terms.tw.data[a] += first * weights_of(grid.shapes[a], tw.per_edge[a]);
    average(run, g, terms, scratch);
    run("write_means", write_means<Sample>, g.samples, g.samples, scratch.label, scratch.sums,
        ty + first * grid.size);
  }
  return run.bad;
}

template <class Sample>
Status components_vjp(cudaStream_t stream, const Grid& grid, const std::uint8_t* codes,
                      const Sample* g, Sample* gx, const GridWeights<Compute<Sample>>& gw,
                      void* scratch_memory) {
  using T = Compute<Sample>;
  if (grid.size > kMostSamples) return kTooLarge;
  Launches run{stream};
  for (int a = 0; a < grid.axes; ++a)
    if (grid.shapes[a].n < 2) {
      const std::int64_t size = grid.batch * weights_of(grid.shapes[a], gw.per_edge[a]);
      run("write_zeros", write_zeros<T>, size, size, gw.data[a]);
    }
  if (grid.batch == 0 || grid.size == 0) return run.bad;
  const Scratch scratch(grid, gw.per_edge, scratch_memory);
  const std::int64_t arrays = arrays_at_once(grid);
  for (std::int64_t first = 0; first < grid.batch; first += arrays) {
    const Graph graph = graph_of(grid, codes + first * grid.bytes_per_sample() * grid.size,
                                 min_of(arrays, grid.batch - first));
    average(run, graph, VjpTerms<Sample>{graph.samples, scratch.label, g + first * grid.size},
            scratch);
    run("write_means", write_means<Sample>, graph.samples, graph.samples, scratch.label,
        scratch.sums, gx + first * grid.size);
    for (int a = 0; a < grid.axes; ++a)
      if (grid.shapes[a].n > 1)
        write_weights(run, graph, a, gw.per_edge[a], scratch,
                      gw.data[a] + first * weights_of(grid.shapes[a], gw.per_edge[a]));
  }
  return run.bad;
}

#define JAXTV_INSTANTIATE(Sample)                                                               \
  template Status components_jvp(cudaStream_t, const Grid&, const std::uint8_t*, const Sample*, \
                                 const GridWeights<const Compute<Sample>>&, Sample*, void*);    \
  template Status components_vjp(cudaStream_t, const Grid&, const std::uint8_t*, const Sample*, \
                                 Sample*, const GridWeights<Compute<Sample>>&, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
