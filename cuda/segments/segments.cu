// Segment means. A thread has up to kRows neighbouring samples of a signal in registers: it sums
// the segments among them, and passes on the runs that are open at its two ends. What flows in from
// the other threads of the signal completes those. A signal longer than a block's tile is cut into
// chunks: a first launch finds the runs at the ends of each chunk, a second what flows into them, a
// third computes the means. Sums are in double and in a fixed order; there are no atomics.
#include "block/tiles.cuh"
#include "half.cuh"
#include "jaxtv/certificate.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

// The samples at one end of a range, up to the first cut met from that end.
struct Run {
  double sum = 0;
  std::int64_t packed = 0;  // twice their number, and 1 when a cut was met
  JAXTV_DEVICE std::int64_t count() const { return packed >> 1; }
  JAXTV_DEVICE bool closed() const { return packed & 1; }
};
// `far` lies behind `near`, seen from the end that the runs are open to.
JAXTV_DEVICE Run join(const Run& far, const Run& near) {
  if (near.closed()) return near;
  return {far.sum + near.sum, far.packed + near.packed};
}

struct Ends {
  Run left, right;  // the runs that are open to the left and to the right
};

// Of one chunk of a signal. First its own runs, then what flows in.
struct Link {
  Ends ends;
  double total;  // of the chunk's gw
};
constexpr int kScanThreads = 256;

// ---- which samples a block and its threads have ----

constexpr int kRows = 15;  // of a thread, at most. Odd: no bank conflicts; 16 codes fill a word
// Threads of a block, at most; what registers they leave is enough for kRows rows. The derivative
// of the 1D prox in float32 is held to 64 registers: 32 warps then share a multiprocessor.
template <class T>
constexpr int kMostThreads = sizeof(T) == 4 ? 768 : 512;
template <class T, bool kPass>
constexpr int kBound = sizeof(T) == 4 && !kPass ? 1024 : kMostThreads<T>;
constexpr int kSector = 8;  // so many neighbouring lanes read whole sectors

// A tile of fewer lanes across is one run of memory, which goes through shared memory.
JAXTV_HD bool is_run(const Shape& s) { return s.inner < kSector; }

// Bytes of shared memory: of a sample of a run (y and values), and of a thread (Ends, its sum).
template <class T>
constexpr int kSampleBytes = 2 * sizeof(T);
constexpr int kThreadBytes = int(sizeof(Ends) + sizeof(double));

// One pass over a signal wherever a block can have all of it.
template <class T>
Tiling split_of(const Shape& s) {
  constexpr std::int64_t kFewTiles = 512, kFewestThreads = 64;
  const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  const bool run = is_run(s);
  const std::int64_t fit = kPortableShared / (kRows * kSampleBytes<T> + kThreadBytes);
  const std::int64_t most = run ? fit / kWarp * kWarp : kMostThreads<T>;
  const std::int64_t wanted = min_of<std::int64_t>(most, kTileThreads);
  const std::int64_t narrow = run ? s.inner : kSector;

  Tiling t{};
  t.shape = s;
  std::int64_t parts = up(s.n, kRows);
  if (parts * narrow > most) parts = wanted / narrow;
  t.part_rows = int(up(min_of(s.n, parts * kRows), parts) | 1);
  t.rows = int(min_of(s.n, parts * t.part_rows));
  t.parts = int(up(t.rows, t.part_rows));
  t.chunks = up(s.n, t.rows);

  std::int64_t lanes = max_of(wanted / t.parts / narrow, std::int64_t(1)) * narrow;
  if (t.chunks > 1) lanes = narrow;
  while (lanes / 2 >= narrow && lanes / 2 * t.parts >= kFewestThreads &&
         up(s.signals(), lanes) * t.chunks < kFewTiles)
    lanes = lanes / 2 / narrow * narrow;
  if (s.inner > lanes) {
    t.group = 1;
    t.across = int(lanes);
  } else {
    t.across = int(s.inner);
    t.group = t.chunks > 1 ? 1 : int(max_of<std::int64_t>(1, min_of(lanes / s.inner, s.outer)));
  }
  const std::int64_t groups = up(s.outer, t.group), columns = up(s.inner, t.across);
  t.tiles = s.batch * groups * t.chunks * columns;
  t.by_across = Divider(t.across);
  t.by_parts = Divider(t.parts);
  t.by_lanes = Divider(t.lanes());
  t.by_columns = Divider(columns);
  t.by_chunks = Divider(t.chunks);
  t.by_groups = Divider(groups);
  return t;
}

