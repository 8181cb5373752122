// Proximal Dykstra (the paper's Algorithm 1) and the derivatives of its unrolled iteration on a
// stream. The sequence of launches follows from shapes and parameters alone; plain C++.
#pragma once

#include "prox1d/prox1d.hpp"

namespace jaxtv::cuda {

// `batch` independent arrays of `size` samples. A sweep solves every axis once, in the order of
// `shapes`; the masks hold the codes of four passes per byte (segments.hpp).
struct Iteration {
  std::int64_t batch, size, iterations;
  int axes;
  Shape shapes[kMaxAxes];

  JAXTV_HD std::int64_t passes() const { return iterations * axes; }
  JAXTV_HD std::int64_t planes() const { return (passes() + 3) / 4; }  // mask bytes per sample
};

// One per axis: its weights' array and whether it has n - 1 values per signal, or 1.
template <class T>
struct PerAxis {
  T* data[kMaxAxes];
  bool per_edge[kMaxAxes];
};

// Scratch of the iteration, in bytes; jaxtv/_lowering.py has at least as much.
template <class D>
std::int64_t dykstra_workspace(const Iteration& it, const Solver& inner, bool masked);

// `mask` may be null.
template <class D>
Status dykstra(cudaStream_t stream, const Iteration& it, const Solver& inner, const D* x,
               const PerAxis<const Compute<D>>& w, D* y, std::uint8_t* mask, void* workspace);

// Scratch of either derivative, in bytes.
template <class D>
std::int64_t dykstra_derivative_workspace(const Iteration& it);

template <class D>
Status dykstra_push(cudaStream_t stream, const Iteration& it, const std::uint8_t* mask, const D* tx,
                    const PerAxis<const Compute<D>>& tw, D* ty, void* workspace);
template <class D>
Status dykstra_pull(cudaStream_t stream, const Iteration& it, const std::uint8_t* mask, const D* g,
                    D* gx, const PerAxis<Compute<D>>& gw, void* workspace);

}  // namespace jaxtv::cuda
