// The converged N-D prox: accelerated Dykstra to a given gap. jaxtv/_converged.py explains the
// method, in plain JAX. Free of XLA.
#pragma once

#include <cstdint>
#include <vector>

#include "elements.hpp"
#include "jaxtv/solver.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

struct StopRule {
  double tol;  // of the duality gap, relative to the objective
  std::int64_t max_iterations;
};

template <class T>
struct Converged {
  const T* x;
  std::vector<const T*> start_duals;  // of all axes but the first
  std::vector<Weights<T>> w;          // of all axes
  T *y, *gap;
  std::int32_t* iterations;
  bool* converged;
  std::vector<T*> duals;  // at the end, of all axes but the first
  std::uint8_t* codes;    // of the edges, as the last pass along each axis has them
};

template <class T>
void converged(const Pool& pool, const Elements& elements, const StopRule& stop,
               const Solver& inner, const Converged<T>& op);

}  // namespace jaxtv::cpu
