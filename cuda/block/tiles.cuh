// How a block covers a (batch, outer, n, inner) array: by tiles of some signals and a range of
// their samples. A tile lies in shared memory as rows of samples, one lane (column) per signal,
// whichever axis is contiguous in memory:
//   strided axis (inner > 1): lanes are neighbours in memory, so rows are read and written
//   coalesced; contiguous axis (inner == 1): a row pitch that is odd keeps both the reads along a
//   signal and the work across lanes free of bank conflicts; few channels (1 < inner < lanes):
//   whole runs of memory, several outer elements side by side.
#pragma once

#include "block/launch.cuh"

namespace jaxtv::cuda {

struct Tiling {
  Shape shape;
  int group, across;     // lanes = group outer elements x `across` inner indices
  int rows;              // samples of each signal in a tile
  int parts, part_rows;  // a signal's rows are shared among `parts` threads
  int pitch;
  std::int64_t chunks;  // tiles along a signal
  std::int64_t tiles;
  Divider by_across, by_rows, by_parts, by_lanes, by_chunks, by_groups, by_columns;

  JAXTV_HD int lanes() const { return group * across; }
  int threads() const { return (lanes() * parts + kWarp - 1) / kWarp * kWarp; }
  // Elements of an array of rows + extra rows of the tile.
  JAXTV_HD std::size_t elements(int extra) const { return std::size_t(rows + extra) * pitch; }
};

struct TileNeeds {
  int bytes;       // of shared memory per sample
  int scan_bytes;  // and per thread, where several share a signal
};

// Of whole signals, a thread each: samples, weights of their own, and cuts.
template <class T>
TileNeeds rows_need(bool per_edge) {
  return {int(sizeof(T)) * (per_edge ? 2 : 1) + 1, 0};
}

constexpr int kTileThreads = 256;
constexpr int kMinChunk = 256;  // jaxtv/_lowering.py sizes workspaces by it

// What follows weighs occupancy (about 20 KiB per block), sectors of 32 bytes across strided lanes,
// enough tiles to fill a device, and one pass over the signals wherever they fit in shared memory.
inline Tiling tiling_of(const Shape& s, const TileNeeds& needs) {
  constexpr int kPreferred = 20 * 1024, kFewTiles = 512;
  const auto min = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };
  const auto max = [](std::int64_t a, std::int64_t b) { return a < b ? b : a; };
  const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  const std::int64_t most =
      (std::int64_t(kPortableShared) - kTileThreads * needs.scan_bytes) / needs.bytes;
  const std::int64_t narrow = min(s.inner, 8);  // fewer lanes would waste parts of sectors

  Tiling t{};
  t.shape = s;
  t.rows = int((s.n + 1) * narrow <= most ? s.n : max(kMinChunk, most / narrow - 1));
  t.chunks = up(s.n, t.rows);
  std::int64_t lanes = max(narrow, min(128, kPreferred / needs.bytes / (t.rows + 1)));
  if (lanes > kWarp) lanes -= lanes % kWarp;  // no warp with idle lanes
  const std::int64_t floor = max(narrow, 16);
  while (lanes / 2 >= floor && up(s.signals(), lanes) * t.chunks < kFewTiles) lanes /= 2;

  if (s.inner > lanes) {
    t.group = 1;
    t.across = int(min(lanes, up(up(s.inner, up(s.inner, lanes)), 8) * 8));
  } else {
    t.across = int(s.inner);
    t.group = int(max(1, min(lanes / s.inner, s.outer)));
  }
  // Odd, when there is one lane per signal in memory; it must not outgrow the tile either.
  t.pitch = t.across == 1 ? t.lanes() | 1 : t.lanes();

  const std::int64_t share = t.lanes() >= 64 ? 1 : kTileThreads / t.lanes();
  t.parts = int(max(1, min(share, t.rows / 8)));
  t.part_rows = int(up(t.rows, t.parts));
  if (t.lanes() < kWarp) t.part_rows |= 1;  // parts of one warp then start in different banks
  t.parts = int(up(t.rows, t.part_rows));

  const std::int64_t groups = up(s.outer, t.group), columns = up(s.inner, t.across);
  t.tiles = s.batch * groups * t.chunks * columns;
  t.by_across = Divider(t.across);
  t.by_rows = Divider(t.rows);
  t.by_lanes = Divider(t.lanes());
  t.by_columns = Divider(columns);
  t.by_chunks = Divider(t.chunks);
  t.by_groups = Divider(groups);
  return t;
}

// The tiles are numbered in 32 bits (a tile holds hundreds of samples).
inline Status check(const Tiling& t) {
  return t.tiles > kMaxGrid ? "jaxtv: array too large" : nullptr;
}

// One tile of the grid, and what a thread does in it.
struct Tile {
  std::int64_t first;        // outer index (batch and outer together) of its first lane
  std::int64_t batch;        // batch element; a tile never crosses one
  std::int64_t column, row;  // first inner index, first sample
  std::int64_t chunk;
  int group, across, rows;  // what lies inside the array