// The rows of a signal that this thread has; none for threads that have no signal.
struct Share {
  int lane, part, rows;
  int step;                       // threads from one part of a signal to the next
  int local;                      // of its first row in a tile that is a run of memory
  bool active;                    // the lane is a signal; its parts may still be empty
  std::int64_t k;                 // the first row, in the signal
  std::int64_t at, edge, signal;  // in memory: that row, the edge after it; number of the signal

  JAXTV_DEVICE Share(const Tiling& t, const Tile& tile) {
    const int thread = threadIdx.x;
    const std::int64_t inner = t.shape.inner;
    int g, i;
    if (is_run(t.shape)) {
      const int rest = int(t.by_across.div(thread));
      g = int(t.by_parts.div(rest));
      part = rest - g * t.parts;
      i = thread - rest * t.across;
      step = t.across;
    } else {
      step = t.lanes();
      part = int(t.by_lanes.div(thread));
      const int lane_ = thread - part * step;
      g = int(t.by_across.div(lane_));
      i = lane_ - g * t.across;
    }
    lane = g * t.across + i;
    active = g < tile.group && i < tile.across && part < t.parts;
    const int begin = part * t.part_rows;
    rows = active ? max_of(min_of(t.part_rows, tile.rows - begin), 0) : 0;
    local = (g * tile.rows + begin) * t.across + i;
    k = tile.row + begin;
    const std::int64_t outer = tile.first + g;
    at = (outer * t.shape.n + k) * inner + tile.column + i;
    edge = at - outer * inner;
    signal = outer * inner + tile.column + i;
  }
};

// put(m, get(m)) for 0 <= m < count by all threads of the block, with many loads in flight.
template <class G, class P>
JAXTV_DEVICE void move_run(int count, G get, P put) {
  constexpr int kBatch = 8;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
#pragma unroll 1  // few rounds; copies of it only fill the instruction cache
  for (int m = warp * kBatch * kWarp + lane; m < count; m += warps * kBatch * kWarp) {
    if (m + (kBatch - 1) * kWarp < count) {
      decltype(get(m)) values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) values[i] = get(m + i * kWarp);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) put(m + i * kWarp, values[i]);
    } else {
#pragma unroll 1
      for (int p = m; p < count; p += kWarp) put(p, get(p));
    }
  }
}

// ---- the two operations: what a sample adds to its segment, and what is written ----
// kPass: a pass of a Dykstra iteration, with a mask and with the states of the other axes.

template <class D, bool kPass>
struct Pulling {
  using T = Compute<D>;
  const Pull<D>& op;

  JAXTV_DEVICE T load(std::int64_t at) const {
    if constexpr (!kPass) return op.g[at];
    const T g = op.g ? T(op.g[at]) : T(0);
    return op.own ? g - op.own[at] : g;
  }
  JAXTV_DEVICE double force(std::uint8_t, std::int64_t, std::int64_t) const { return 0; }
  JAXTV_DEVICE void put(std::int64_t at, T c) const {
    if constexpr (!kPass) {
      op.gx[at] = c;
    } else {
      const T b = op.own ? c + op.own[at] : c;
      const T sum = op.add ? op.sum[at] + b : b;
      if (op.sum) op.sum[at] = sum;
      if (op.gx) op.gx[at] = sum;
      for (int j = 0; j < op.others.count; ++j) {
        T* other = op.others.data[j] + at;
        *other = op.opened >> j & 1 ? *other - b : -b;
      }
    }
  }
  // The slope of an edge, or their sum over a signal.
  JAXTV_DEVICE void add(std::int64_t at, double v) const {
    op.gw[at] = T(op.accumulate ? double(op.gw[at]) + v : v);
  }
};

template <class D, bool kPass>
struct Pushing {
  using T = Compute<D>;
  const Push<D>& op;

