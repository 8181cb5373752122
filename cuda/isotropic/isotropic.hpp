// Steps of fast gradient projection for the isotropic prox, on a stream. jaxtv/_fgp.py explains the
// method, in plain JAX, whose names are used here. Plain C++. Scratch: isotropic_scratch in
// scratch.hpp.
#pragma once

#include <array>

#include "block/divider.hpp"
#include "shape.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {

// Elements follow each other in memory, and so do the channels of an element.
struct Pixels {
  std::int64_t elements, channels;
  int axes;
  std::array<std::int64_t, kMaxAxes> sizes;  // of the spatial axes

  std::int64_t count() const {  // of one channel of an element
    std::int64_t product = 1;
    for (int a = 0; a < axes; ++a) product *= sizes[a];
    return product;
  }
};

// The state of an iteration, which a call takes on: arrays of the elements.
template <class T>
struct FgpState {
  T* duals;     // kDualBuffers duals; of an element that runs the first is the newest, the last the
                // one before it
  int* counts;  // kCounts: status, iterations, the iteration of the next test, buffer of the newest
  T* reals;     // kReals: t of Nesterov's sequence, beta of the next iteration, gap
};
constexpr int kDualBuffers = 3, kCounts = 4, kReals = 3;
enum FgpStatus { kUnfinished = 0, kRunning = 1, kConverged = 2 };

template <class T>
struct IsotropicSteps {
  const T *x, *w;
  bool per_pixel;  // one weight per pixel, not one per element
  FgpState<T> state;
  double tol;
  int max_iterations;
};

constexpr std::int64_t kMostIsotropicSamples = 2147483647;  // of an element

// Up to GradientProjection::kSteps iterations of every element that runs.
template <class T>
Status isotropic_steps(cudaStream_t stream, const Pixels& pixels, const IsotropicSteps<T>& op,
                       void* scratch);

// How blocks cover an element: by tiles of rows and columns, its last two axes. A thread has a
// column, and kThreadRows neighbouring rows of it.
struct PixelTiles {
  int columns, rows;           // of a tile
  std::int64_t across, down;   // tiles along the columns and rows of an element
  std::int64_t tiles, blocks;  // of an element; a block has every blocks-th tile
};

inline PixelTiles pixel_tiles(const Pixels& pixels) {
  using tuning::GradientProjection;
  const bool has_rows = pixels.axes > 1;
  const std::int64_t columns = pixels.sizes[pixels.axes - 1];
  const std::int64_t rows = has_rows ? pixels.sizes[pixels.axes - 2] : 1;
  PixelTiles t{};
  const int most = has_rows ? kWarp : GradientProjection::kBlockThreads;
  for (t.columns = GradientProjection::kFewestColumns; t.columns < most && t.columns < columns;)
    t.columns *= 2;
  t.rows = GradientProjection::kBlockThreads / t.columns * GradientProjection::kThreadRows;
  t.across = ceil_div(columns, t.columns);
  t.down = ceil_div(rows, t.rows);
  const std::int64_t image = max_of<std::int64_t>(1, rows * columns);
  t.tiles = pixels.count() / image * t.down * t.across;
  t.blocks = min_of<std::int64_t>(t.tiles, GradientProjection::kMostBlocks);
  return t;
}

// Bytes of an element in scratch, and of one of its blocks.
constexpr int kFgpProgressBytes = 2 * 40, kFgpSumsBytes = 2 * 32;

}  // namespace jaxtv::cuda
