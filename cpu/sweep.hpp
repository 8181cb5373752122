// One 1D prox over every signal of an (outer, n, inner) array, and its derivative: what the kernels
// take.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jaxtv/common.hpp"
#include "jaxtv/solver.hpp"

namespace jaxtv::cpu {

// Signal s = o * inner + i has its sample k at offset (o * n + k) * inner + i.
struct Shape {
  std::int64_t outer, n, inner;
  JAXTV_INLINE std::int64_t signals() const { return outer * inner; }
  JAXTV_INLINE std::int64_t size() const { return outer * n * inner; }
  JAXTV_INLINE std::int64_t offset(std::int64_t s, std::int64_t length) const {
    return (s / inner) * length * inner + s % inner;
  }
};

// Weights have the layout of the array, with one (λ per signal) or n - 1 (per edge) values along n.
template <class T>
struct Weights {
  const T* data;
  bool per_edge;
  bool windows = false;  // of one long signal: they share its λ, and an edge lies between two
  JAXTV_INLINE std::int64_t length(std::int64_t n) const { return per_edge ? n - 1 : 1; }
  JAXTV_INLINE std::int64_t pitch(std::int64_t n) const {
    return length(n) + (windows ? (per_edge ? 1 : -1) : 0);
  }
};

// A = x - sum(minus); Z = prox(A). Writes what is asked for: y = Z, residual = A - Z, mask |= codes
// of the edges (2 bits: joined, up, down, cut without a sign) << shift.
template <class T>
struct Sweep {
  Shape shape;
  const T* x;
  const T* minus[kMaxAxes];
  int num_minus;
  Weights<T> w;
  T* y;
  T* residual;
  std::uint8_t* mask;
  int shift;
  // Per signal, for return_info.
  T* gap;
  std::int32_t* iterations;
  bool* converged;
};

// The segments of a solution: from its values and weights, or from a mask.
template <class T>
struct Segments {
  Shape shape;
  const T* y;
  Weights<T> w;
  const std::uint8_t* mask;  // used when y is null
  int shift;
};

// out = P(tx - D^T(s tw)). `out` may be `tx`.
template <class T>
struct Pushforward {
  Segments<T> segments;
  const T* tx;
  Weights<T> tw;
  T* out;
};

// gx = P g; gw_e = -s_e (gx_{e+1} - gx_e), summed over a signal unless per_edge. gx may be g.
template <class T>
struct Pullback {
  Segments<T> segments;
  const T* g;
  T* gx;
  T* gw;
  bool per_edge;
};

// One pass of Dykstra's adjoint along its axis: c = P h with h = g - state, gw as in Pullback and
// added to; then with a = c + state: gx += a, state = 0, and others -= a. A null g is 0. Of two
// axes the other state is 0 until then, so with `swap` one array stands for either: state = -a.
template <class T>
struct Adjoint {
  Segments<T> segments;
  const T* g;
  T* state;
  T* others[kMaxAxes];
  int num_others;
  bool swap;
  T* gx;
  T* gw;
  bool per_edge;
};

// One lane of a group that the lanes could not solve, for the serial solver: samples
// x[k * stride], weights w[e * stride] (or one), y[k * stride] receives the solution.
template <class T>
struct LaneProblem {
  std::int64_t n, stride;
  const T *x, *w;
  bool per_edge;
  T* y;
};
template <class T>
void solve_lane(const LaneProblem<T>& problem);

// The kernels that exist once per vector instruction set.
template <class T>
struct LaneKernels {
  // Lanes of one group and the scratch bytes it needs for signals of length n.
  int (*group_size)(std::int64_t n);
  std::size_t (*scratch_bytes)(std::int64_t n);
  void (*prox)(const Sweep<T>& sweep, std::int64_t begin, std::int64_t end, void* scratch);
  std::size_t (*derivative_scratch_bytes)(std::int64_t n);
  void (*push)(const Pushforward<T>& op, std::int64_t begin, std::int64_t end, void* scratch);
  void (*pull)(const Pullback<T>& op, std::int64_t begin, std::int64_t end, void* scratch);
  void (*adjoint)(const Adjoint<T>& op, std::int64_t begin, std::int64_t end, void* scratch);
};

struct Isa {
  const char* name;
  LaneKernels<float> f32;
  LaneKernels<double> f64;
};

// A taut string from sample `begin` on, over samples before `end`.
struct String {
  std::int64_t begin, end;
  signed char left;  // the sign of the cut before `begin`, 0 at a start of its own
  // Null: its cuts go into the problem's `sign`. Else it ends where it makes a cut that is there
  // already, from which on it would repeat the string that made that cut; its own cuts before go
  // here, of a jump down as ~e.
  std::int64_t* cuts;
  std::int64_t count = 0;  // of these
  // Its last cut, -1 without one. With `cuts`: the one that was there, n - 1 where it came to the
  // end of the signal, -1 where it came to an `end` before.
  std::int64_t last = -1;
};
constexpr std::int64_t kMostCuts = 256;
// A string that reads more than `patience` + kMostAgain samples again per sample solved gives up.
constexpr std::int64_t kMostAgain = 4;

template <class T>
struct StringProblem {
  std::int64_t n;
  const T* x;
  double bound;       // of the dual
  signed char* sign;  // of the cuts, 0 where there is none
  std::int64_t patience;
};

// Runs strings of one problem, `lanes` at once. False when one of them gives up.
template <class T>
struct StringKernel {
  int lanes;
  bool (*run)(const StringProblem<T>& problem, String* strings, int count);
};

struct Strings {
  StringKernel<float> f32;
  StringKernel<double> f64;
};

// The best instruction set that this machine has; JAXTV_ISA=baseline|avx2|avx512 forces one.
const Isa& isa();
template <class T>
const LaneKernels<T>& lanes();
template <class T>
const StringKernel<T>& strings();

}  // namespace jaxtv::cpu
