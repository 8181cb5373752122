// The isotropic prox by fast gradient projection. jaxtv/_fgp.py explains the method, in plain JAX.
// Free of XLA.
#pragma once

#include <cstdint>
#include <vector>

#include "converged/converged.hpp"
#include "parallel.hpp"

namespace jaxtv::cpu {

// Elements follow each other in memory, and so do the channels of an element.
struct Pixels {
  std::int64_t elements, channels;
  std::vector<std::int64_t> sizes;  // of the spatial axes

  std::int64_t count() const {  // of one channel of an element
    std::int64_t product = 1;
    for (std::int64_t n : sizes) product *= n;
    return product;
  }
};

template <class T>
struct Isotropic {
  const T *x, *w;
  bool per_pixel;               // one weight per pixel, not one per element
  std::vector<const T*> start;  // a dual: one array shaped as x for each axis
  T *y, *gap;
  std::int32_t* iterations;
  bool* converged;
  std::vector<T*> dual;
  std::uint8_t* joined;  // one per pixel
};

template <class T>
void isotropic(const Pool& pool, const Pixels& pixels, const StopRule& stop,
               const Isotropic<T>& op);

}  // namespace jaxtv::cpu
