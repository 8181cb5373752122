// Samples far from all others, brought near before the converged N-D prox is solved.
//
// An outlier takes part in the objective with its whole height: a gap that is small in relation to
// it says nothing about the other samples, and their precision is lost with the mean that it
// raises. But its height has no influence on them. Cut the sorted samples at a gap from a to b, and
// let no sample have edges across the cut with weights of more than (b - a) / 2 in all. Then y is
// above (a + b) / 2 just where x is: against that threshold, each sample outweighs its edges. So
// all jumps across the cut have known signs, and to move one side nearer, as long as b - a keeps
// this bound, moves its y by as much and changes nothing else: duals, edge codes, the other y.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace jaxtv::cpu {

// A gap between two neighbours in sorted order is far if it exceeds so many times the scale: the
// sum of all smaller gaps, the size of the median and the bound above.
constexpr double kFar = 1024;

// Half of the distance, which does not overflow.
template <class T>
double half_gap(T a, T b) {
  return double(b) / 2 - double(a) / 2;
}

template <class T>
class Outliers {
 public:
  // Moves the far ones of the finite samples x. If there are none, x keeps its bits.
  void bring_near(const std::vector<Shape>& shapes, const std::vector<Weights<T>>& w,
                  std::int64_t size, T* x);
  bool any() const { return !clusters_.empty(); }
  // What brings the solution at sample i back.
  double shift(std::int64_t i) const { return clusters_[of_sample_[i]].shift; }

 private:
  struct Cluster {  // samples between two far gaps
    T first;        // its least sample
    double anchor, near, shift;
  };
  std::vector<Cluster> clusters_;        // in ascending order; empty if there are no outliers
  std::vector<std::uint8_t> of_sample_;  // the cluster of each
};

}  // namespace jaxtv::cpu
