// Segment means. A signal is read once where it fits in a tile. A longer one is cut into chunks: a
// first launch sums up each chunk (the run that is open at its left end and the one at its right
// end), a second scans these sums, a third computes the means with what flows in from both sides.
// Sums are in double and in a fixed order; there are no atomics.
#include "half.cuh"
#include "segments.hpp"
#include "tile.cuh"

namespace jaxtv::cuda {
namespace {

// The samples at one end of a range, up to the first cut met from that end.
struct Run {
  double sum = 0;
  std::int64_t count = 0;
  int closed = 0;  // a cut was met
};
// `far` lies behind `near`, seen from the end that the runs are open to.
JAXTV_DEVICE Run join(const Run& far, const Run& near) {
  if (near.closed) return near;
  return {far.sum + near.sum, far.count + near.count, far.closed};
}

// Of one chunk of a signal. First its own runs, then what flows in.
struct Link {
  Run left, right;
  double total;  // of the chunk's gw
};
constexpr int kScanThreads = 256;

template <class T>
JAXTV_DEVICE std::uint8_t code_of(const Edges<T>& e, const Shape& s, std::int64_t batch,
                                  std::int64_t outer, std::int64_t k, std::int64_t inner) {
  if (k < 0 || k + 1 >= s.n) return kCut;
  const std::int64_t at = (outer * s.n + k) * s.inner + inner;
  if (!e.y) {
    const std::int64_t in_element = at - batch * s.outer * s.n * s.inner;
    return e.mask[batch * e.mask_stride + in_element] >> e.shift & 3;
  }
  const T a = e.y[at], b = e.y[at + s.inner];
  if (a < b) return kJumpUp;
  if (a > b) return kJumpDown;
  const std::int64_t w =
      e.per_edge ? (outer * (s.n - 1) + k) * s.inner + inner : outer * s.inner + inner;
  return a == b && e.w[w] > T(0) ? kJoined : kCut;
}

// ---- a tile in shared memory ----

template <class T>
struct Stage {
  Shared<Run> runs;            // one per thread, when several threads share a signal
  Shared<T> values;            // rows + 1: the last is the mean of the segment after the tile
  Shared<std::uint8_t> codes;  // rows + 1: row k is the edge before sample k
  int pitch;

  JAXTV_DEVICE Stage(Arena& arena, const Tiling& t) : pitch(t.pitch) {
    runs = arena.take<Run>(t.parts > 1 ? blockDim.x : 0);
    values = arena.take<T>(t.elements(1));
    codes = arena.take<std::uint8_t>(t.elements(1));
  }
  JAXTV_DEVICE std::uint8_t before(int k, int lane) const { return codes[k * pitch + lane]; }
  JAXTV_DEVICE std::uint8_t after(int k, int lane) const { return codes[(k + 1) * pitch + lane]; }
};

// Inclusive scans of `mine` over the parts of each lane; every thread of the block calls it.
// kReverse: from the last part to the first. Returns what comes before, `mine` becomes the total so
// far.
template <bool kReverse>
JAXTV_DEVICE Run scan(Shared<Run> runs, Run& mine, int part, int parts, int step) {
  if (parts == 1) return {};
  const int thread = threadIdx.x;
  const auto fetch = [&](int distance) -> Run {
    const int from = kReverse ? part + distance : part - distance;
    if (part >= parts || from < 0 || from >= parts) return {};
    return runs[kReverse ? thread + distance * step : thread - distance * step];
  };
  for (int distance = 1; distance < parts; distance *= 2) {
    runs[thread] = mine;
    __syncthreads();
    const Run other = fetch(distance);
    __syncthreads();
    mine = join(other, mine);
  }
  runs[thread] = mine;
  __syncthreads();
  const Run before = fetch(1);
  __syncthreads();
  return before;
}

template <class T>
JAXTV_DEVICE void load_codes(const Stage<T>& stage, const Tiling& t, const Tile& tile,
                             const Edges<T>& edges) {
  for_lanes(t, tile, [&](int lane, std::int64_t outer, std::int64_t inner) {
    stage.codes[lane] = code_of(edges, t.shape, tile.batch, outer, tile.row - 1, inner);
  });
  for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
    stage.codes[(k + 1) * t.pitch + lane] =
        code_of(edges, t.shape, tile.batch, outer, tile.row + k, inner);
  });
}
// source(i) is the value at offset i of the arrays.
template <class T, class F>
JAXTV_DEVICE void load_values(const Stage<T>& stage, const Tiling& t, const Tile& tile, F source) {
  for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
    stage.values[k * t.pitch + lane] =
        source((outer * t.shape.n + tile.row + k) * t.shape.inner + inner);
  });
}

