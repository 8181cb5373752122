// The options of a 1D solver, the same on every platform.
#pragma once

#include <cstdint>

namespace jaxtv {

constexpr int kMaxAxes = 8;  // of one Dykstra iteration or converged prox

// The method names an algorithm for the 1D prox; kDirect picks one by shape and platform.
// jaxtv/_primitive.py has the same numbers.
enum class Method : int { kDirect, kTautString, kDecomposition, kProjectedNewton };

struct Solver {
  Method method;
  // Of the projected Newton method only (jaxtv/newton.hpp):
  double tol;
  std::int64_t max_iterations;
  int line_search;
};

}  // namespace jaxtv