  JAXTV_DEVICE T load(std::int64_t at) const {
    T a = op.tx[at];
    if constexpr (kPass)
      for (int j = 0; j < op.minus.count; ++j) a -= op.minus.data[j][at];
    return a;
  }
  // s tw of an edge.
  JAXTV_DEVICE double force(std::uint8_t code, std::int64_t edge, std::int64_t signal) const {
    if (code != kJumpUp && code != kJumpDown) return 0;
    const double v = double(op.tw[op.per_edge ? edge : signal]);
    return code == kJumpUp ? v : -v;
  }
  JAXTV_DEVICE void put(std::int64_t at, T z) const {
    if constexpr (kPass)
      if (op.residual) op.residual[at] = load(at) - z;  // before out, which may be tx
    if (!kPass || op.out) op.out[at] = z;
  }
};

template <class Work>
constexpr bool kPulls = false;
template <class D, bool kPass>
constexpr bool kPulls<Pulling<D, kPass>> = true;

// ---- what a thread has in registers ----

constexpr std::uint32_t kLowBits = 0x55555555;

template <class T>
struct Rows {
  T values[kRows];      // 0 beyond the rows; at last the means
  std::uint32_t codes;  // 2 bits each: of the edge before row j at 2 j
  int count;

  JAXTV_DEVICE std::uint8_t before(int j) const { return codes >> 2 * j & 3; }
  // The edges between the rows that are cut, jump up or down: bit 2 j for that before row j.
  JAXTV_DEVICE std::uint32_t inside() const { return kLowBits & ((1u << 2 * count) - 4); }
  JAXTV_DEVICE std::uint32_t cuts() const { return (codes | codes >> 1) & inside(); }
  JAXTV_DEVICE std::uint32_t ups() const { return codes & ~(codes >> 1) & inside(); }
  JAXTV_DEVICE std::uint32_t downs() const { return codes >> 1 & ~codes & inside(); }
};

// y of the rows, of the sample before and of that after them; NaN where there is none.
template <class T>
using Around = T[kRows + 2];

// Codes of the edges 0 .. rows of the thread; all others are kCut.
template <class T>
JAXTV_DEVICE std::uint32_t codes_from_values(const Edges<T>& e, const Share& share,
                                             const Around<T>& y) {
  const bool positive = e.per_edge || e.w[share.signal] > T(0);
  std::uint32_t codes = ~0u;  // bits of it are cleared
#pragma unroll
  for (int j = 0; j <= kRows; ++j) {
    const T a = y[j], b = y[j + 1];
    if (a < b) codes ^= std::uint32_t(kCut ^ kJumpUp) << 2 * j;
    if (a > b) codes ^= std::uint32_t(kCut ^ kJumpDown) << 2 * j;
    if (a == b && positive) codes ^= std::uint32_t(kCut ^ kJoined) << 2 * j;
  }
  return codes;
}
// Cuts what only edges of weight 0 join.
template <class T>
JAXTV_DEVICE std::uint32_t cut_weightless(std::uint32_t codes, const Edges<T>& e, const Shape& s,
                                          const Share& share) {
#pragma unroll 1
  for (int j = 0; j <= share.rows; ++j)
    if ((codes >> 2 * j & 3) == kJoined && !(e.w[share.edge + (j - 1) * s.inner] > T(0)))
      codes |= std::uint32_t(kCut) << 2 * j;
  return codes;
}
template <class T>
JAXTV_DEVICE std::uint32_t codes_from_mask(const Edges<T>& e, const Shape& s, const Share& share,
                                           std::int64_t batch) {
  const std::int64_t first = batch * s.outer * s.n * s.inner;
  const std::uint8_t* mask = e.mask + batch * e.mask_stride + (share.at - first);
  std::uint32_t codes = 0;
#pragma unroll
  for (int j = 0; j <= kRows; ++j) {
    const std::int64_t k = share.k + j - 1;
    std::uint32_t code = kCut;
    if (k >= 0 && j <= share.rows && k + 1 < s.n) code = mask[(j - 1) * s.inner] >> e.shift & 3;
    codes |= code << 2 * j;
  }
  return codes;
}

// A block's shared memory.
template <class T>
struct Stage {
  Shared<Ends> ends;
  Shared<double> sums;
  Shared<T> y, values;  // of a run of memory; y has a row more before and after

