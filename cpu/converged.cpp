// One element at a time. Names are those of jaxtv/_converged.py, which explains the method, the
// polish (means of y over what the passes have joined) and the stop.
#include "converged.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "components.hpp"
#include "prox1d.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kBlock = 16384;  // samples of a partial sum: the same for any threads

// Sum of f(begin, end) over blocks of [0, count), added up in order. f gives an array of sums.
template <class F>
auto sum_blocks(const Pool& pool, std::int64_t count, std::int64_t block, F f) {
  using Sums = decltype(f(std::int64_t(0), std::int64_t(0)));
  std::vector<Sums> parts((count + block - 1) / block);
  parallel_for(pool, std::int64_t(parts.size()), [=, &parts](std::int64_t b) {
    parts[b] = f(b * block, std::min(count, (b + 1) * block));
  });
  Sums total{};
  for (const Sums& part : parts) total += part;
  return total;
}

// Sum of f(i) for i in [0, n) in double, in eight interleaved sums that can share a vector.
template <class F>
double sum_of(std::int64_t n, F f) {
  double lane[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; ++k) lane[k] += f(i + k);
  double total = 0;
  for (; i < n; ++i) total += f(i);
  for (double v : lane) total += v;
  return total;
}

// The total variation of y along one axis, sum w |Dy|, and by how much it exceeds that of z.
struct Variation {
  double excess = 0, tv = 0;
  void operator+=(const Variation& o) { excess += o.excess, tv += o.tv; }
};

template <class T>
Variation variation(const Pool& pool, const Shape& s, const Weights<T>& w, const T* y, const T* z) {
  // A line: edges that lie one after the other in memory.
  const bool along = s.inner == 1;
  const std::int64_t lines = along ? s.outer : s.outer * (s.n - 1);
  const std::int64_t edges = along ? s.n - 1 : s.inner, length = w.length(s.n);
  if (edges == 0) return {};
  return sum_blocks(
      pool, lines, std::max<std::int64_t>(1, kBlock / edges),
      [=](std::int64_t begin, std::int64_t end) {
        Variation v;
        for (std::int64_t line = begin; line < end; ++line) {
          const std::int64_t o = along ? line : line / (s.n - 1), e = along ? 0 : line % (s.n - 1);
          const T *a = y + (o * s.n + e) * s.inner, *b = z + (o * s.n + e) * s.inner;
          const T* weight = w.data + (o * length + (w.per_edge ? e : 0)) * s.inner;
          const std::int64_t next = s.inner, step = along && !w.per_edge ? 0 : 1;
          v.tv += sum_of(edges, [=](std::int64_t i) {
            return double(weight[i * step]) * std::abs(double(a[i + next]) - double(a[i]));
          });
          v.excess += sum_of(edges, [=](std::int64_t i) {
            return double(weight[i * step]) * (std::abs(double(a[i + next]) - double(a[i])) -
                                               std::abs(double(b[i + next]) - double(b[i])));
          });
        }
        return v;
      });
}

// One element, taken out of the batch, centred and scaled by a power of two.
template <class T>
class Problem {
 public:
  Problem(const Elements& elements, std::int64_t e, const Converged<T>& op)
      : size_(elements.size()), axes_(elements.axes.size()), op_(op) {
    for (std::size_t a = 0; a < axes_; ++a) shapes_.push_back(elements.shape(a));
    const ElementLayout all = elements.layout(e);
    gather(all, op.x, resized(x_));
    for (const T* start : op.start_duals) gather(all, start, resized(last_duals_.emplace_back()));
    for (std::size_t a = 0; a < axes_; ++a) {
      const std::int64_t length = op.w[a].length(shapes_[a].n);
      std::vector<T>& w = weights_.emplace_back(size_ / shapes_[a].n * length);
      gather(elements.layout(e, a, length), op.w[a].data, w.data());
    }
    normalise();
  }

  bool no_solution() const { return no_solution_; }

  void solve(const Pool& pool, const StopRule& stop, const Solver& inner) {
    point_ = last_duals_;
    duals_.resize(axes_ - 1);
    for (auto& v : duals_) resized(v);
    z_.resize(axes_);
    for (auto& v : z_) resized(v);
    resized(first_dual_), resized(a_), resized(y_), resized(smooth_);
    double t = 1;
    for (iterations = 1;; ++iterations) {
      passes(pool, inner);
      const Sums sums = residual(pool);
      const Variation tv = variations(pool, y_);
      const double gap_y = std::max(0.0, tv.excess - sums.slack);
      const double optimum = tv.tv + sums.square / 2 - gap_y;
      const bool within_tol = gap_y <= stop.tol * optimum + roundoff_;
      gap = gap_y;
      if (within_tol || iterations == stop.max_iterations) {
        const double gap_smooth = polish(pool);
        converged = within_tol && gap_smooth <= stop.tol * optimum;
        if (converged || gap_smooth <= gap_y) {
          y_.swap(smooth_);
          gap = gap_smooth;
        }
      }
      if (converged || iterations == stop.max_iterations) break;
      const bool restart = sums.restart_test > 0;
      const double next = (1 + std::sqrt(1 + 4 * t * t)) / 2;
      advance(pool, T(restart ? 0 : (t - 1) / next));
      t = restart ? 1 : next;
    }
  }

