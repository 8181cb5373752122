// Dykstra on samples of any size. Its states are sums of samples, which overflow where these are
// near the largest number. Such problems are solved at a power of two of their size, all others as
// they are: no bit of them changes.
#pragma once

#include <limits>

#include "jaxtv/common.hpp"

namespace jaxtv {

// Sums of 2^32 samples up to kMostSummed are in range; kSmaller leaves as much for those beyond.
template <class T>
constexpr T kMostSummed = std::numeric_limits<T>::max() * T(0x1p-32);
template <class T>
constexpr T kSmaller = sizeof(T) == 4 ? T(0x1p-40) : T(0x1p-100);

// The size that a problem is solved at.
template <class T>
class Size {
 public:
  JAXTV_HD explicit Size(bool large)
      : factor_(large ? kSmaller<T> : T(1)), least_(large ? kTiny : T(0)) {}
  JAXTV_HD bool unchanged() const { return factor_ == T(1); }
  JAXTV_HD T sample(T x) const { return x * factor_; }
  JAXTV_HD T weight(T w) const {  // keeps its sign
    const T small = w * factor_;
    return abs_of(small) < least_ && w != T(0) ? (w < T(0) ? -least_ : least_) : small;
  }
  // The result for sample x at its own size. What no weight has changed is x, bit for bit; the
  // sweeps may go beyond the largest sample.
  JAXTV_HD T result(T z, T x) const {
    if (unchanged()) return z;
    if (z == sample(x)) return x;
    return max_of(min_of(z * (T(1) / kSmaller<T>), kMax), -kMax);
  }

 private:
  static constexpr T kTiny = std::numeric_limits<T>::min(), kMax = std::numeric_limits<T>::max();
  T factor_, least_;
};

}  // namespace jaxtv
