// Sums and counts in the lanes of vectors. A sum of float is as good as one in double, whatever the
// size of its terms.
//
// fold() is to be called after at most kFold additions, lest errors and counts grow too large for
// float. restrict_to(mask) sets the lanes outside of a mask to zero.
#pragma once

#include <cstdint>

#include "simd/vectors.hpp"

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error "Sum<float> needs additions as they are written: no -ffast-math, no -fassociative-math"
#endif

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr std::int64_t kFold = 1024;

template <class T>
struct Sum;

template <>
struct Sum<double> {
  Double sum = {};
  void add(Double v) { sum += v; }
  Double total() const { return sum; }
  void fold() {}
  void restrict_to(DoubleMask mask) { sum = keep(mask, sum); }
};

// The error of an addition is found exactly (TwoSum; Knuth, The Art of Computer Programming 2,
// 4.2.2) and summed apart. So a large term that comes and goes leaves the small ones as they were.
// There is no product that a compiler could contract. A sum beyond the range of float is NaN.
template <>
struct Sum<float> {
  using V = Vectors<float>::V;
  V sum = {}, error = {};
  void add(V v) {
    const V next = sum + v, added = next - sum;
    error += (sum - (next - added)) + (v - added);
    sum = next;
  }
  V total() const { return sum + error; }
  void fold() {
    const V next = sum + error;
    error += sum - next;
    sum = next;
  }
  void restrict_to(Vectors<float>::M mask) {
    sum = keep(mask, sum);
    error = keep(mask, error);
  }
};

// Counts up to 2^34: float has all whole numbers to 2^24 only, but all multiples of kFold.
template <class T>
struct SampleCount {
  using V = typename Vectors<T>::V;
  V few = {}, many = {};
  void increment() { few += T(1); }
  V total() const { return many + few; }
  void fold() {
    many += few;
    few = V{};
  }
  void restrict_to(typename Vectors<T>::M mask) {
    few = keep(mask, few);
    many = keep(mask, many);
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
