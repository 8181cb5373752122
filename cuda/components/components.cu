// Connected components by union-find on the whole device, and sums over them that do not depend on
// the order of the atomics.
//
// **Labels.** A label is a sample of the same component that is not behind: labels only fall, and
// that of a root is itself. `start` points every sample at its least neighbour, `hook` unites what
// that has left apart, `flatten` puts the root, the first sample of the component, everywhere. An
// edge is hooked by compare-and-swap on a root, so the result does not depend on who comes first.
//
// **Sums.** Integers: the atomics commute. `measure` finds the largest exponent of a group, `add`
// sums up its values in two words of fixed point that reach 62 bits below that. So a mean is right
// to the last bit of a double next to the largest value, that of equal values is that value, and a
// group may be as large as the whole image: nothing is sequential. Neighbouring lanes of one group
// go to memory together.
#include <cstring>

#include "components/components.hpp"
#include "half.cuh"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

using Index = std::uint32_t;
constexpr std::int64_t kMostSamples = 2147483647;  // of what is done at once
constexpr int kThreads = 256;
constexpr Index kNone = ~Index(0);

// ---- the grid as kernels see it: as many arrays as have less than 2^31 samples ----

struct Along {
  Index n, inner;
  Divider by_n, by_inner;
};
struct Graph {
  const std::uint8_t* masks;
  Index samples, size;  // size: of one array
  int axes, planes;
  Divider by_size;
  Along along[kMaxAxes];

  // Of the edge after sample i along axis a.
  JAXTV_DEVICE int code(int a, Index i) const {
    std::int64_t at = i;  // and the planes between the arrays before it
    if (planes > 1)
      at += std::int64_t(by_size.div(i)) * (planes - 1) * size + std::int64_t(a / 4) * size;
    return masks[at] >> 2 * (a % 4) & 3;
  }
};

// Sample k of the signal (outer, inner).
struct Place {
  Index outer, k, inner;
  JAXTV_DEVICE Place(const Along& a, Index i) {
    const Index row = a.by_inner.div(i);
    inner = i - row * a.inner;
    outer = a.by_n.div(row);
    k = row - outer * a.n;
  }
};

JAXTV_DEVICE Index sample() { return blockIdx.x * kThreads + threadIdx.x; }
std::int64_t blocks_of(std::int64_t samples) { return (samples + kThreads - 1) / kThreads; }

JAXTV_DEVICE bool joined_before(const Graph& g, int a, Index i) {
  const Along& along = g.along[a];
  return Place(along, i).k > 0 && g.code(a, i - along.inner) == kJoined;
}

// ---- labels ----

// What the atomics add up; the mean takes their place.
struct Sum {
  union {
    unsigned long long whole;
    double mean;
  };
  unsigned long long part;  // 2^-32 of whole
  int exponent, count;
};

// The axis along which `start` points: that of the least joined neighbour. -1: there is none.
JAXTV_DEVICE int axis_to_start(const Graph& g, Index i) {
  int best = -1;
  for (int a = 0; a < g.axes; ++a)
    if ((best < 0 || g.along[a].inner > g.along[best].inner) && joined_before(g, a, i)) best = a;
  return best;
}

__global__ void __launch_bounds__(kThreads) start(Graph g, Index* label, Sum* sums) {
  const Index i = sample();
  if (i >= g.samples) return;
  const int a = axis_to_start(g, i);
  label[i] = a < 0 ? i : i - g.along[a].inner;
  sums[i] = Sum{};
}