  JAXTV_DEVICE Stage(Arena& arena, const Tiling& t, bool with_y) {
    ends = arena.take<Ends>(blockDim.x);
    sums = arena.take<double>(blockDim.x);
    const int size = is_run(t.shape) ? t.rows * t.lanes() : 0, halo = size ? 2 * t.across : 0;
    values = arena.take<T>(size);
    y = arena.take<T>(with_y ? size + halo : 0);
  }
};

// A run of memory into shared memory.
template <bool kPass, class T, class Work>
JAXTV_DEVICE void stage_run(const Stage<T>& stage, const Shape& s, const Tile& tile,
                            const Work& work) {
  const int across = int(s.inner), count = tile.group * tile.rows * across;
  const std::int64_t first = (tile.first * s.n + tile.row) * across;
  if constexpr (!kPass) {
    const int before = tile.row > 0 ? across : 0;
    const int after = tile.row + tile.rows < s.n ? across : 0;
    const T* y = work.op.edges.y + (first - before);
    move_run(
        before + count + after, [&](int m) { return y[m]; },
        [&](int m, T v) { stage.y[across - before + m] = v; });
  }
  move_run(
      count, [&](int m) { return work.load(first + m); }, [&](int m, T v) { stage.values[m] = v; });
}

// From shared memory, or from global memory.
template <class T>
JAXTV_DEVICE void read_y(const Shape& s, const Share& share, Shared<T> from, Around<T>& y) {
  const int stop = int(min_of<std::int64_t>(s.n - share.k, share.rows + 1)), step = int(s.inner);
  y[0] = share.k > 0 ? T(from[share.local]) : kNaN<T>;
#pragma unroll
  for (int j = 0; j <= kRows; ++j)
    y[j + 1] = j < stop ? T(from[share.local + (j + 1) * step]) : kNaN<T>;
}
template <class T>
JAXTV_DEVICE void load_y(const Shape& s, const Share& share, const T* from, Around<T>& y) {
  const int stop = int(min_of<std::int64_t>(s.n - share.k, share.rows + 1));
  from += share.at;
  y[0] = share.k > 0 ? from[-s.inner] : kNaN<T>;
#pragma unroll
  for (int j = 0; j <= kRows; ++j) y[j + 1] = j < stop ? from[j * s.inner] : kNaN<T>;
}
template <class T>
JAXTV_DEVICE void read_values(const Shape& s, const Share& share, Shared<T> from, Rows<T>& rows) {
  const int step = int(s.inner);
#pragma unroll
  for (int j = 0; j < kRows; ++j)
    rows.values[j] = j < share.rows ? T(from[share.local + j * step]) : T(0);
}
template <class T, class Work>
JAXTV_DEVICE void load_values(const Shape& s, const Share& share, const Work& work, Rows<T>& rows) {
#pragma unroll
  for (int j = 0; j < kRows; ++j)
    rows.values[j] = j < share.rows ? work.load(share.at + j * s.inner) : T(0);
}

template <class T, bool kPass, class Work>
JAXTV_DEVICE Rows<T> load(const Stage<T>& stage, const Tiling& t, const Tile& tile,
                          const Share& share, const Work& work) {
  const Shape& s = t.shape;
  const Edges<T>& edges = work.op.edges;
  const bool run = is_run(s);
  if (run) {
    stage_run<kPass>(stage, s, tile, work);
    __syncthreads();
  }
  Rows<T> rows{};
  rows.count = share.rows;
  if (share.rows == 0) return rows;
  if constexpr (kPass) {
    rows.codes = codes_from_mask(edges, s, share, tile.batch);
  } else {
    Around<T> y;
    if (run)
      read_y(s, share, stage.y, y);
    else
      load_y(s, share, edges.y, y);
    rows.codes = codes_from_values(edges, share, y);
    if (edges.per_edge) rows.codes = cut_weightless(rows.codes, edges, s, share);
  }
  if (run)
    read_values(s, share, stage.values, rows);
  else
    load_values(s, share, work, rows);
  return rows;
}