// ---- the two operations: what a sample adds to its segment, and what is written ----

template <class D>
struct PullTile {
  using T = Compute<D>;
  Stage<T> stage;
  const Pull<D>& op;

  JAXTV_DEVICE PullTile(Arena& arena, const Tiling& t, const Pull<D>& op)
      : stage(arena, t), op(op) {}
  JAXTV_DEVICE void load(const Tiling& t, const Tile& tile) {
    load_codes(stage, t, tile, op.edges);
    load_values(stage, t, tile, [&](std::int64_t at) -> T {
      const T g = op.g ? T(op.g[at]) : T(0);
      return op.own ? g - op.own[at] : g;
    });
  }
  JAXTV_DEVICE void select(const Tiling&, const Tile&, const Share&) {}
  JAXTV_DEVICE double value(int k, int lane) const {
    return double(T(stage.values[k * stage.pitch + lane]));
  }

  // -s_e (mean_{e+1} - mean_e) of the edge after sample k.
  JAXTV_DEVICE double slope(int k, int lane) const {
    const std::uint8_t code = stage.after(k, lane);
    if (code != kJumpUp && code != kJumpDown) return 0;
    const double jump = double(T(stage.values[(k + 1) * stage.pitch + lane])) - value(k, lane);
    return code == kJumpUp ? -jump : jump;
  }
  JAXTV_DEVICE void put(std::int64_t at, T c) const {
    const T b = op.own ? c + op.own[at] : c;
    const T sum = op.add ? op.sum[at] + b : b;
    if (op.sum) op.sum[at] = sum;
    if (op.gx) op.gx[at] = sum;
    for (int j = 0; j < op.others.count; ++j) {
      T* other = op.others.data[j] + at;
      *other = op.opened >> j & 1 ? *other - b : -b;
    }
  }
  JAXTV_DEVICE void add(std::int64_t at, double v) const {
    op.gw[at] = T(op.accumulate ? double(op.gw[at]) + v : v);
  }
  // After the means are in the tile.
  JAXTV_DEVICE void store(const Tiling& t, const Tile& tile, const Share& share, Link* links) {
    const Shape& s = t.shape;
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      const std::int64_t row = tile.row + k;
      put((outer * s.n + row) * s.inner + inner, stage.values[k * t.pitch + lane]);
      if (op.per_edge && row + 1 < s.n)
        add((outer * (s.n - 1) + row) * s.inner + inner, slope(k, lane));
    });
    if (op.per_edge) return;
    Run total{};
    for (int k = share.begin; k < share.end; ++k) total.sum += slope(k, share.lane);
    scan<false>(stage.runs, total, share.part, t.parts, t.lanes());
    if (!share.active || share.part != t.parts - 1) return;
    const std::int64_t signal = tile.signal(t, share.lane);
    if (t.chunks == 1)
      add(signal, total.sum);
    else
      links[signal * t.chunks + tile.chunk].total = total.sum;
  }
};

template <class D>
struct PushTile {
  using T = Compute<D>;
  Stage<T> stage;
  Shared<T> forces;  // rows + 1: row k is tw of the edge before sample k; only per edge
  const Push<D>& op;
  T uniform = 0;