// Halves the path that it walks. Others may do the same: they only ever store what is further up.
JAXTV_DEVICE Index root(volatile Index* label, Index i) {
  for (Index up = label[i]; up != i; up = label[i]) {
    const Index next = label[up];
    if (next != up) label[i] = next;
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

// An edge whose two ends are joined around the other side of a square needs no hook: of the four
// edges it is the last, and the others hold together by the same argument.
__global__ void __launch_bounds__(kThreads) hook(Graph g, Index* label) {
  const Index i = sample();
  if (i >= g.samples) return;
  const int up = axis_to_start(g, i);
  for (int a = 0; a < g.axes; ++a) {
    if (a == up || !joined_before(g, a, i)) continue;
    const Index corner = i - g.along[up].inner - g.along[a].inner;
    if (g.code(a, corner) == kJoined && g.code(up, corner) == kJoined) continue;
    unite(label, i, i - g.along[a].inner);
  }
}

__global__ void __launch_bounds__(kThreads) flatten(Index samples, Index* label) {
  const Index i = sample();
  if (i < samples) label[i] = root(label, i);
}

// ---- sums ----

// Neighbouring lanes of one group. All lanes of the warp make one and call fold.
struct Runs {
  int lane, end;
  bool first;

  JAXTV_DEVICE explicit Runs(Index group) : lane(threadIdx.x % kWarp) {
    const Index before = __shfl_up_sync(kAllLanes, group, 1);
    const unsigned starts = __ballot_sync(kAllLanes, lane == 0 || before != group);
    const unsigned later = starts & ~0u << lane << 1;
    first = starts >> lane & 1;
    end = later != 0 ? __ffs(int(later)) - 1 : kWarp;
  }
  // Of the first lane: f over the run.
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
JAXTV_DEVICE int shift_of(const Sum& s) { return min_of(1053 - s.exponent, 1022); }

// Sums are as two whole numbers: whole is signed, part in [0, 2^32).
JAXTV_DEVICE void carry(const Sum& s, long long& whole, std::uint64_t& part) {
  whole = static_cast<long long>(s.whole) + (static_cast<long long>(s.part) >> 32);
  part = s.part & 0xffffffffu;
}
constexpr double kParts = 4294967296.0;

JAXTV_DEVICE double total_of(const Sum& s) {
  if (s.exponent == kNotFinite) return kNaN<double>;
  long long whole;
  std::uint64_t part;
  carry(s, whole, part);
  return (double(whole) + double(part) / kParts) * power_of_2(-shift_of(s));
}
// Long division, so that rounding comes last.
JAXTV_DEVICE double mean_of(const Sum& s) {
  if (s.exponent == kNotFinite) return kNaN<double>;
  long long whole;
  std::uint64_t part;
  carry(s, whole, part);
  long long quotient = whole / s.count;
  if (quotient * s.count > whole) --quotient;
  const std::uint64_t rest = std::uint64_t(whole - quotient * s.count) << 32 | part;
  return (double(quotient) + double(rest / s.count) / kParts) * power_of_2(-shift_of(s));
}

// A value and the group that it belongs to, or kNone.
struct Term {
  Index group;
  double value;
};

template <class Terms>
__global__ void __launch_bounds__(kThreads) measure(Terms terms, Sum* sums) {
  const Term t = terms(sample());
  const Runs runs(t.group);
  const int exponent = runs.fold(exponent_of(t.value), [](int a, int b) { return max_of(a, b); });
  if (!runs.first || t.group == kNone) return;
  atomicMax(&sums[t.group].exponent, exponent);
  atomicAdd(&sums[t.group].count, runs.end - runs.lane);
}

template <class Terms>
__global__ void __launch_bounds__(kThreads) add(Terms terms, Sum* sums) {
  const Term t = terms(sample());
  const Runs runs(t.group);
  double v = 0;
  if (t.group != kNone && sums[t.group].exponent != kNotFinite)
    v = t.value * power_of_2(shift_of(sums[t.group]));
  const long long whole = static_cast<long long>(v);
  const long long part = static_cast<long long>((v - double(whole)) * kParts);
  const auto plus = [](long long a, long long b) { return a + b; };
  const long long wholes = runs.fold(whole, plus), parts = runs.fold(part, plus);
  if (!runs.first || t.group == kNone) return;
  atomicAdd(&sums[t.group].whole, static_cast<unsigned long long>(wholes));
  atomicAdd(&sums[t.group].part, static_cast<unsigned long long>(parts));
}

__global__ void __launch_bounds__(kThreads) finish(Index samples, const Index* label, Sum* sums) {
  const Index i = sample();
  if (i < samples && label[i] == i) sums[i].mean = mean_of(sums[i]);
}

// ---- what is averaged, and what becomes of it ----

template <class D>
struct Cotangents {
  Index samples;
  const Index* label;
  const D* g;
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= samples) return {kNone, 0};
    return {label[i], double(Compute<D>(g[i]))};
  }
};

template <class D>
struct Tangents {
  Graph graph;
  const Index* label;
  const D* tx;
  GridWeights<const Compute<D>> tw;

  // What the edge after sample k along axis a takes from it, and gives to the next.
  JAXTV_DEVICE double push(int a, const Place& p, Index k, Index i) const {
    const Along& along = graph.along[a];
    const int code = graph.code(a, i);
    if (code != kJumpUp && code != kJumpDown) return 0;
    const Index edge = tw.per_edge[a] ? p.outer * (along.n - 1) + k : p.outer;
    const double w = double(tw.data[a][edge * along.inner + p.inner]);
    return code == kJumpUp ? w : -w;
  }
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= graph.samples) return {kNone, 0};
    double v = double(Compute<D>(tx[i]));
    for (int a = 0; a < graph.axes; ++a) {
      const Place p(graph.along[a], i);
      if (p.k > 0) v -= push(a, p, p.k - 1, i - graph.along[a].inner);
      if (p.k + 1 < graph.along[a].n) v += push(a, p, p.k, i);
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
    const double jump = sums[label[i + graph.along[axis].inner]].mean - sums[label[i]].mean;
    return code == kJumpUp ? -jump : jump;
  }
  JAXTV_DEVICE Term operator()(Index i) const {
    if (i >= graph.samples) return {kNone, 0};
    const Along& along = graph.along[axis];
    const Place p(along, i);
    if (p.k + 1 >= along.n) return {kNone, 0};
    return {p.outer * along.inner + p.inner, slope(i)};
  }
};

