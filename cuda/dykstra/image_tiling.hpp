// Which images stay in shared memory for all passes of Dykstra over two axes, and how blocks share
// them. Plain C++.
//
// The array is (batch, rows, middle, columns, channels). A tile is one (rows, columns) image of a
// few neighbouring channels, so that global memory is read in whole sectors whether channels are
// last or not. In shared memory a row is tile_channels times an odd number of columns: threads on
// neighbouring rows then meet different banks, as those on neighbouring columns do anyway. There is
// a row and a column more than the image has (taut_string_float).
#pragma once

#include "block/device.hpp"
#include "block/divider.hpp"
#include "dykstra/dykstra.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {

constexpr int kImageThreads = tuning::ImageInSharedMemory::kBlockThreads;

struct ImageTiling {
  std::int64_t middle, channels;
  std::int64_t tiles;  // of the grid; 0: the images do not fit
  std::int64_t channel_tiles;
  int rows, columns, tile_channels;
  int row_pitch;  // elements from one row to the next in shared memory
  int row_axis;   // the axis (0 or 1 of the iteration) that runs down the rows
  Divider by_tile_channels, by_pitch;

  JAXTV_HD std::size_t elements() const { return std::size_t(rows + 1) * row_pitch; }
  int threads() const {
    const int signals = (rows > columns ? rows : columns) * tile_channels;
    return int(min_of<std::int64_t>(ceil_div(signals, kWarp) * kWarp, kImageThreads));
  }
};

// Bytes of shared memory per pixel. Of the iteration: the state, in float32 also values; cuts, and
// codes where they are wanted. Of its derivatives: two arrays and codes.
template <class T>
constexpr std::size_t image_bytes(bool with_codes) {
  return (sizeof(T) == 4 ? 2 : 1) * sizeof(T) + (with_codes ? 2 : 1);
}
template <class T>
constexpr std::size_t kImageDerivativeBytes = 2 * sizeof(T) + 1;

// No tiles where images do not fit into `max_shared` bytes. More channels than one only as long as
// two blocks fit on a multiprocessor and there are tiles for all of them.
inline ImageTiling image_tiles(const Iteration& it, std::size_t pixel_bytes,
                               std::size_t max_shared) {
  ImageTiling tiling{};
  if (it.axes != 2 || it.batch == 0 || it.size == 0) return tiling;
  const Shape &first = it.shapes[0], &second = it.shapes[1];
  tiling.row_axis = first.outer == 1 && first.inner >= second.inner ? 0 : 1;
  const Shape &down = it.shapes[tiling.row_axis], &along = it.shapes[1 - tiling.row_axis];
  const std::int64_t odd_columns = (along.n + 1) | 1;
  if (std::size_t(down.n + 1) * std::size_t(odd_columns) > max_shared / pixel_bytes) return tiling;
  tiling.rows = int(down.n);
  tiling.columns = int(along.n);
  tiling.channels = along.inner;
  tiling.middle = down.inner / (along.n * along.inner);
  const auto use = [&](int tile_channels) {
    tiling.tile_channels = tile_channels;
    tiling.row_pitch = tile_channels * int(odd_columns);
    tiling.channel_tiles = ceil_div(tiling.channels, tile_channels);
    tiling.tiles = it.batch * tiling.middle * tiling.channel_tiles;
  };
  use(1);
  const std::size_t most_for_two = (max_shared + kReservedShared) / 2 - kReservedShared;
  constexpr int kMost = tuning::ImageInSharedMemory::kMostChannels;
  for (int more = 2; more <= kMost && more < 2 * tiling.channels; more *= 2) {
    const int before = tiling.tile_channels;
    use(more);
    if (tiling.elements() * pixel_bytes <= most_for_two && tiling.tiles >= tuning::kFewTiles)
      continue;
    use(before);
    break;
  }
  tiling.by_tile_channels = Divider(tiling.tile_channels);
  tiling.by_pitch = Divider(tiling.row_pitch);
  return tiling;
}

// Of the iteration; none with projected Newton, whose passes are launches of their own.
template <class T>
ImageTiling image_tiles_of(const Iteration& it, Method inner, bool with_codes,
                           std::size_t max_shared) {
  if (inner == Method::kProjectedNewton) return {};
  return image_tiles(it, image_bytes<T>(with_codes), max_shared);
}

}  // namespace jaxtv::cuda
