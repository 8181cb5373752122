// The 1D prox with data weights (jaxtv/data_weight.hpp), of all signals of an array. Free of XLA.
#pragma once

#include "layout.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// y = argmin 1/2 sum mass (y - x)^2 + TV(y), for every signal along the axis.
template <class T>
struct DataWeightProx {
  Shape shape;
  const T *x, *mass;
  Weights<T> w;
  T* y;
};

template <class T>
void prox1d_data_weight(const Pool& pool, const DataWeightProx<T>& op);

}  // namespace jaxtv::cpu
