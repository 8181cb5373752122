// Samples near the end of their type. Three computations leave the range of their type before the
// samples do. Each has a limit here; a signal beyond it is solved in another way, and all others
// keep every bit:
//
//   in                      what overflows                limit           beyond it
//   double                  squares, sums of samples      kSolverLimit    solved at kSolverScale
//   the vectors of SIMD     sums of n samples             simd_limit      one signal in double
//   T, Dykstra's iteration  its states, sums of samples   kDykstraLimit   solved at kDykstraScale
//
// The scales are powers of two, so that only samples become inexact that are far below the
// round-off of the largest one.
#pragma once

#include <limits>

#include "jaxtv/common.hpp"

namespace jaxtv {

// ---- one signal in double ----

// 1e140 squared, times the number of samples, is in range; 2^-600 takes the largest double (2^1024)
// to where that holds again.
constexpr double kSolverLimit = 1e140, kSolverScale = 0x1p-600;

// `values`, each multiplied by `factor` as it is read.
template <class A>
struct Scaled {
  A values;
  double factor;
  template <class I>
  JAXTV_HD double operator[](I i) const {
    return double(values[i]) * factor;
  }
};
template <class A>
Scaled(A, double) -> Scaled<A>;

// ---- vectors of signals of n samples ----

// The messages of threshold decomposition are sums of n differences of samples and of thresholds.
// Doubles have the limit of the solver in double, which takes what is beyond.
template <class T>
JAXTV_INLINE T simd_limit(std::int64_t n) {
  return sizeof(T) == 4 ? T(3.4e38) / (T(8) * T(n)) : T(kSolverLimit);
}

// ---- Dykstra's iteration ----

// Sums of 2^32 samples up to kDykstraLimit are in range. kDykstraScale takes the largest number to
// below that.
template <class T>
constexpr T kDykstraLimit = std::numeric_limits<T>::max() * T(0x1p-32);
template <class T>
constexpr T kDykstraScale = sizeof(T) == 4 ? T(0x1p-40) : T(0x1p-100);

// Takes a problem to the size that it is solved at, and its result back.
template <class T>
class DykstraScaling {
 public:
  JAXTV_HD explicit DykstraScaling(bool beyond_limit)
      : factor_(beyond_limit ? kDykstraScale<T> : T(1)),
        least_weight_(beyond_limit ? kTiny : T(0)) {}
  JAXTV_HD bool unchanged() const { return factor_ == T(1); }
  JAXTV_HD T sample(T x) const { return x * factor_; }
  JAXTV_HD T weight(T w) const {  // keeps its sign: a weight that is not 0 does not become 0
    const T small = w * factor_;
    return abs_of(small) < least_weight_ && w != T(0) ? (w < T(0) ? -least_weight_ : least_weight_)
                                                      : small;
  }
  // The result for sample x at its own size. What no weight has changed is x, bit for bit; the
  // sweeps may go beyond the largest sample.
  JAXTV_HD T result(T z, T x) const {
    if (unchanged()) return z;
    if (z == sample(x)) return x;
    return max_of(min_of(z * (T(1) / kDykstraScale<T>), kMax), -kMax);
  }

 private:
  static constexpr T kTiny = std::numeric_limits<T>::min(), kMax = std::numeric_limits<T>::max();
  T factor_, least_weight_;
};

}  // namespace jaxtv