  void write(const Elements& elements, std::int64_t e) {
    const ElementLayout all = elements.layout(e);
    if (no_solution_) {
      y_.assign(size_, std::numeric_limits<T>::quiet_NaN());
      scatter(all, y_.data(), op_.y);
    } else if (weightless_) {
      gather(all, op_.x, y_.data());
      scatter(all, y_.data(), op_.y);
    } else {
      constexpr double kMax = std::numeric_limits<T>::max();  // which round-off may exceed
      for (T& v : y_) v = T(std::clamp(std::ldexp(double(v) + mean_, exponent_), -kMax, kMax));
      scatter(all, y_.data(), op_.y);
    }
    for (std::size_t a = 0; a + 1 < axes_; ++a) {
      std::vector<T>& dual = iterations ? duals_[a] : last_duals_[a];
      for (T& v : dual) v = no_solution_ ? T(0) : T(std::ldexp(v, exponent_));
      scatter(all, dual.data(), op_.duals[a]);
    }
    op_.gap[e] = T(std::ldexp(gap, 2 * exponent_));
    op_.iterations[e] = iterations;
    op_.converged[e] = converged;
  }

  double gap = std::numeric_limits<double>::quiet_NaN();
  std::int32_t iterations = 0;
  bool converged = false;

 private:
  struct Sums {
    double slack = 0;         // sum_a <p_a, y - z_a>
    double square = 0;        // |x - y|^2
    double restart_test = 0;  // <point - p, p - last p>: restart where > 0
    void operator+=(const Sums& o) {
      slack += o.slack, square += o.square, restart_test += o.restart_test;
    }
  };

  T* resized(std::vector<T>& v) {
    v.resize(size_);
    return v.data();
  }
  Weights<T> weights(std::size_t a) const { return {weights_[a].data(), op_.w[a].per_edge}; }
  const std::vector<T>& dual_of(std::size_t a) const {
    return a == 0 ? first_dual_ : duals_[a - 1];
  }

  void normalise() {
    double largest = 0, sum = 0, deviation = 0, edges = 0;
    for (T v : x_) no_solution_ |= !(v - v == 0), largest = std::max(largest, std::abs(double(v)));
    weightless_ = true;
    for (const auto& w : weights_)
      for (T v : w) no_solution_ |= !(v >= 0), weightless_ &= v == 0;
    if (no_solution_) return;
    std::frexp(largest, &exponent_);
    for (T& v : x_) sum += std::ldexp(double(v), -exponent_);
    mean_ = sum / double(size_);
    for (T& v : x_) {
      v = T(std::ldexp(double(v), -exponent_) - mean_);
      deviation += std::abs(double(v));
    }
    // No dual exceeds the sum of |x - mean|.
    for (std::size_t a = 0; a < axes_; ++a) {
      double total = 0;
      for (T& v : weights_[a]) {
        v = T(std::min(std::ldexp(double(v), -exponent_), deviation));
        total += v;
      }
      edges += total * (op_.w[a].per_edge ? 1.0 : double(shapes_[a].n - 1));
    }
    // Nor does a state, the difference of two duals, exceed twice that: a start may be anything.
    for (auto& dual : last_duals_)
      for (T& v : dual)
        v = v - v == 0
                ? T(std::clamp(std::ldexp(double(v), -exponent_), -2 * deviation, 2 * deviation))
                : T(0);
    roundoff_ = double(std::numeric_limits<T>::epsilon()) * deviation / double(size_) * edges;
  }

