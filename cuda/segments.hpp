// Derivatives by segment means (SOLVERS.md, Eq. 8 of the paper in O(n)) on a stream, without
// allocation and without waiting for it. What XLA's handlers and the Dykstra adjoint call; plain
// C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// The segments of a solution: from its values and weights, or from a mask.
template <class T>
struct Edges {
  const T *y, *w;
  bool per_edge;  // w: n - 1 per signal, or 1
  const std::uint8_t*
      mask;  // used when y is null: codes of 2 bits, `shift` up, of the edge (k, k + 1)
  int shift;
  std::int64_t mask_stride;  // bytes from one batch element's plane to the next one's
};

// out = P(tx - D^T(s tw)). `out` may be `tx`.
template <class T>
struct Push {
  Edges<T> edges;
  const T *tx, *tw;
  bool per_edge;
  T* out;
};

// gx = P g; gw_e (+)= -s_e (gx_{e+1} - gx_e), summed over a signal unless per_edge. gx may be g.
template <class T>
struct Pull {
  Edges<T> edges;
  const T* g;
  T *gx, *gw;
  bool per_edge, accumulate;
};

// Scratch for either, in bytes: 0 for signals that fit in one tile.
template <class T>
std::int64_t segment_workspace(const Shape& shape);

template <class T>
Status segment_push(cudaStream_t stream, const Shape& shape, const Push<T>& op, void* workspace);
template <class T>
Status segment_pull(cudaStream_t stream, const Shape& shape, const Pull<T>& op, void* workspace);

}  // namespace jaxtv::cuda
