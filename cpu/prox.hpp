// The operations behind the FFI targets, free of XLA: 1D prox, Dykstra, and their derivatives.
#pragma once

#include <vector>

#include "jaxtv/edge_code.hpp"
#include "parallel.hpp"
#include "sweep.hpp"

namespace jaxtv::cpu {

template <class T>
void prox1d(const Pool& pool, const Sweep<T>& sweep, const Solver& solver);
template <class T>
void segment_push(const Pool& pool, const Pushforward<T>& op);
template <class T>
void segment_pull(const Pool& pool, const Pullback<T>& op);

// `batch` independent arrays of shape `core`; a sweep solves every axis of `axes` once, in that
// order.
struct Iteration {
  std::int64_t batch;
  std::vector<std::int64_t> core, axes;
  std::int64_t iterations;

  std::int64_t passes() const { return iterations * std::int64_t(axes.size()); }
  std::int64_t planes() const { return code_bytes(passes()); }  // mask bytes per sample
  std::int64_t core_size() const;
  Shape shape(std::size_t axis) const;  // of one array, along axes[axis]
};

// Proximal Dykstra (the paper's Algorithm 1). `mask` may be null.
template <class T>
void dykstra(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
             const std::vector<Weights<T>>& w, T* y, std::uint8_t* mask);
// Tangent and adjoint of the unrolled iteration; they read the mask only.
template <class T>
void dykstra_push(const Pool& pool, const Iteration& it, const std::uint8_t* mask, const T* tx,
                  const std::vector<Weights<T>>& tw, T* ty);
template <class T>
void dykstra_pull(const Pool& pool, const Iteration& it, const std::uint8_t* mask, const T* g,
                  T* gx, const std::vector<T*>& gw, const std::vector<bool>& per_edge);

}  // namespace jaxtv::cpu