template <class T, class Work>
JAXTV_DEVICE void write_memory(const Work& work, const Shape& s, const Share& share,
                               const Rows<T>& rows) {
#pragma unroll
  for (int j = 0; j < kRows; ++j)
    if (j < share.rows) work.put(share.at + j * s.inner, rows.values[j]);
}
template <class T, class Work>
JAXTV_DEVICE void write_run(const Stage<T>& stage, const Shape& s, const Tile& tile,
                            const Share& share, const Work& work, const Rows<T>& rows) {
  const int across = int(s.inner);
#pragma unroll
  for (int j = 0; j < kRows; ++j)
    if (j < share.rows) stage.values[share.local + j * across] = rows.values[j];
  __syncthreads();
  const std::int64_t first = (tile.first * s.n + tile.row) * across;
  move_run(
      tile.group * tile.rows * across, [&](int m) -> T { return stage.values[m]; },
      [&](int m, T v) { work.put(first + m, v); });
}

// sum / count, for a float without the code for divisors that counts never are.
JAXTV_DEVICE float ratio(double sum, float count) {
  const float total = float(sum), q = quotient(total, count, reciprocal(count));
  return q == q ? q : total;  // quotient has no infinite ones
}
JAXTV_DEVICE double ratio(double sum, double count) { return sum / count; }

struct Sums {
  Ends ends;     // of these rows alone, whatever the edges around them are
  int last = 0;  // first row of the last segment
};

// Replaces the first value of every segment that lies inside of the rows by its mean. What lies
// beyond the rows adds nothing.
template <class T, class Work>
JAXTV_DEVICE Sums sum_rows(Rows<T>& rows, const Share& share, const Work& work,
                           std::int64_t inner) {
  const auto force = [&](int j) {
    return work.force(rows.before(j), share.edge + (j - 1) * inner, share.signal);
  };
  Sums sums;
  double sum = 0;
  T count = T(rows.count - kRows);
  const std::uint32_t cuts = rows.cuts();
#pragma unroll
  for (int j = kRows - 1; j >= 0; --j) {
    sum += double(rows.values[j]);
    if constexpr (!kPulls<Work>)
      if (j < rows.count) sum += force(j + 1) - force(j);
    count += 1;
    if (!(cuts & 1u << 2 * j)) continue;
    if (sums.last == 0) {
      sums.ends.right = {sum, 2 * std::int64_t(count) + 1};
      sums.last = j;
    } else {
      rows.values[j] = ratio(sum, count);
    }
    sum = 0;
    count = 0;
  }
  sums.ends.left = {sum, 2 * std::int64_t(count) + (sums.last > 0 ? 1 : 0)};
  if (sums.last == 0) sums.ends.right = sums.ends.left;
  return sums;
}

// What this thread shows to the others of its signal.
template <class T>
JAXTV_DEVICE Ends shown(const Rows<T>& rows, const Ends& own) {
  if (rows.count == 0 || rows.before(rows.count) == kJoined) return own;
  return {{own.left.sum, own.left.packed | 1}, {0, 1}};
}

// What flows into the rows of this thread. A run is rarely longer than a few threads have rows.
JAXTV_DEVICE Ends flow_in(Shared<Ends> all, const Tiling& t, const Share& share) {
  Ends in;
  if (!share.active) return in;
  int from = threadIdx.x;
  for (int part = share.part; part > 0 && !in.left.closed(); --part) {
    from -= share.step;
    in.left = join(Ends(all[from]).right, in.left);
  }
  from = threadIdx.x;
  for (int part = share.part + 1; part < t.parts && !in.right.closed(); ++part) {
    from += share.step;
    in.right = join(Ends(all[from]).left, in.right);
  }
  return in;
}

template <class T>
JAXTV_DEVICE T mean_of(const Run& run) {
  return ratio(run.sum, T(run.count()));
}
JAXTV_DEVICE Run plus(const Run& a, const Run& b) {
  return {a.sum + b.sum, (a.packed & ~std::int64_t(1)) + b.packed};
}

// Completes the means, and puts them in place of all values.
template <class T>
JAXTV_DEVICE void spread(Rows<T>& rows, const Sums& sums, const Ends& in) {
  const Run after = rows.before(rows.count) == kJoined ? in.right : Run{};
  const Run first = plus(in.left, sums.ends.left);
  const std::uint32_t cuts = rows.cuts();
  const T last = mean_of<T>(plus(after, cuts ? sums.ends.right : first));
  T mean = cuts ? mean_of<T>(first) : last;
  rows.values[0] = mean;
#pragma unroll
  for (int j = 1; j < kRows; ++j) {
    if (cuts & 1u << 2 * j) mean = j == sums.last ? last : rows.values[j];
    rows.values[j] = mean;
  }
}