  JAXTV_DEVICE PushTile(Arena& arena, const Tiling& t, const Push<D>& op)
      : stage(arena, t), op(op) {
    forces = arena.take<T>(op.per_edge ? t.elements(1) : 0);
  }
  JAXTV_DEVICE T tangent(std::int64_t at) const {
    T a = op.tx[at];
    for (int j = 0; j < op.minus.count; ++j) a -= op.minus.data[j][at];
    return a;
  }
  JAXTV_DEVICE void load(const Tiling& t, const Tile& tile) {
    load_codes(stage, t, tile, op.edges);
    load_values(stage, t, tile, [&](std::int64_t at) { return tangent(at); });
    if (!op.per_edge) return;
    const Shape& s = t.shape;
    const auto weight = [&](std::int64_t e, std::int64_t outer, std::int64_t inner) {
      return e < 0 || e + 1 >= s.n ? T(0) : op.tw[(outer * (s.n - 1) + e) * s.inner + inner];
    };
    for_lanes(t, tile, [&](int lane, std::int64_t outer, std::int64_t inner) {
      forces[lane] = weight(tile.row - 1, outer, inner);
    });
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      forces[(k + 1) * t.pitch + lane] = weight(tile.row + k, outer, inner);
    });
  }
  JAXTV_DEVICE void select(const Tiling& t, const Tile& tile, const Share& share) {
    if (share.active && !op.per_edge) uniform = op.tw[tile.signal(t, share.lane)];
  }
  // s_e tw_e of the edge before row k.
  JAXTV_DEVICE double force(int k, int lane) const {
    const std::uint8_t code = stage.before(k, lane);
    if (code != kJumpUp && code != kJumpDown) return 0;
    const double v = double(op.per_edge ? T(forces[k * stage.pitch + lane]) : uniform);
    return code == kJumpUp ? v : -v;
  }
  JAXTV_DEVICE double value(int k, int lane) const {
    const double here = double(T(stage.values[k * stage.pitch + lane]));
    return here + force(k + 1, lane) - force(k, lane);
  }
  JAXTV_DEVICE void store(const Tiling& t, const Tile& tile, const Share&, Link*) {
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      const std::int64_t at = (outer * t.shape.n + tile.row + k) * t.shape.inner + inner;
      const T z = stage.values[k * t.pitch + lane];
      if (op.residual) op.residual[at] = tangent(at) - z;  // before out, which may be tx
      if (op.out) op.out[at] = z;
    });
  }
};

// ---- what a thread does with its rows ----

struct Ends {
  Run left, right;  // the runs that are open to the left and to the right
};

template <class Op>
JAXTV_DEVICE Ends ends_of(const Op& op, const Share& share) {
  Ends ends;
  Run run{};  // since the last cut
  for (int k = share.begin; k < share.end; ++k) {
    run.sum += op.value(k, share.lane);
    ++run.count;
    if (op.stage.after(k, share.lane) == kJoined) continue;
    if (!ends.left.closed) ends.left = {run.sum, run.count, 1};
    run = {0, 0, 1};
  }
  ends.right = run;
  if (!run.closed) ends.left = run;
  return ends;
}

template <class T>
JAXTV_DEVICE T mean_of(const Run& run) {
  return T(run.sum) / T(run.count);
}

// Replaces the values of the rows by the means of their segments. `in.left` and `in.right` are what
// the first and the last segment have outside of the rows.
template <class T, class Op>
JAXTV_DEVICE void means(const Op& op, const Share& share, const Ends& in) {
  if (share.begin == share.end) return;
  const int pitch = op.stage.pitch, lane = share.lane;
  const Shared<T> values = op.stage.values;
  Run run = in.right;
  for (int k = share.end - 1; k >= share.begin; --k) {
    if (op.stage.after(k, lane) != kJoined) run = {};
    run.sum += op.value(k, lane);
    ++run.count;
    const bool starts = k == share.begin || op.stage.before(k, lane) != kJoined;
    if (k == share.begin) run = {run.sum + in.left.sum, run.count + in.left.count, 0};
    if (starts) values[k * pitch + lane] = mean_of<T>(run);
  }
  T mean = values[share.begin * pitch + lane];
  for (int k = share.begin + 1; k < share.end; ++k) {
    if (op.stage.before(k, lane) != kJoined)
      mean = values[k * pitch + lane];
    else
      values[k * pitch + lane] = mean;
  }
}

