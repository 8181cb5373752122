// Whole images in shared memory: how their pixels come from memory and go back, and the lines along
// which threads work.
#pragma once

#include "block/launch.cuh"
#include "dykstra/image_tiling.hpp"

namespace jaxtv::cuda {

// A tile of the grid.
struct Image {
  std::int64_t batch, middle, channel;  // the first of its channels
  int channels;                         // inside the array

  JAXTV_DEVICE Image(const ImageTiling& tiling, std::int64_t index) {
    const std::int64_t rest = index / tiling.channel_tiles;
    channel = (index - rest * tiling.channel_tiles) * tiling.tile_channels;
    batch = rest / tiling.middle;
    middle = rest - batch * tiling.middle;
    channels = int(min_of<std::int64_t>(tiling.tile_channels, tiling.channels - channel));
  }
};

// put(element, offset, get(element, offset)) for the pixels of an image: `element` in shared
// memory, `offset` in the array of the batch element. A batch of loads is in flight before the
// first value is used.
template <class Get, class Put>
JAXTV_DEVICE void move_pixels(const ImageTiling& tiling, const Image& image, Get get, Put put) {
  constexpr int kBatch = tuning::kLoadsInFlight;
  const int across = tiling.columns * tiling.tile_channels;
  const std::int64_t down = tiling.middle * tiling.columns * tiling.channels;
  const std::int64_t first = image.middle * tiling.columns * tiling.channels + image.channel;
  // Rows by warp, so that there is no division.
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const int shift = tiling.tile_channels == 1
                        ? 0
                        : (tiling.tile_channels == 2 ? 1 : (tiling.tile_channels == 4 ? 2 : 3));
  for (int i = lane; i < across; i += kWarp) {
    const int column = i >> shift, c = i - (column << shift);
    if (c >= image.channels) continue;
    int row = warp, element = row * tiling.row_pitch + i;
    std::int64_t offset = first + row * down + column * tiling.channels + c;
    const int element_step = warps * tiling.row_pitch;
    const std::int64_t offset_step = warps * down;
    for (; row + (kBatch - 1) * warps < tiling.rows; row += kBatch * warps) {
      decltype(get(element, offset)) values[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b)
        values[b] = get(element + b * element_step, offset + b * offset_step);
#pragma unroll
      for (int b = 0; b < kBatch; ++b)
        put(element + b * element_step, offset + b * offset_step, values[b]);
      element += kBatch * element_step;
      offset += kBatch * offset_step;
    }
#pragma unroll 1
    for (; row < tiling.rows; row += warps, element += element_step, offset += offset_step)
      put(element, offset, get(element, offset));
  }
}

// A signal of an image: sample k is at base + k * stride in shared memory; its weights are in
// global memory.
struct Line {
  int base, stride, n;
  bool inside;
  std::int64_t signal;             // offset of its λ
  std::int64_t edge, edge_stride;  // offset of the weight of its first edge; to that of the next

  // Number `number` of those that run down the rows, or along them.
  JAXTV_DEVICE Line(const ImageTiling& tiling, const Image& image, bool down_rows, int number) {
    const int position = int(tiling.by_tile_channels.div(number));
    const int c = number - position * tiling.tile_channels;
    inside = c < image.channels;
    base = down_rows ? number : position * tiling.row_pitch + c;
    stride = down_rows ? tiling.row_pitch : tiling.tile_channels;
    n = down_rows ? tiling.rows : tiling.columns;
    const std::int64_t down = tiling.middle * tiling.columns * tiling.channels;
    const std::int64_t outer =
        down_rows ? image.batch
                  : (image.batch * tiling.rows + position) * tiling.middle + image.middle;
    std::int64_t inner = image.channel + c;
    if (down_rows) inner += (image.middle * tiling.columns + position) * tiling.channels;
    edge_stride = down_rows ? down : tiling.channels;
    signal = outer * edge_stride + inner;
    edge = outer * (n - 1) * edge_stride + inner;
  }
  JAXTV_DEVICE std::int64_t weight(bool per_edge, int e) const {
    return per_edge ? edge + e * edge_stride : signal;
  }
};

// Calls f(line) for the signals along one axis; a thread has the same ones in every sweep.
template <class F>
JAXTV_DEVICE void for_lines(const ImageTiling& tiling, const Image& image, bool down_rows, F f) {
  const int signals = (down_rows ? tiling.columns : tiling.rows) * tiling.tile_channels;
  for (int number = threadIdx.x; number < signals; number += blockDim.x) {
    const Line line(tiling, image, down_rows, number);
    if (line.inside) f(line);
  }
}

}  // namespace jaxtv::cuda
