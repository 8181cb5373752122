// Whole images in shared memory, for Dykstra over two axes. The array is (batch, rows, middle,
// columns, channels); a tile is one (rows, columns) image of a few neighbouring channels, so that
// global memory is read in whole sectors whether channels are last or not. In shared memory a row
// is `chunk` channels times an odd number of columns: threads on neighbouring rows then meet
// different banks, as those on neighbouring columns do anyway.
#pragma once

#include "block/launch.cuh"
#include "dykstra/dykstra.hpp"

namespace jaxtv::cuda {

struct ImageTiling {
  std::int64_t middle, channels;
  std::int64_t tiles, chunks;  // chunks of channels
  int rows, columns, chunk;
  int row_pitch;
  int lead;  // the axis (of the iteration) that runs down the rows
  Divider by_chunk, by_pitch;

  JAXTV_HD std::size_t elements() const { return std::size_t(rows) * row_pitch; }
  int threads() const;
};

constexpr int kImageThreads = 256;

inline int ImageTiling::threads() const {
  const int signals = (rows > columns ? rows : columns) * chunk;
  const int warps = (signals + kWarp - 1) / kWarp * kWarp;
  return warps < kImageThreads ? warps : kImageThreads;
}

// Shared memory that a block may ask for on the current device, which is that of the stream.
inline std::size_t max_shared() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess)
    return kPortableShared;
  return std::size_t(bytes);
}

// No tiles where images do not fit. More channels than one only as long as two blocks fit on a
// multiprocessor and there are tiles for all of them.
inline ImageTiling image_tiling_of(const Iteration& it, std::size_t bytes_per_pixel) {
  constexpr std::int64_t kFewTiles = 512;
  ImageTiling t{};
  if (it.axes != 2 || it.batch == 0 || it.size == 0) return t;
  const Shape &first = it.shapes[0], &second = it.shapes[1];
  t.lead = first.outer == 1 && first.inner >= second.inner ? 0 : 1;
  const Shape &lead = it.shapes[t.lead], &other = it.shapes[1 - t.lead];
  const std::size_t limit = max_shared();
  if (std::size_t(lead.n) * std::size_t(other.n | 1) > limit / bytes_per_pixel) return t;
  t.rows = int(lead.n);
  t.columns = int(other.n);
  t.channels = other.inner;
  t.middle = lead.inner / (other.n * other.inner);
  const auto use = [&](int chunk) {
    t.chunk = chunk;
    t.row_pitch = chunk * (t.columns | 1);
    t.chunks = (t.channels + chunk - 1) / chunk;
    t.tiles = it.batch * t.middle * t.chunks;
  };
  use(1);
  for (int chunk = 2; chunk <= 8 && chunk < 2 * t.channels; chunk *= 2) {
    const int before = t.chunk;
    use(chunk);
    if (t.elements() * bytes_per_pixel <= limit / 2 && t.tiles >= kFewTiles) continue;
    use(before);
    break;
  }
  t.by_chunk = Divider(t.chunk);
  t.by_pitch = Divider(t.row_pitch);
  return t;
}

// A tile of the grid.
struct Image {
  std::int64_t batch, middle, channel;  // the first of its channels
  int chunk;                            // channels inside the array

  JAXTV_DEVICE Image(const ImageTiling& t, std::int64_t index) {
    const std::int64_t rest = index / t.chunks;
    channel = (index - rest * t.chunks) * t.chunk;
    batch = rest / t.middle;
    middle = rest - batch * t.middle;
    chunk = int(min_of<std::int64_t>(t.chunk, t.channels - channel));
  }
};

// put(p, at, get(p, at)) for the pixels of an image: place p in shared memory, offset `at` in the
// core array. A batch of loads is in flight before what is done with them.
template <class G, class P>
JAXTV_DEVICE void move_pixels(const ImageTiling& t, const Image& image, G get, P put) {
  constexpr int kBatch = 8;
  const int across = t.columns * t.chunk;
  const std::int64_t down = t.middle * t.columns * t.channels;
  const std::int64_t first = image.middle * t.columns * t.channels + image.channel;
  // Rows by warp, so that there is no division.
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const int shift = t.chunk == 1 ? 0 : (t.chunk == 2 ? 1 : (t.chunk == 4 ? 2 : 3));
  for (int i = lane; i < across; i += kWarp) {
    const int column = i >> shift, c = i - (column << shift);
    if (c >= image.chunk) continue;
    int r = warp, p = r * t.row_pitch + i;
    std::int64_t at = first + r * down + column * t.channels + c;
    const int p_step = warps * t.row_pitch;
    const std::int64_t at_step = warps * down;
    for (; r + (kBatch - 1) * warps < t.rows; r += kBatch * warps) {
      decltype(get(p, at)) values[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) values[b] = get(p + b * p_step, at + b * at_step);
#pragma unroll
      for (int b = 0; b < kBatch; ++b) put(p + b * p_step, at + b * at_step, values[b]);
      p += kBatch * p_step;
      at += kBatch * at_step;
    }
#pragma unroll 1
    for (; r < t.rows; r += warps, p += p_step, at += at_step) put(p, at, get(p, at));
  }
}

// A signal of an image: sample k at base + k * stride in shared memory, its weights in global
// memory.
struct Line {
  int base, stride, n;
  bool inside;
  std::int64_t signal, edge, edge_stride;  // of its λ; of its first edge, to the next edge

  // Number `s` of those that run down the rows (lead) or along them.
  JAXTV_DEVICE Line(const ImageTiling& t, const Image& image, bool lead, int s) {
    const int position = int(t.by_chunk.div(s)), c = s - position * t.chunk;
    inside = c < image.chunk;
    base = lead ? s : position * t.row_pitch + c;
    stride = lead ? t.row_pitch : t.chunk;
    n = lead ? t.rows : t.columns;
    const std::int64_t down = t.middle * t.columns * t.channels;
    const std::int64_t outer =
        lead ? image.batch : (image.batch * t.rows + position) * t.middle + image.middle;
    std::int64_t inner = image.channel + c;
    if (lead) inner += (image.middle * t.columns + position) * t.channels;
    edge_stride = lead ? down : t.channels;
    signal = outer * edge_stride + inner;
    edge = outer * (n - 1) * edge_stride + inner;
  }
  JAXTV_DEVICE std::int64_t weight(bool per_edge, int e) const {
    return per_edge ? edge + e * edge_stride : signal;
  }
};

// Calls f(line) for the signals along one axis; every thread has the same ones in every sweep.
template <class F>
JAXTV_DEVICE void for_lines(const ImageTiling& t, const Image& image, bool lead, F f) {
  const int signals = (lead ? t.columns : t.rows) * t.chunk;
  for (int s = threadIdx.x; s < signals; s += blockDim.x) {
    const Line line(t, image, lead, s);
    if (line.inside) f(line);
  }
}

}  // namespace jaxtv::cuda
