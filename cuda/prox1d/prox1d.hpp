// The exact 1D prox and the paper's projected Newton on a stream, without allocation and without
// waiting for it. Plain C++.
#pragma once

#include "shape.hpp"

namespace jaxtv::cuda {

// y = prox(x) for every signal; y may be x. The last three are per signal and null unless wanted
// (return_info), which needs y unrounded and apart from x.
template <class Sample>
struct Prox {
  const Sample* x;
  const Compute<Sample>* w;
  bool per_edge;  // w: n - 1 per signal, or 1
  Sample* y;
  Compute<Sample>* gap = nullptr;
  std::int32_t* iterations = nullptr;
  bool* converged = nullptr;
};

// Whether each signal is solved by one thread in a tile of shared memory. T: what is computed in.
template <class T>
bool one_thread_per_signal(const Shape& shape, Method method, bool per_edge);

// Scratch: prox1d_scratch in scratch.hpp.
template <class Sample>
Status prox1d(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op, const Solver& solver,
              void* scratch);

// The same with data weights (jaxtv/data_weight.hpp).
template <class T>
struct DataWeightProx {
  const T *x, *mass, *w;
  bool per_edge;
  T* y;
};

// Scratch: prox1d_data_weight_scratch.
template <class T>
Status prox1d_data_weight(cudaStream_t stream, const Shape& shape, const DataWeightProx<T>& op,
                          void* scratch);

}  // namespace jaxtv::cuda
