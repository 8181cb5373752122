#include "converged/gap.hpp"

#include <cmath>

#include "jaxtv/edge_code.hpp"

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

template <class T>
std::vector<double> polished_gap(const Pool& pool, const Tiles& tiles, const Iterate<T>& it,
                                 const T* c) {
  std::vector<double> parts(tiles.count());
  parallel_for(pool, tiles.rows(), [&](std::int64_t row) {
    const std::int64_t begin = tiles.begin(row), end = tiles.end(row);
    std::vector<T> terms(end - begin);  // of samples, and of the edges after them
    T* term = terms.data() - begin;
    for (std::int64_t i = begin; i < end; ++i) term[i] = (c[i] - it.y[i]) * (c[i] - it.y[i]) / 2;
    for (std::size_t a = 0; a < it.shapes.size(); ++a) {
      const std::uint8_t* codes = it.codes + code_byte(a) * it.size;
      for_weighted_edges(it.shapes[a], it.w[a], begin, end,
                         [=, next = it.shapes[a].inner, shift = code_shift(a)](
                             std::int64_t i, std::int64_t last, auto weight) {
                           for (; i < last; ++i) {
                             const T jump = c[i + next] - c[i];
                             const T sign = jump_sign<T>(code_at(codes[i], shift));
                             term[i] += weight(i) * (std::abs(jump) - sign * jump);
                           }
                         });
    }
    tiles.for_pieces(row, [&](std::int64_t tile, std::int64_t first, std::int64_t last) {
      parts[tile] += sum_of(first, last, [=](std::int64_t i) { return term[i]; });
    });
  });
  return parts;
}

#define JAXTV_INSTANTIATE(T)                                                       \
  template double dual_value(const Pool&, const Strips&, const Iterate<T>&);       \
  template double gap_of(const Pool&, const Strips&, const Iterate<T>&, const T*); \
  template std::vector<double> polished_gap(const Pool&, const Tiles&, const Iterate<T>&, const T*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