template <class D>
__global__ void __launch_bounds__(kThreads)
    write_means(Index samples, const Index* label, const Sum* sums, D* out) {
  const Index i = sample();
  if (i < samples) out[i] = Compute<D>(sums[label[i]].mean);
}

template <class T>
__global__ void __launch_bounds__(kThreads) write_slopes(Slopes slopes, T* gw) {
  const Index i = sample();
  if (i >= slopes.graph.samples) return;
  const Along& along = slopes.graph.along[slopes.axis];
  const Place p(along, i);
  if (p.k + 1 < along.n)
    gw[(p.outer * (along.n - 1) + p.k) * along.inner + p.inner] = T(slopes.slope(i));
}

__global__ void __launch_bounds__(kThreads) clear_sums(Index groups, Sum* sums) {
  const Index i = sample();
  if (i < groups) sums[i] = Sum{};
}
template <class T>
__global__ void __launch_bounds__(kThreads) write_totals(Index groups, const Sum* sums, T* gw) {
  const Index i = sample();
  if (i < groups) gw[i] = T(total_of(sums[i]));
}
// Signals without edges.
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
    if (!bad) bad = launch(name, kernel, blocks_of(threads), kThreads, 0, stream, args...);
  }
};

// Arrays that are done at once.
std::int64_t arrays_at_once(const Grid& grid) {
  return grid.size == 0 ? grid.batch : min_of(grid.batch, kMostSamples / grid.size);
}

// Scratch: sums of components, sums of signals, labels.
struct Scratch {
  Sum *sums, *signals;
  Index* label;
  Scratch(const Grid& grid, const bool* per_edge, void* workspace)
      : sums(static_cast<Sum*>(workspace)),
        signals(sums + arrays_at_once(grid) * grid.size),
        label(reinterpret_cast<Index*>(signals + most_signals(grid, per_edge))) {}

  static std::int64_t most_signals(const Grid& grid, const bool* per_edge) {
    std::int64_t most = 0;
    for (int a = 0; per_edge && a < grid.axes; ++a)
      if (!per_edge[a] && grid.along[a].n > 1) most = max_of(most, grid.along[a].signals());
    return most * arrays_at_once(grid);
  }
};

Graph graph_of(const Grid& grid, const std::uint8_t* masks, std::int64_t arrays) {
  Graph g{masks,     Index(arrays * grid.size), Index(grid.size),
          grid.axes, int(grid.planes()),        Divider(grid.size),
          {}};
  for (int a = 0; a < grid.axes; ++a) {
    const Shape& s = grid.along[a];
    g.along[a] = {Index(s.n), Index(s.inner), Divider(s.n), Divider(s.inner)};
  }
  return g;
}

// Of the tangents or cotangents of all samples: the means at the roots.
template <class Terms>
void average(Launches& run, const Graph& g, const Terms& terms, const Scratch& scratch) {
  run("start", start, g.samples, g, scratch.label, scratch.sums);
  run("hook", hook, g.samples, g, scratch.label);
  run("flatten", flatten, g.samples, g.samples, scratch.label);
  run("measure", measure<Terms>, g.samples, terms, scratch.sums);
  run("add", add<Terms>, g.samples, terms, scratch.sums);
  run("finish", finish, g.samples, g.samples, scratch.label, scratch.sums);
}