// -s (next - here) of an edge between means.
template <class T>
JAXTV_DEVICE double slope_of(std::uint8_t code, T here, T next) {
  const double fall = double(here) - double(next);
  return code == kJumpUp ? fall : (code == kJumpDown ? -fall : 0.0);
}

// Adds the slopes of the edges before rows 1 .. count to gw; `after`: the mean after the rows.
template <class T, class Work>
JAXTV_DEVICE void add_slopes(const Work& work, const Rows<T>& rows, const Share& share,
                             const Shape& s, T after) {
#pragma unroll
  for (int j = 1; j <= kRows; ++j) {
    if (j > rows.count || share.k + j >= s.n) continue;
    const T next = j == rows.count ? after : rows.values[j < kRows ? j : 0];
    work.add(share.edge + (j - 1) * s.inner, slope_of(rows.before(j), rows.values[j - 1], next));
  }
}
// Their sum.
template <class T>
JAXTV_DEVICE double sum_slopes(const Rows<T>& rows, T after) {
  const double end = rows.values[kRows - 1], jump = end - double(after);
  const std::uint8_t code = rows.before(rows.count);
  double sum = code == kJumpUp ? jump : (code == kJumpDown ? -jump : 0.0), last = rows.values[0];
  const std::uint32_t ups = rows.ups(), downs = rows.downs();
#pragma unroll
  for (int j = 1; j < kRows; ++j) {
    const double here = rows.values[j], fall = last - here;
    if (ups & 1u << 2 * j) sum += fall;
    if (downs & 1u << 2 * j) sum -= fall;
    last = here;
  }
  return sum;
}

// ---- kernels ----

// Sums up every chunk of every signal.
template <class T, bool kPass, class Work, class Op>
__global__ void __launch_bounds__(kBound<T, kPass>) sum_chunks(Tiling t, Op op, Link* links) {
  Arena arena;
  const Stage<T> stage(arena, t, !kPass);
  const Work work{op};
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const Share share(t, tile);
    Rows<T> rows = load<T, kPass>(stage, t, tile, share, work);
    const Ends own = shown(rows, sum_rows(rows, share, work, t.shape.inner).ends);
    stage.ends[threadIdx.x] = own;
    __syncthreads();
    if (share.active && (share.part == 0 || share.part == t.parts - 1)) {
      const Ends in = flow_in(stage.ends, t, share);
      Link& link = links[share.signal * t.chunks + tile.chunk];
      if (share.part == 0) link.ends.left = join(in.right, own.left);
      if (share.part == t.parts - 1) link.ends.right = join(in.left, own.right);
    }
    __syncthreads();  // the tile is loaded anew
  }
}

// Inclusive scan of `mine` over the threads of a block, from the last to the first when kReverse.
// Returns what comes before.
template <bool kReverse>
JAXTV_DEVICE Run scan(Shared<Run> runs, Run& mine) {
  const int thread = threadIdx.x, threads = blockDim.x;
  const auto fetch = [&](int distance) -> Run {
    const int from = kReverse ? thread + distance : thread - distance;
    if (from < 0 || from >= threads) return {};
    return runs[from];
  };
  for (int distance = 1; distance < threads; distance *= 2) {
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
    for (std::int64_t c = begin; c < end; ++c) from_left = join(from_left, link[c].ends.right);
    for (std::int64_t c = end - 1; c >= begin; --c)
      from_right = join(from_right, link[c].ends.left);
    from_left = scan<false>(runs, from_left);
    from_right = scan<true>(runs, from_right);
    for (std::int64_t c = end - 1; c >= begin; --c) {
      const Run own = link[c].ends.left;
      link[c].ends.left = from_right;  // for now: the other one is still needed
      from_right = join(from_right, own);
    }
    for (std::int64_t c = begin; c < end; ++c) {
      const Run own = link[c].ends.right;
      link[c].ends.right = link[c].ends.left;
      link[c].ends.left = from_left;
      from_left = join(from_left, own);
    }
  }
}

