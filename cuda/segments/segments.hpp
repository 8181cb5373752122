// Derivatives of the 1D prox by segment means (docs/concepts.md; Eq. 8 of the paper in O(n)) on a
// stream, without allocation and without waiting for it. XLA's handlers and the derivatives of
// Dykstra's iteration call these two functions. Plain C++.
//
// A segment is a maximal range of samples that the solution y joins: equal neighbours with a weight
// > 0 between them. P replaces every sample by the mean of its segment. s is the sign of the jump
// y_{e+1} - y_e at an edge e, and D takes differences of neighbours.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "shape.hpp"

namespace jaxtv::cuda {

// The segments of a solution and its jumps: from y and its weights, or, where y is null, from edge
// codes (jaxtv/edge_code.hpp).
template <class T>
struct SegmentEdges {
  const T* y;
  const T* weights;
  bool weight_per_edge;       // weights: n - 1 per signal, or 1
  const std::uint8_t* codes;  // a byte per sample
  int code_shift;             // first bit of the code in its byte
  std::int64_t code_stride;   // bytes from the codes of one batch element to those of the next
};

// Up to kMaxAxes - 1 arrays of the shape of the samples: the other states of a Dykstra iteration.
template <class T>
struct Arrays {
  T* data[kMaxAxes - 1];
  int count;
};

// ty = P(ta - D^T(s tw)), where ta = tx - the sum of other_tp. The last two fields are for a pass
// of Dykstra's iteration, (8) in docs/concepts.md: its state's tangent is tp = ta - ty.
template <class Sample, class T = Compute<Sample>>
struct SegmentJvp {
  SegmentEdges<T> edges;
  const Sample* tx;
  const T* tw;
  bool per_edge;  // tw: n - 1 per signal, or 1
  Sample* ty;     // may be tx; null where only tp is wanted
  Arrays<const T> other_tp{};
  T* tp = nullptr;
};

// c = P(g - gp);  gw_e = -s_e (c_{e+1} - c_e), summed over a signal unless per_edge;  gx = c. A
// pass of Dykstra's iteration, (9) in docs/concepts.md, goes on with b = c + gp: it adds b to
// gx_sum, copies that sum to gx, and subtracts b from all other_gp.
template <class Sample, class T = Compute<Sample>>
struct SegmentVjp {
  SegmentEdges<T> edges;
  const Sample* g;  // null: zero
  Sample* gx;       // may be g; null: not wanted
  T* gw;
  bool per_edge;               // gw: n - 1 per signal, or 1
  bool add_to_gw;              // else it is overwritten
  const T* gp = nullptr;       // null: zero
  T* gx_sum = nullptr;         // null: not wanted
  bool add_to_gx_sum = false;  // else it is overwritten
  Arrays<T> other_gp{};
  unsigned other_gp_in_use = 0;  // bit j: other_gp[j] has a value; else it counts as zero
};

// Scratch of either: segment_scratch in scratch.hpp.
template <class Sample>
Status segment_jvp(cudaStream_t stream, const Shape& shape, const SegmentJvp<Sample>& op,
                   void* scratch);
template <class Sample>
Status segment_vjp(cudaStream_t stream, const Shape& shape, const SegmentVjp<Sample>& op,
                   void* scratch);

}  // namespace jaxtv::cuda
