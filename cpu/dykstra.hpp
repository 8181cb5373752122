// Proximal Dykstra (the paper's Algorithm 1) and the derivatives of its unrolled iteration, over
// the threads of a pool. Free of XLA.
#pragma once

#include <cstdint>
#include <vector>

#include "jaxtv/edge_code.hpp"
#include "jaxtv/solver.hpp"
#include "layout.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// `batch` independent arrays, the elements, of shape `dims`. A sweep solves every axis of `axes`
// (of an element) once, in that order: a pass each.
struct Iteration {
  std::int64_t batch;
  std::vector<std::int64_t> dims, axes;
  std::int64_t sweeps;

  std::int64_t passes() const { return sweeps * std::int64_t(axes.size()); }
  std::int64_t size() const;  // samples of an element
  // Edge codes of an element: this many arrays of `size` bytes.
  std::int64_t code_arrays() const { return code_bytes(passes()); }
  Shape shape(std::size_t a) const;  // of an element, along axes[a]
};

// One weight array per axis, each for the whole batch. `codes` of all passes, unless null.
template <class T>
void dykstra(const Pool& pool, const Iteration& it, const Solver& inner, const T* x,
             const std::vector<Weights<T>>& w, T* y, std::uint8_t* codes);

// The derivatives read the codes only. tw and gw: one array per axis.
template <class T>
void dykstra_jvp(const Pool& pool, const Iteration& it, const std::uint8_t* codes, const T* tx,
                 const std::vector<Weights<T>>& tw, T* ty);
template <class T>
void dykstra_vjp(const Pool& pool, const Iteration& it, const std::uint8_t* codes, const T* g,
                 T* gx, const std::vector<T*>& gw, const std::vector<bool>& per_edge);

}  // namespace jaxtv::cpu
