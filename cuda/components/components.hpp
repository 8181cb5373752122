// Means over the connected components of a solution on a grid: the Jacobian of the converged N-D
// prox and its transpose on a stream. Plain C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// `batch` arrays of `size` samples. Their samples are joined along the axes only, so whatever lies
// between the axes is more batch. Masks have 2 bits per sample and axis (segments.hpp), 4 axes to a
// plane.
struct Grid {
  std::int64_t batch, size;
  int axes;
  Shape along[kMaxAxes];  // one array, in sweep order

  std::int64_t planes() const { return (axes + 3) / 4; }
};

// The weights' tangents or cotangents: n - 1 per signal, or 1.
template <class T>
struct GridWeights {
  T* data[kMaxAxes];
  bool per_edge[kMaxAxes];
};

// Scratch in bytes; per_edge: of the adjoint, null for the tangent. jaxtv/_lowering.py has as much.
std::int64_t components_workspace(const Grid& grid, const bool* per_edge);

// ty = P(tx - sum_a D_a^T(s_a tw_a)).
template <class D>
Status components_push(cudaStream_t stream, const Grid& grid, const std::uint8_t* masks,
                       const D* tx, const GridWeights<const Compute<D>>& tw, D* ty,
                       void* workspace);
// gx = P g, gw_a = -s_a D_a P g, summed over a signal unless per edge.
template <class D>
Status components_pull(cudaStream_t stream, const Grid& grid, const std::uint8_t* masks, const D* g,
                       D* gx, const GridWeights<Compute<D>>& gw, void* workspace);

}  // namespace jaxtv::cuda