  JAXTV_DEVICE Tile(const Tiling& t, std::uint32_t index) {
    std::uint32_t rest = t.by_columns.div(index);
    column = std::int64_t(index - rest * t.by_columns.divisor) * t.across;
    std::uint32_t next = t.by_chunks.div(rest);
    chunk = rest - next * t.by_chunks.divisor;
    row = chunk * t.rows;
    batch = t.by_groups.div(next);
    const std::int64_t outer = std::int64_t(next - batch * t.by_groups.divisor) * t.group;
    first = batch * t.shape.outer + outer;
    group = int(min_of<std::int64_t>(t.group, t.shape.outer - outer));
    across = int(min_of<std::int64_t>(t.across, t.shape.inner - column));
    rows = int(min_of<std::int64_t>(t.rows, t.shape.n - row));
  }

  // Number of the signal of a lane that lies inside.
  JAXTV_DEVICE std::int64_t signal(const Tiling& t, int lane) const {
    const int g = int(t.by_across.div(lane));
    return (first + g) * t.shape.inner + column + (lane - g * t.across);
  }
  // Where the first sample of a lane is, from that of lane 0, in a tile of whole signals.
  JAXTV_DEVICE std::int64_t offset(const Tiling& t, int lane) const {
    const int g = int(t.by_across.div(lane));
    return g * t.shape.n * t.shape.inner + (lane - g * t.across);
  }
  JAXTV_DEVICE bool inside(const Tiling& t, int lane) const {
    const int g = int(t.by_across.div(lane));
    return g < group && lane - g * t.across < across;
  }
};

// Calls f(row, lane, outer, inner) for the tile's samples; neighbouring threads get neighbours in
// memory.
template <class F>
JAXTV_DEVICE void for_samples(const Tiling& t, const Tile& tile, F f) {
  const std::uint32_t count = std::uint32_t(tile.group) * t.rows * t.across;
  for (std::uint32_t m = threadIdx.x; m < count; m += blockDim.x) {
    const std::uint32_t q = t.by_across.div(m), g = t.by_rows.div(q);
    const int i = int(m - q * t.across), k = int(q - g * t.rows);
    if (i < tile.across && k < tile.rows)
      f(k, int(g) * t.across + i, tile.first + g, tile.column + i);
  }
}

// A sample of a tile of whole signals: its row, its element in an array of the tile, and from the
// first of the tile on where it and the edge after it are in memory.
struct Spot {
  int row, element;
  std::int64_t at, edge;
};

// put(place, get(place)) for the samples of a tile of whole signals (chunks == 1), with a thread
// per lane. Few instructions: each thread walks along its signal; or, on the last axis, a warp
// along one signal after the other; else a tile is one run of memory. And many loads in flight: a
// batch of them comes before what is done with it.
template <class G, class P>
JAXTV_DEVICE void move_whole(const Tiling& t, const Tile& tile, G get, P put) {
  constexpr int kSector = 8;  // this many neighbouring lanes read whole sectors
  constexpr int kBatch = 8;
  const auto move = [&](int count, int step, auto place) {  // place(0), place(step), ...
    int m = 0;
    for (; m + (kBatch - 1) * step < count; m += kBatch * step) {
      decltype(get(place(0))) values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) values[i] = get(place(m + i * step));
#pragma unroll
      for (int i = 0; i < kBatch; ++i) put(place(m + i * step), values[i]);
    }
#pragma unroll 1
    for (; m < count; m += step) put(place(m), get(place(m)));
  };
  const int thread = threadIdx.x, across = t.across, pitch = t.pitch, rows = t.rows;
  if (across >= kSector) {
    if (thread >= t.lanes() || !tile.inside(t, thread)) return;
    const std::int64_t inner = t.shape.inner, first = tile.offset(t, thread);
    const std::int64_t first_edge = first - t.by_across.div(thread) * inner;
    move(rows, 1, [&](int k) {
      return Spot{k, k * pitch + thread, first + k * inner, first_edge + k * inner};
    });
    return;
  }
  if (across == 1 && rows >= kWarp / 2) {  // else most of a warp would be idle
    const int warps = int(blockDim.x) / kWarp, warp = thread / kWarp;
    for (int k = thread % kWarp; k < rows; k += kWarp)
      move(tile.group - warp, warps, [&](int m) {
        const int g = warp + m, at = g * rows + k;
        return Spot{k, k * pitch + g, at, at - g};
      });
  } else {
    const int run = tile.group * rows * across - thread;  // across == inner
    move(run, blockDim.x, [&](int m) {
      m += thread;
      const int q = int(t.by_across.div(m)), g = int(t.by_rows.div(q)), k = q - g * rows;
      return Spot{k, k * pitch + g * across + (m - q * across), m, m - g * across};
    });
  }
}

}  // namespace jaxtv::cuda
