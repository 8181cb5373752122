#include "converged/gap.hpp"

#include <cmath>

namespace jaxtv::cpu {
namespace {

// The part of TV_a(c) - <p_a, c> in [begin, end), less that of z_a: TV_a(z_a) = <p_a, z_a>.
template <class T>
double excess(const Iterate<T>& it, std::size_t a, const T* c, std::int64_t begin,
              std::int64_t end) {
  const T *z = it.z[a], *p = it.p[a];
  const std::int64_t next = it.shapes[a].inner;
  double total = sum_of(begin, end, [=](std::int64_t i) { return p[i] * (z[i] - c[i]); });
  for_weighted_edges(
      it.shapes[a], it.w[a], begin, end, [&](std::int64_t first, std::int64_t last, auto weight) {
        total += sum_of(first, last, [=](std::int64_t i) {
          return weight(i) * (std::abs(c[i + next] - c[i]) - std::abs(z[i + next] - z[i]));
        });
      });
  return total;
}

}  // namespace

template <class T>
double dual_value(const Pool& pool, const Strips& strips, const Iterate<T>& it) {
  return sum_strips(pool, strips, [&](std::int64_t begin, std::int64_t end) {
    const T *x = it.x, *y = it.y;
    return sum_of(begin, end, [=](std::int64_t i) { return (x[i] - y[i]) * (x[i] + y[i]) / 2; });
  });
}

template <class T>
double gap_of(const Pool& pool, const Strips& strips, const Iterate<T>& it, const T* c) {
  const double gap = sum_strips(pool, strips, [&](std::int64_t begin, std::int64_t end) {
    double total = 0;
    for (std::size_t a = 0; a < it.z.size(); ++a)
      if (it.z[a] != c) total += excess(it, a, c, begin, end);
    if (it.y == c) return total;
    return total + sum_of(begin, end, [c, y = it.y](std::int64_t i) {
             return (c[i] - y[i]) * (c[i] - y[i]) / 2;
           });
  });
  return std::max(0.0, gap);
}

#define JAXTV_INSTANTIATE(T)                                                 \
  template double dual_value(const Pool&, const Strips&, const Iterate<T>&); \
  template double gap_of(const Pool&, const Strips&, const Iterate<T>&, const T*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
