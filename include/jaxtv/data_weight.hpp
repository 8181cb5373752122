// Data weights: min_y 1/2 sum_i mass_i (y_i - x_i)^2 + sum_e w_e |y_{e+1} - y_e|. A sample counts
// as often as its mass says: sums over samples become sums of mass * sample, lengths become sums of
// mass, and nothing else changes. A mass of 0 is allowed where infinite weights join the sample to
// one with a mass (jaxtv/_data_weight.py sees to that): then no segment is without mass.
#pragma once

#include <type_traits>

#include "jaxtv/common.hpp"

namespace jaxtv {

// Every sample counts once.
struct UnitMass {
  template <class I>
  JAXTV_HD constexpr double operator[](I) const {
    return 1;
  }
};

// Of the samples [first, last].
template <class I, class M>
JAXTV_HD double total_mass(M mass, I first, I last) {
  if constexpr (std::is_same_v<M, UnitMass>) {
    return double(last - first + 1);
  } else {
    double total = 0;
    for (I i = first; i <= last; ++i) total += double(mass[i]);
    return total;
  }
}

}  // namespace jaxtv