  // z_a = prox_a(a), p_a = a - z_a: the first axis from x less the other duals at `point`, the
  // others by a gradient step from there.
  void passes(const Pool& pool, const Solver& inner) {
    Pass<T> s{};
    s.shape = shapes_[0];
    s.x = x_.data();
    for (const auto& v : point_) s.minus[s.num_minus++] = v.data();
    s.w = weights(0);
    s.y = z_[0].data();
    s.residual = first_dual_.data();
    prox1d(pool, s, inner);
    const T step = T(1) / T(axes_ - 1);
    for (std::size_t a = 1; a < axes_; ++a) {
      sum_blocks(pool, size_, kBlock, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) a_[i] = point_[a - 1][i] + z_[0][i] * step;
        return Variation{};
      });
      Pass<T> next{};
      next.shape = shapes_[a];
      next.x = a_.data();
      next.w = weights(a);
      next.y = z_[a].data();
      next.residual = duals_[a - 1].data();
      prox1d(pool, next, inner);
    }
  }

  // y = x - sum_a p_a, and its sums.
  Sums residual(const Pool& pool) {
    return sum_blocks(pool, size_, kBlock, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t n = end - begin;
      const T* x = &x_[begin];
      T* y = &y_[begin];
      std::copy(x, x + n, y);
      for (std::size_t a = 0; a < axes_; ++a) {
        const T* p = &dual_of(a)[begin];
        for (std::int64_t i = 0; i < n; ++i) y[i] -= p[i];
      }
      Sums s;
      s.square = sum_of(n, [=](std::int64_t i) {
        const double d = double(x[i]) - double(y[i]);
        return d * d;
      });
      s.slack = slack(begin, n, y_);
      for (std::size_t a = 0; a + 1 < axes_; ++a) {
        const T *v = &point_[a][begin], *p = &duals_[a][begin], *q = &last_duals_[a][begin];
        s.restart_test +=
            sum_of(n, [=](std::int64_t i) { return double(v[i] - p[i]) * double(p[i] - q[i]); });
      }
      return s;
    });
  }

  double slack(std::int64_t begin, std::int64_t n, const std::vector<T>& from) const {
    double total = 0;
    for (std::size_t a = 0; a < axes_; ++a) {
      const T *p = &dual_of(a)[begin], *z = &z_[a][begin], *y = &from[begin];
      total +=
          sum_of(n, [=](std::int64_t i) { return double(p[i]) * (double(y[i]) - double(z[i])); });
    }
    return total;
  }

  Variation variations(const Pool& pool, const std::vector<T>& y) const {
    Variation v;
    for (std::size_t a = 0; a < axes_; ++a)
      v += variation(pool, shapes_[a], weights(a), y.data(), z_[a].data());
    return v;
  }

  // smooth = the means of y over what the passes have joined. Returns its gap.
  double polish(const Pool& pool) {
    Components components(size_);
    for (std::size_t a = 0; a < axes_; ++a) {
      const Shape& s = shapes_[a];
      const Weights<T> w = weights(a);
      const T* z = z_[a].data();
      for_edges(s, w.per_edge, [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        if (z[i] == z[j] && w.data[k] > 0) components.join(i, j);
      });
    }
    std::vector<double> means(y_.begin(), y_.end());
    components.average(means.data());
    std::copy(means.begin(), means.end(), smooth_.begin());
    const Sums sums = sum_blocks(pool, size_, kBlock, [&](std::int64_t begin, std::int64_t end) {
      const T *y = &y_[begin], *smooth = &smooth_[begin];
      Sums s;
      s.slack = slack(begin, end - begin, smooth_);
      s.square = sum_of(end - begin, [=](std::int64_t i) {
        const double d = double(smooth[i]) - double(y[i]);
        return d * d;
      });
      return s;
    });
    return std::max(0.0, variations(pool, smooth_).excess - sums.slack + sums.square / 2);
  }

  // point = dual + beta (dual - last dual); the duals of this iteration become the last ones.
  void advance(const Pool& pool, T beta) {
    for (std::size_t a = 0; a + 1 < axes_; ++a) {
      T *v = point_[a].data(), *q = last_duals_[a].data();
      const T* p = duals_[a].data();
      sum_blocks(pool, size_, kBlock, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          v[i] = p[i] + beta * (p[i] - q[i]);
          q[i] = p[i];
        }
        return Variation{};
      });
    }
  }

  std::int64_t size_;  // samples
  std::size_t axes_;
  const Converged<T>& op_;
  std::vector<Shape> shapes_;  // of each axis, as the next one
  std::vector<std::vector<T>> weights_;
  // Of each axis but the first: the duals of the last and of this iteration, and the point between
  // or beyond them from which an iteration starts.
  std::vector<std::vector<T>> last_duals_, duals_, point_;
  std::vector<T> first_dual_;          // of the first axis
  std::vector<std::vector<T>> z_;      // results of the passes, of each axis
  std::vector<T> x_, a_, y_, smooth_;  // samples, input of a pass, solution, polished solution
  bool no_solution_ = false, weightless_ = false;
  int exponent_ = 0;  // x_ = x 2^-exponent_ - mean_
  double mean_ = 0;
  double roundoff_ = 0;  // of the gap
};

}  // namespace

template <class T>
void converged(const Pool& pool, const Elements& elements, const StopRule& stop,
               const Solver& inner, const Converged<T>& op) {
  for_elements(pool, elements.count(),
               [=, &elements, &stop, &inner, &op](std::int64_t e, const Pool& inside) {
                 Problem<T> problem(elements, e, op);
                 if (!problem.no_solution()) problem.solve(inside, stop, inner);
                 problem.write(elements, e);
               });
}

template void converged(const Pool&, const Elements&, const StopRule&, const Solver&,
                        const Converged<float>&);
template void converged(const Pool&, const Elements&, const StopRule&, const Solver&,
                        const Converged<double>&);

}  // namespace jaxtv::cpu
