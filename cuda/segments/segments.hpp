// Derivatives by segment means (SOLVERS.md, Eq. 8 of the paper in O(n)) on a stream, without
// allocation and without waiting for it. What XLA's handlers and the Dykstra adjoint call; plain
// C++.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "shape.hpp"

namespace jaxtv::cuda {

constexpr std::uint8_t kJoined = kInside, kCut = kSeparate;

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

// Some arrays of the shape of the problem: the other states of a Dykstra iteration.
template <class T>
struct Arrays {
  T* data[kMaxAxes - 1];
  int count;
};

// out = P(a - D^T(s tw)) with a = tx - sum(minus); residual = a - out. `out` may be `tx`, and null
// where there is a residual.
template <class D, class T = Compute<D>>
struct Push {
  Edges<T> edges;
  const D* tx;
  const T* tw;
  bool per_edge;
  D* out;
  Arrays<const T> minus{};
  T* residual = nullptr;
};

// c = P(g - own); gw_e (+)= -s_e (c_{e+1} - c_e), summed over a signal unless per_edge. Then, with
// b = c + own:  others[j] (-)= b, and gx = sum (+)= b; either may be null (not wanted). g and own
// may be null (zero), gx may be g.
template <class D, class T = Compute<D>>
struct Pull {
  Edges<T> edges;
  const D* g;
  D* gx;
  T* gw;
  bool per_edge, accumulate;  // accumulate: add to gw
  const T* own = nullptr;
  T* sum = nullptr;
  bool add = false;  // to sum
  Arrays<T> others{};
  unsigned opened = 0;  // bit j: others[j] has a value, else it counts as zero
};

// Scratch for either, in bytes: 0 for signals that fit in one tile.
template <class T>
std::int64_t segment_workspace(const Shape& shape);

template <class D>
Status segment_push(cudaStream_t stream, const Shape& shape, const Push<D>& op, void* workspace);
template <class D>
Status segment_pull(cudaStream_t stream, const Shape& shape, const Pull<D>& op, void* workspace);

}  // namespace jaxtv::cuda
