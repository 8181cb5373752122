// Proximal Dykstra (the paper's Algorithm 1) and the derivatives of its unrolled iteration on a
// stream. The sequence of launches follows from shapes and parameters alone; plain C++. Scratch:
// dykstra_scratch and dykstra_derivative_scratch in scratch.hpp.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "prox1d/prox1d.hpp"

namespace jaxtv::cuda {

// `batch` independent arrays of `size` samples. A pass solves all signals along one axis; a sweep
// is a pass on every axis, in the order of `shapes`. Edge codes (jaxtv/edge_code.hpp) hold four
// passes in a byte.
struct Iteration {
  std::int64_t batch, size, iterations;
  int axes;
  Shape shapes[kMaxAxes];

  JAXTV_HD std::int64_t passes() const { return iterations * axes; }
  JAXTV_HD std::int64_t bytes_per_sample() const { return code_bytes(passes()); }  // of codes
};

// Per axis: an array of weights, or of their tangents or cotangents, and whether it has n - 1
// values per signal, or 1.
template <class T>
struct PerAxis {
  T* data[kMaxAxes];
  bool per_edge[kMaxAxes];
};

// `codes` may be null.
template <class Sample>
Status dykstra(cudaStream_t stream, const Iteration& it, const Solver& inner, const Sample* x,
               const PerAxis<const Compute<Sample>>& w, Sample* y, std::uint8_t* codes,
               void* scratch);

// Equations (8) and (9) of docs/concepts.md, "The adjoint of Dykstra's iteration".
template <class Sample>
Status dykstra_jvp(cudaStream_t stream, const Iteration& it, const std::uint8_t* codes,
                   const Sample* tx, const PerAxis<const Compute<Sample>>& tw, Sample* ty,
                   void* scratch);
template <class Sample>
Status dykstra_vjp(cudaStream_t stream, const Iteration& it, const std::uint8_t* codes,
                   const Sample* g, Sample* gx, const PerAxis<Compute<Sample>>& gw, void* scratch);

}  // namespace jaxtv::cuda
