// Derivatives of the 1D prox by segment means (docs/concepts.md; Eq. 8 of the paper in O(n)). The
// functions put kernels on a stream; they do not allocate and do not wait. XLA's handlers and the
// derivatives of Dykstra's iteration call them. Plain C++.
//
// A segment is a maximal range of samples that the solution y joins: equal neighbours with a weight
// > 0 between them. P replaces every sample by the mean of its segment. Edge e lies between the
// samples e and e + 1; s_e is the sign of the jump y_{e+1} - y_e, and (D v)_e = v_{e+1} - v_e.
//
// Names: x samples, w weights, y solution, p a state of Dykstra's iteration; tx, tw, ty, tp are
// their tangents, gx, gw, gp their cotangents, and g is the cotangent of y.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "shape.hpp"

namespace jaxtv::cuda {

// The segments of a solution and its jumps. They are given by y and its weights; or, where y is
// null, by edge codes (jaxtv/edge_code.hpp), and no weights are read.
template <class T>
struct SegmentEdges {
  const T* y;
  const T* weights;
  bool weight_per_edge;       // weights: n - 1 per signal, or 1
  const std::uint8_t* codes;  // a byte per sample, in its shape
  int code_shift;             // first bit of the code in its byte
  std::int64_t code_stride;   // bytes from one batch element of `codes` to the next
};

// The states of a Dykstra iteration for all axes but one: arrays of the shape of the samples.
template <class T>
struct OtherStates {
  T* data[kMaxAxes - 1];
  int count;
};

// Reads tx, tw and other_tp; writes ty and tp:
//   ty = P(ta - D^T(s tw)), where ta = tx - the sum of other_tp;  tp = ta - ty.
// The last two fields are for a pass of Dykstra's iteration, (8) in docs/concepts.md: tp is the
// tangent of the state of the pass's axis.
template <class Sample, class T = Compute<Sample>>
struct SegmentJvp {
  SegmentEdges<T> edges;
  const Sample* tx;
  const T* tw;
  bool tw_per_edge;  // tw: n - 1 per signal, or 1
  Sample* ty;        // may be tx; null where only tp is wanted
  OtherStates<const T> other_tp{};
  T* tp = nullptr;  // null: not wanted
  bool updates_states() const { return tp || other_tp.count > 0; }
};

// Reads g and gp; writes gx and gw:
//   c = P(g - gp);  gx = c;  gw_e = -s_e (c_{e+1} - c_e), summed over a signal unless gw_per_edge.
// With edge codes it is a pass of Dykstra's iteration, (9) in docs/concepts.md, which goes on with
// b = c + gp: it adds b to gx_sum, writes that sum (not c) to gx, and subtracts b from all
// other_gp. gp itself is left as it is.
template <class Sample, class T = Compute<Sample>>
struct SegmentVjp {
  SegmentEdges<T> edges;
  const Sample* g;  // null: zero
  Sample* gx;       // may be g; null: not wanted
  T* gw;
  bool gw_per_edge;            // gw: n - 1 per signal, or 1
  bool add_to_gw;              // else it is overwritten
  const T* gp = nullptr;       // null: zero
  T* gx_sum = nullptr;         // null: not wanted
  bool add_to_gx_sum = false;  // else it is overwritten
  OtherStates<T> other_gp{};
  unsigned other_gp_in_use = 0;  // bit j: other_gp[j] has a value; else it counts as zero
  bool updates_states() const { return gp || gx_sum || other_gp.count > 0; }
};

// Scratch of either: segment_scratch in scratch.hpp.
template <class Sample>
Status segment_jvp(cudaStream_t stream, const Shape& shape, const SegmentJvp<Sample>& op,
                   void* scratch);
template <class Sample>
Status segment_vjp(cudaStream_t stream, const Shape& shape, const SegmentVjp<Sample>& op,
                   void* scratch);

}  // namespace jaxtv::cuda
