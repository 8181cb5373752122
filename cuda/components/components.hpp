// Means over the connected components of a solution on a grid: the Jacobian of the converged N-D
// prox and its transpose on a stream. Plain C++. Scratch: components_scratch in scratch.hpp.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "shape.hpp"

namespace jaxtv::cuda {

// `batch` arrays of `size` samples. Their samples are joined along the axes only, so whatever lies
// between the axes is more batch. Edge codes (jaxtv/edge_code.hpp) hold four axes in a byte.
struct Grid {
  std::int64_t batch, size;
  int axes;
  Shape shapes[kMaxAxes];  // of one array along each axis, in sweep order

  std::int64_t bytes_per_sample() const { return code_bytes(axes); }  // of codes
};

// The weights' tangents or cotangents: n - 1 per signal, or 1.
template <class T>
struct GridWeights {
  T* data[kMaxAxes];
  bool per_edge[kMaxAxes];
};

// Scratch of a sample: the sum over its component, and its label. And of a signal: a sum.
constexpr int kComponentSumBytes = 24, kLabelBytes = 4;

constexpr std::int64_t kMostSamples = 2147483647;  // that are done at once
// Arrays that are done at once.
inline std::int64_t arrays_at_once(const Grid& grid) {
  return grid.size == 0 ? grid.batch : min_of(grid.batch, kMostSamples / grid.size);
}

// ty = P(tx - sum_a D_a^T(s_a tw_a)).
template <class Sample>
Status components_jvp(cudaStream_t stream, const Grid& grid, const std::uint8_t* codes,
                      const Sample* tx, const GridWeights<const Compute<Sample>>& tw, Sample* ty,
                      void* scratch);
// gx = P g, gw_a = -s_a D_a P g, summed over a signal unless per edge.
template <class Sample>
Status components_vjp(cudaStream_t stream, const Grid& grid, const std::uint8_t* codes,
                      const Sample* g, Sample* gx, const GridWeights<Compute<Sample>>& gw,
                      void* scratch);

}  // namespace jaxtv::cuda