// ---- kernels ----

// Sums up every chunk of every signal.
template <class T, class OpTile, class Op>
__global__ void __launch_bounds__(kTileThreads) sum_chunks(Tiling t, Op op, Link* links) {
  Arena arena;
  OpTile work(arena, t, op);
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const Share share(t, tile);
    work.load(t, tile);
    work.select(t, tile, share);
    __syncthreads();
    Ends ends = ends_of(work, share);
    scan<true>(work.stage.runs, ends.left, share.part, t.parts, t.lanes());
    scan<false>(work.stage.runs, ends.right, share.part, t.parts, t.lanes());
    if (share.active) {
      Link& link = links[tile.signal(t, share.lane) * t.chunks + tile.chunk];
      if (share.part == 0) link.left = ends.left;
      if (share.part == t.parts - 1) link.right = ends.right;
    }
    __syncthreads();  // the tile is loaded anew
  }
}

// Turns the runs of the chunks of each signal into what flows into them. One block per signal.
__global__ void __launch_bounds__(kScanThreads)
    flow(std::int64_t signals, std::int64_t chunks, Link* links) {
  Arena arena;
  const Shared<Run> runs = arena.take<Run>(blockDim.x);
  const int part = threadIdx.x, parts = blockDim.x;
  const std::int64_t length = (chunks + parts - 1) / parts;
  const std::int64_t begin = min_of(part * length, chunks), end = min_of(begin + length, chunks);
  for (std::int64_t signal = blockIdx.x; signal < signals; signal += gridDim.x) {
    Link* link = links + signal * chunks;
    Run from_left{}, from_right{};
    for (std::int64_t c = begin; c < end; ++c) from_left = join(from_left, link[c].right);
    for (std::int64_t c = end - 1; c >= begin; --c) from_right = join(from_right, link[c].left);
    from_left = scan<false>(runs, from_left, part, parts, 1);
    from_right = scan<true>(runs, from_right, part, parts, 1);
    for (std::int64_t c = end - 1; c >= begin; --c) {
      const Run own = link[c].left;
      link[c].left = from_right;  // for now: link[c].right is still needed
      from_right = join(from_right, own);
    }
    for (std::int64_t c = begin; c < end; ++c) {
      const Run own = link[c].right;
      link[c].right = link[c].left;
      link[c].left = from_left;
      from_left = join(from_left, own);
    }
  }
}

// Means and everything that is written.
template <class T, class OpTile, class Op>
__global__ void __launch_bounds__(kTileThreads) apply(Tiling t, Op op, Link* links) {
  Arena arena;
  OpTile work(arena, t, op);
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const Share share(t, tile);
    work.load(t, tile);
    work.select(t, tile, share);
    __syncthreads();
    Ends around{};  // of the chunk
    if (t.chunks > 1 && share.active) {
      const Link& link = links[tile.signal(t, share.lane) * t.chunks + tile.chunk];
      around = {link.left, link.right};
    }
    Ends in = around;
    if (t.parts > 1) {
      Ends ends = ends_of(work, share);
      in.right = join(around.right,
                      scan<true>(work.stage.runs, ends.left, share.part, t.parts, t.lanes()));
      in.left = join(around.left,
                     scan<false>(work.stage.runs, ends.right, share.part, t.parts, t.lanes()));
    }
    means<T>(work, share, in);
    if (share.active && share.part == t.parts - 1)  // read by the edge after the last row
      work.stage.values[tile.rows * t.pitch + share.lane] =
          around.right.count > 0 ? mean_of<T>(around.right) : T(0);
    __syncthreads();
    work.store(t, tile, share, links);
    __syncthreads();
  }
}

