// The exact 1D prox and the paper's projected Newton on a stream, without allocation and without
// waiting for it. Plain C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// y = prox(x) for every signal; y may be x. The last three are per signal and null unless wanted
// (return_info), which needs y unrounded and apart from x.
template <class D>
struct Prox {
  const D* x;
  const Compute<D>* w;
  bool per_edge;  // w: n - 1 per signal, or 1
  D* y;
  Compute<D>* gap;
  std::int32_t* iterations;
  bool* converged;
};

// Whether each signal is solved by one thread in a tile of shared memory. T: what is computed in.
template <class T>
bool by_rows(const Shape& shape, Method method, bool per_edge);

// Scratch in bytes; jaxtv/_lowering.py has the same formula.
std::int64_t prox_workspace(const Shape& shape, Method method);

template <class D>
Status prox1d(cudaStream_t stream, const Shape& shape, const Prox<D>& op, const Solver& solver,
              void* workspace);

}  // namespace jaxtv::cuda
