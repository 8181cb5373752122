// What the kernels are asked to do with all signals along one axis of an array: one pass of the 1D
// prox, and its derivatives.
#pragma once

#include <cstdint>

#include "jaxtv/solver.hpp"
#include "layout.hpp"

namespace jaxtv::cpu {

// A = x - sum(minus); Z = prox(A). Writes what is not null: y = Z, residual = A - Z, the codes of
// the edges of Z (jaxtv/edge_code.hpp; codes |= code << code_shift), and for return_info a gap, a
// number of iterations and whether they converged per signal.
template <class T>
struct Pass {
  Shape shape;
  const T* x;
  const T* minus[kMaxAxes];
  int num_minus;
  Weights<T> w;
  T* y;
  T* residual;
  std::uint8_t* codes;
  int code_shift;
  T* gap;
  std::int32_t* iterations;
  bool* converged;
  // Where the cuts of the pass stay for the next one along its axis (kept_duals_length), or null;
  // `repair`: those of such a pass are there, and the pass starts from them.
  T* kept_duals;
  bool repair;
};

// The segments of a solution: from its values y and weights, or where y is null from its edge
// codes.
template <class T>
struct Segments {
  Shape shape;
  const T* y;
  Weights<T> w;
  const std::uint8_t* codes;
  int code_shift;
};

// JVP: ty = P(tx - D^T(s tw)), with P the means over segments, D the differences along the axis and
// s the signs of the jumps. ty may be tx.
template <class T>
struct SegmentJvp {
  Segments<T> segments;
  const T* tx;
  Weights<T> tw;
  T* ty;
};

// VJP: gx = P g; gw_e = -s_e (gx_{e+1} - gx_e), summed over a signal unless per_edge. gx may be g.
template <class T>
struct SegmentVjp {
  Segments<T> segments;
  const T* g;
  T* gx;
  T* gw;
  bool per_edge;
};

// One pass of Dykstra's VJP along its axis, (9) in docs/concepts.md; the states are gp there. The
// first pass has g, and then the states are 0, whatever the arrays hold. In the others g is null.
//   c = P(g - state), and gw as in SegmentVjp, added to what gw holds if add_to_gw;
//   b = c + state;  gx += b (gx = b in the first);  state = 0;  every other state -= b.
// With two axes (`two_axes`) one of the states is 0 and the other one -b. Then one array holds b,
// and a pass replaces it by c - b. The new b and the old one add up to c, so every second pass adds
// c to gx (or sets it, without add_to_gx), and in the others gx is null.
template <class T>
struct DykstraVjpPass {
  Segments<T> segments;
  const T* g;
  T* state;
  T* other_states[kMaxAxes];
  int num_other_states;
  bool two_axes;
  T* gx;
  bool add_to_gx;
  T* gw;
  bool per_edge;
  bool add_to_gw;
};

}  // namespace jaxtv::cpu