// Means and everything that is written.
template <class T, bool kPass, class Work, class Op>
__global__ void __launch_bounds__(kBound<T, kPass>) apply(Tiling t, Op op, Link* links) {
  Arena arena;
  const Stage<T> stage(arena, t, !kPass);
  const Work work{op};
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const Share share(t, tile);
    Rows<T> rows = load<T, kPass>(stage, t, tile, share, work);
    const Sums sums = sum_rows(rows, share, work, t.shape.inner);
    Ends in;
    if (t.parts > 1) {
      stage.ends[threadIdx.x] = shown(rows, sums.ends);
      __syncthreads();
      in = flow_in(stage.ends, t, share);
    }
    if (t.chunks > 1 && share.active) {
      const Ends& around = links[share.signal * t.chunks + tile.chunk].ends;
      in = {join(around.left, in.left), join(around.right, in.right)};
    }
    spread(rows, sums, in);
    double slopes = 0;
    if constexpr (kPulls<Work>) {
      const T after = mean_of<T>(in.right);
      if (op.per_edge && share.rows > 0)
        add_slopes(work, rows, share, t.shape, after);
      else if (share.rows > 0)
        slopes = sum_slopes(rows, after);
    }
    stage.sums[threadIdx.x] = slopes;
    if (is_run(t.shape))
      write_run(stage, t.shape, tile, share, work, rows);
    else
      write_memory(work, t.shape, share, rows);
    if constexpr (kPulls<Work>) {
      __syncthreads();
      if (!op.per_edge && share.active && share.part == 0) {
        for (int part = 1; part < t.parts; ++part)
          slopes += stage.sums[threadIdx.x + part * share.step];
        if (t.chunks == 1)
          work.add(share.signal, slopes);
        else
          links[share.signal * t.chunks + tile.chunk].total = slopes;
      }
    }
    __syncthreads();  // the tile is loaded anew
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
    scan<false>(runs, total);
    if (part == parts - 1) gw[signal] = T(accumulate ? double(gw[signal]) + total.sum : total.sum);
  }
}

// ---- launching ----

template <class T, bool kPass, class Work, class Op>
Status run(cudaStream_t stream, const Tiling& t, const Op& op, Link* links) {
  if (Status bad = check(t)) return bad;
  const std::size_t run_rows = is_run(t.shape) ? std::size_t(t.rows) * t.lanes() : 0;
  const std::size_t shared = t.threads() * std::size_t(kThreadBytes) +
                             sizeof(T) * (kPass ? run_rows : 2 * (run_rows + t.across));
  if (t.chunks > 1) {
    if (!links) return "jaxtv: workspace missing";
    const std::int64_t signals = t.shape.signals();
    if (Status bad = launch("sum_chunks", sum_chunks<T, kPass, Work, Op>, t.tiles, t.threads(),
                            shared, stream, t, op, links))
      return bad;
    if (Status bad = launch("flow", flow, signals, kScanThreads, kScanThreads * sizeof(Run), stream,
                            signals, t.chunks, links))
      return bad;
  }
  return launch("apply", apply<T, kPass, Work, Op>, t.tiles, t.threads(), shared, stream, t, op,
                links);
}

bool empty(const Shape& s) { return s.signals() == 0 || s.n == 0; }

}  // namespace

template <class T>
std::int64_t segment_workspace(const Shape& s) {
  if (empty(s)) return 0;
  const std::int64_t chunks = split_of<T>(s).chunks;
  return chunks == 1 ? 0 : s.signals() * chunks * std::int64_t(sizeof(Link));
}

template <class D>
Status segment_push(cudaStream_t stream, const Shape& s, const Push<D>& op, void* workspace) {
  using T = Compute<D>;
  if (empty(s)) return nullptr;
  const Tiling t = split_of<T>(s);
  Link* links = static_cast<Link*>(workspace);
  return op.edges.y ? run<T, false, Pushing<D, false>>(stream, t, op, links)
                    : run<T, true, Pushing<D, true>>(stream, t, op, links);
}

template <class D>
Status segment_pull(cudaStream_t stream, const Shape& s, const Pull<D>& op, void* workspace) {
  using T = Compute<D>;
  if (empty(s)) return nullptr;
  const Tiling t = split_of<T>(s);
  Link* links = static_cast<Link*>(workspace);
  if (Status bad = op.edges.y ? run<T, false, Pulling<D, false>>(stream, t, op, links)
                              : run<T, true, Pulling<D, true>>(stream, t, op, links))
    return bad;
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
