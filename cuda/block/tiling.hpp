// How blocks cover a (batch, outer, n, inner) array: by tiles of some signals and a range of their
// samples. A tile has a lane for each of its signals and a row for each of their samples.
//
//   Example: shape (batch 1, outer 100, n 33, inner 4), tiles of 33 rows and 16 lanes.
//   across = 4 neighbouring inner indices times group = 4 outer elements are the 16 lanes; there
//   are 25 tiles, and one chunk: a tile holds whole signals.
//
// In shared memory a tile is an array of rows. Element (row k, lane l) is at k * pitch + l:
//   strided axis (inner > 1): lanes are neighbours in memory, so rows are read and written
//     coalesced;
//   contiguous axis (inner == 1): an odd pitch keeps both the reads along a signal and the work
//     across lanes free of bank conflicts;
//   few channels (1 < inner < lanes): a tile is one piece of memory, several outer elements long.
#pragma once

#include "block/divider.hpp"
#include "shape.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {

struct Tiling {
  Shape shape;
  int group, across;  // a tile's lanes: `group` outer indices times `across` inner indices
  int rows;           // samples of each signal in a tile
  // Threads that share a signal of the tile, and the rows that each of them owns.
  int threads_per_signal, thread_rows;
  int pitch;            // elements from one row to the next in shared memory
  std::int64_t chunks;  // tiles along a signal
  std::int64_t tiles;   // in all
  // Division by across, rows, threads_per_signal, lanes(), chunks; by the tiles that a batch
  // element has along outer (groups) and along inner (columns).
  Divider by_across, by_rows, by_threads, by_lanes, by_chunks, by_groups, by_columns;

  JAXTV_HD int lanes() const { return group * across; }
  int threads() const { return int(ceil_div(lanes() * threads_per_signal, kWarp)) * kWarp; }
  // Elements of a tile in shared memory, with one row more (taut_string_float).
  JAXTV_HD std::size_t elements() const { return std::size_t(rows + 1) * pitch; }
};

// Covers the array by tiles of `rows` samples of at most `lanes` signals. Where there are more
// inner indices than lanes, a tile has `across` of them. The caller sets how threads and shared
// memory are used: threads_per_signal, thread_rows, pitch.
inline Tiling cover(const Shape& shape, std::int64_t rows, std::int64_t lanes,
                    std::int64_t across) {
  Tiling tiling{};
  tiling.shape = shape;
  tiling.rows = int(rows);
  tiling.chunks = ceil_div(shape.n, rows);
  const bool part_of_inner = shape.inner > lanes;
  tiling.across = int(part_of_inner ? across : shape.inner);
  tiling.group =
      part_of_inner ? 1 : int(max_of<std::int64_t>(1, min_of(lanes / shape.inner, shape.outer)));
  const std::int64_t groups = ceil_div(shape.outer, tiling.group),
                     columns = ceil_div(shape.inner, tiling.across);
  tiling.tiles = shape.batch * groups * tiling.chunks * columns;
  tiling.by_across = Divider(tiling.across);
  tiling.by_rows = Divider(tiling.rows);
  tiling.by_lanes = Divider(tiling.lanes());
  tiling.by_columns = Divider(columns);
  tiling.by_chunks = Divider(tiling.chunks);
  tiling.by_groups = Divider(groups);
  return tiling;
}

// Halves the lanes of a tile, to multiples of `unit` and down to `fewest`, as long as the tiles
// would not fill a device.
inline std::int64_t lanes_for_enough_tiles(const Shape& shape, std::int64_t chunks,
                                           std::int64_t lanes, std::int64_t fewest,
                                           std::int64_t unit) {
  while (lanes / 2 >= fewest && ceil_div(shape.signals(), lanes) * chunks < tuning::kFewTiles)
    lanes = lanes / 2 / unit * unit;
  return lanes;
}

// Bytes of shared memory per sample for a kernel with one thread per signal: the sample, its weight
// if there are weights per edge, and one byte for a cut.
template <class T>
constexpr int bytes_per_sample(bool per_edge) {
  return int(sizeof(T)) * (per_edge ? 2 : 1) + 1;
}

// Tiles for a kernel with one thread per signal, of whole signals wherever they fit.
inline Tiling tiles_of_signals(const Shape& shape, int sample_bytes) {
  using tuning::Tiles;
  using Int = std::int64_t;
  const Int most_elements = Int(kPortableShared) / sample_bytes;
  const Int narrow = min_of<Int>(shape.inner, tuning::kSectorLanes);
  const bool fits = (shape.n + 1) * narrow <= most_elements;
  const Int rows = fits ? shape.n : max_of<Int>(Tiles::kFewestSamples, most_elements / narrow - 1);
  Int lanes = max_of(
      narrow, min_of<Int>(Tiles::kMostLanes, Tiles::kPreferredBytes / sample_bytes / (rows + 1)));
  if (lanes > kWarp) lanes -= lanes % kWarp;  // no warp with idle lanes
  lanes = lanes_for_enough_tiles(shape, ceil_div(shape.n, rows), lanes,
                                 max_of<Int>(narrow, Tiles::kFewestLanes), 1);
  // Columns of about the same size, in whole sectors.
  const Int columns = ceil_div(shape.inner, lanes), sector = tuning::kSectorLanes;
  Tiling tiling = cover(shape, rows, lanes,
                        min_of(lanes, ceil_div(ceil_div(shape.inner, columns), sector) * sector));
  tiling.pitch = tiling.across == 1 ? tiling.lanes() | 1 : tiling.lanes();
  tiling.threads_per_signal = 1;
  tiling.thread_rows = tiling.rows;
  return tiling;
}

// Tiles are numbered in 32 bits (a tile holds hundreds of samples).
inline Status check(const Tiling& tiling) {
  return tiling.tiles > kMaxGrid ? "jaxtv: array too large" : nullptr;
}

}  // namespace jaxtv::cuda