// gw of long signals: the sum over their chunks. One block per signal.
template <class T>
__global__ void __launch_bounds__(kScanThreads)
    sum_totals(std::int64_t signals, std::int64_t chunks, const Link* links, T* gw,
               bool accumulate) {
  Arena arena;
  const Shared<Run> runs = arena.take<Run>(blockDim.x);
  const int part = threadIdx.x, parts = blockDim.x;
  for (std::int64_t signal = blockIdx.x; signal < signals; signal += gridDim.x) {
    Run total{};
    for (std::int64_t c = part; c < chunks; c += parts)
      total.sum += links[signal * chunks + c].total;
    scan<false>(runs, total, part, parts, 1);
    if (part == parts - 1) gw[signal] = T(accumulate ? double(gw[signal]) + total.sum : total.sum);
  }
}

// ---- launching ----

// A tile's shared memory per sample: values, codes, and tw per edge.
template <class T>
TileNeeds needs_of(bool forces) {
  return {int(sizeof(T) * (forces ? 2 : 1) + 1), int(sizeof(Run))};
}
std::size_t shared_bytes(const Tiling& t, const TileNeeds& needs) {
  return (t.parts > 1 ? std::size_t(t.threads()) * needs.scan_bytes : 0) +
         t.elements(1) * std::size_t(needs.bytes) + sizeof(double);  // forces come after the codes
}

template <class T, class OpTile, class Op>
Status run(cudaStream_t stream, const Tiling& t, const Op& op, Link* links, std::size_t shared) {
  if (Status bad = check(t)) return bad;
  if (t.chunks > 1) {
    if (!links) return "jaxtv: workspace missing";
    const std::int64_t signals = t.shape.signals();
    if (Status bad = launch("sum_chunks", sum_chunks<T, OpTile, Op>, t.tiles, t.threads(), shared,
                            stream, t, op, links))
      return bad;
    if (Status bad = launch("flow", flow, signals, kScanThreads, kScanThreads * sizeof(Run), stream,
                            signals, t.chunks, links))
      return bad;
  }
  return launch("apply", apply<T, OpTile, Op>, t.tiles, t.threads(), shared, stream, t, op, links);
}

bool empty(const Shape& s) { return s.signals() == 0 || s.n == 0; }

}  // namespace

template <class T>
std::int64_t segment_workspace(const Shape& s) {
  if (empty(s)) return 0;
  std::int64_t chunks = 1;
  for (bool forces : {false, true}) {
    const std::int64_t c = tiling_of(s, needs_of<T>(forces)).chunks;
    if (c > chunks) chunks = c;
  }
  return chunks == 1 ? 0 : s.signals() * chunks * std::int64_t(sizeof(Link));
}

template <class D>
Status segment_push(cudaStream_t stream, const Shape& s, const Push<D>& op, void* workspace) {
  using T = Compute<D>;
  if (empty(s)) return nullptr;
  const TileNeeds needs = needs_of<T>(op.per_edge);
  const Tiling t = tiling_of(s, needs);
  return run<T, PushTile<D>>(stream, t, op, static_cast<Link*>(workspace), shared_bytes(t, needs));
}

template <class D>
Status segment_pull(cudaStream_t stream, const Shape& s, const Pull<D>& op, void* workspace) {
  using T = Compute<D>;
  if (empty(s)) return nullptr;
  const TileNeeds needs = needs_of<T>(false);
  const Tiling t = tiling_of(s, needs);
  Link* links = static_cast<Link*>(workspace);
  if (Status bad = run<T, PullTile<D>>(stream, t, op, links, shared_bytes(t, needs))) return bad;
  if (t.chunks == 1 || op.per_edge) return nullptr;
  return launch("sum_totals", sum_totals<T>, s.signals(), kScanThreads, kScanThreads * sizeof(Run),
                stream, s.signals(), t.chunks, links, op.gw, op.accumulate);
}

template std::int64_t segment_workspace<float>(const Shape&);
template std::int64_t segment_workspace<double>(const Shape&);
#define JAXTV_INSTANTIATE(D)                                                       \
  template Status segment_push(cudaStream_t, const Shape&, const Push<D>&, void*); \
  template Status segment_pull(cudaStream_t, const Shape&, const Pull<D>&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