template <class T>
void write_weights(Launches& run, const Graph& g, int axis, bool per_edge, const Scratch& scratch,
                   T* gw) {
  const Slopes slopes{g, axis, scratch.label, scratch.sums};
  const Index groups = g.samples / g.along[axis].n;
  if (per_edge) return run("write_slopes", write_slopes<T>, g.samples, slopes, gw);
  run("clear_sums", clear_sums, groups, groups, scratch.signals);
  run("measure", measure<Slopes>, g.samples, slopes, scratch.signals);
  run("add", add<Slopes>, g.samples, slopes, scratch.signals);
  run("write_totals", write_totals<T>, groups, groups, scratch.signals, gw);
}

// Weights of one array.
std::int64_t weights_of(const Shape& s, bool per_edge) {
  return s.signals() * (per_edge ? s.n - 1 : 1);
}

constexpr Status kTooLarge = "an array of more than 2^31 - 1 samples behind its batch";

}  // namespace

std::int64_t components_workspace(const Grid& grid, const bool* per_edge) {
  if (grid.size > kMostSamples) return 0;
  const std::int64_t samples = arrays_at_once(grid) * grid.size;
  return samples * std::int64_t(sizeof(Sum) + sizeof(Index)) +
         Scratch::most_signals(grid, per_edge) * std::int64_t(sizeof(Sum));
}

template <class D>
Status components_push(cudaStream_t stream, const Grid& grid, const std::uint8_t* masks,
                       const D* tx, const GridWeights<const Compute<D>>& tw, D* ty,
                       void* workspace) {
  if (grid.size > kMostSamples) return kTooLarge;
  if (grid.batch == 0 || grid.size == 0) return nullptr;
  const Scratch scratch(grid, nullptr, workspace);
  const std::int64_t arrays = arrays_at_once(grid);
  Launches run{stream};
  for (std::int64_t first = 0; first < grid.batch; first += arrays) {
    const Graph g = graph_of(grid, masks + first * grid.planes() * grid.size,
                             min_of(arrays, grid.batch - first));
    Tangents<D> tangents{g, scratch.label, tx + first * grid.size, tw};
    for (int a = 0; a < grid.axes; ++a)
      tangents.tw.data[a] += first * weights_of(grid.along[a], tw.per_edge[a]);
    average(run, g, tangents, scratch);
    run("write_means", write_means<D>, g.samples, g.samples, scratch.label, scratch.sums,
        ty + first * grid.size);
  }
  return run.bad;
}

template <class D>
Status components_pull(cudaStream_t stream, const Grid& grid, const std::uint8_t* masks, const D* g,
                       D* gx, const GridWeights<Compute<D>>& gw, void* workspace) {
  using T = Compute<D>;
  if (grid.size > kMostSamples) return kTooLarge;
  Launches run{stream};
  for (int a = 0; a < grid.axes; ++a)
    if (grid.along[a].n < 2) {
      const std::int64_t size = grid.batch * weights_of(grid.along[a], gw.per_edge[a]);
      run("write_zeros", write_zeros<T>, size, size, gw.data[a]);
    }
  if (grid.batch == 0 || grid.size == 0) return run.bad;
  const Scratch scratch(grid, gw.per_edge, workspace);
  const std::int64_t arrays = arrays_at_once(grid);
  for (std::int64_t first = 0; first < grid.batch; first += arrays) {
    const Graph graph = graph_of(grid, masks + first * grid.planes() * grid.size,
                                 min_of(arrays, grid.batch - first));
    average(run, graph, Cotangents<D>{graph.samples, scratch.label, g + first * grid.size},
            scratch);
    run("write_means", write_means<D>, graph.samples, graph.samples, scratch.label, scratch.sums,
        gx + first * grid.size);
    for (int a = 0; a < grid.axes; ++a)
      if (grid.along[a].n > 1)
        write_weights(run, graph, a, gw.per_edge[a], scratch,
                      gw.data[a] + first * weights_of(grid.along[a], gw.per_edge[a]));
  }
  return run.bad;
}

#define JAXTV_INSTANTIATE(D)                                                                    \
  template Status components_push(cudaStream_t, const Grid&, const std::uint8_t*, const D*,     \
                                  const GridWeights<const Compute<D>>&, D*, void*);             \
  template Status components_pull(cudaStream_t, const Grid&, const std::uint8_t*, const D*, D*, \
                                  const GridWeights<Compute<D>>&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
