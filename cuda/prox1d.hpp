// The exact 1D prox and the paper's projected Newton on a stream, without allocation and without
// waiting for it. Plain C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// y = prox(x) for every signal; y may be x only where the kernels say so. The last three are per
// signal and null unless wanted (return_info).
template <class T>
struct Prox {
  const T *x, *w;
  bool per_edge;  // w: n - 1 per signal, or 1
  T* y;
  T* gap;
  std::int32_t* iterations;
  bool* converged;
};

// Scratch in bytes; jaxtv/_ffi.py has the same formula.
std::int64_t prox_workspace(const Shape& shape, Method method);

template <class T>
Status prox1d(cudaStream_t stream, const Shape& shape, const Prox<T>& op, const Solver& solver,
              void* workspace);

}  // namespace jaxtv::cuda
