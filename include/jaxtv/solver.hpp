// The options of the operations, the same on every platform.
#pragma once

#include <cstdint>

namespace jaxtv {

constexpr int kMaxAxes = 8;  // of one Dykstra iteration

// jaxtv/_primitive.py has the same numbers.
enum class Method : int { kDirect, kTautString, kDecomposition, kProjectedNewton };

struct Solver {
  Method method;
  double tol;
  std::int64_t max_iterations;
  int line_search;
};

}  // namespace jaxtv
