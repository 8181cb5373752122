// Projected Newton on the dual (the paper's solver, Eqs. 6 and 7; Bertsekas 1982; Barbero & Sra
// 2018):
//   minimise psi(u) = 1/2 |y(u)|^2  over  |u_e| <= w_e,   y_i(u) = x_i - u_{i-1} + u_i.
// The gradient is -(y_{e+1} - y_e); the Hessian D D^T = tridiagonal(-1, 2, -1), restricted to the
// free duals, is factorised by a tridiagonal Cholesky in O(n).
#pragma once

#include "jaxtv/certificate.hpp"
#include "jaxtv/cuts.hpp"

namespace jaxtv {

enum class LineSearch : int { kBacktracking = 0, kParallel = 1 };

struct NewtonOptions {
  double tol;
  std::int64_t max_iterations;
  LineSearch line_search;
};

struct NewtonReport {
  std::int64_t iterations;
  bool converged;
};

constexpr int kNewtonScratch = 6;   // arrays of n doubles
constexpr int kParallelSteps = 16;  // halved steps tried side by side
constexpr int kFinishing = 8;       // steps past `tol`, while they still improve the active set

namespace newton_detail {

constexpr double kArmijo = 0.05;

JAXTV_HD inline double clip(double v, double bound) { return max_of(-bound, min_of(bound, v)); }

// Duality gap of the dual-feasible pair (y(u), u) and the primal objective there. `level`: the same
// without the height of jumps beyond a weight, so that it does not grow with an outlier.
struct Objective {
  double gap, primal, level;
};

template <class X, class W, class D>
JAXTV_HD Objective objective(std::ptrdiff_t n, X x, W w, D u, D y) {
  Objective o{0, 0, 0};
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double r = y[i] - double(x[i]);
    o.primal += 0.5 * r * r;
    o.level += 0.5 * r * r;
    if (i + 1 == n) break;
    const double jump = y[i + 1] - y[i];
    if (jump == 0) continue;  // also keeps an infinite weight out
    const double variation = double(w[i]) * abs_of(jump);
    o.primal += variation;
    o.level += double(w[i]) * min_of(abs_of(jump), double(w[i]));
    o.gap += variation - u[i] * jump;
  }
  return o;
}

template <class X, class D>
JAXTV_HD void primal(std::ptrdiff_t n, X x, D u, D y) {
  double last = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double here = i + 1 < n ? u[i] : 0.0;
    y[i] = double(x[i]) - last + here;
    last = here;
  }
}

// psi(clip(u + step d)) - psi(u) and <gradient, clip(u + step d) - u>.
struct Trial {
  double change, slope;
};

// What the samples [begin, end) add to a trial.
template <class I, class W, class D>
JAXTV_HD Trial try_step(I begin, I end, I n, W w, D u, D y, D d, double step) {
  const auto displace = [&](I e) {
    return clip(double(u[e]) + step * double(d[e]), w[e]) - double(u[e]);
  };
  Trial t{0, 0};
  double last = begin > 0 && begin < end ? displace(begin - 1) : 0;
  for (I i = begin; i < end; ++i) {
    const double here = y[i];
    double move = 0;
    if (i + 1 < n) {
      move = displace(i);
      t.slope -= move * (double(y[i + 1]) - here);
    }
    const double dy = move - last;
    t.change += dy * (here + 0.5 * dy);
    last = move;
  }
  return t;
}

JAXTV_HD inline bool acceptable(Trial t) { return t.change <= kArmijo * t.slope; }

// Step by quadratic interpolation, halved where that does not shrink it. 0: none acceptable.
// attempt(step) gives the Trial.
template <class F>
JAXTV_HD double backtrack(F attempt) {
  double step = 1;
  for (int trial = 0; trial < 40; ++trial) {
    const Trial t = attempt(step);
    if (acceptable(t)) return step;
    const double slope = t.slope / step;
    const double next = -0.5 * slope * step * step / (t.change - slope * step);
    step = next > 0.05 * step && next < 0.5 * step ? next : 0.5 * step;
  }
  return 0;
}

// All halvings in one pass over the signal; the longest acceptable one is taken.
template <class W, class D>
JAXTV_HD double parallel_search(std::ptrdiff_t n, W w, D u, D y, D d) {
  double change[kParallelSteps] = {}, slope[kParallelSteps] = {}, last[kParallelSteps] = {};
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const bool inner = i + 1 < n;
    const double ui = inner ? u[i] : 0, di = inner ? d[i] : 0, bound = inner ? double(w[i]) : 0;
    const double jump = inner ? y[i + 1] - y[i] : 0;
    double step = 1;
    for (int j = 0; j < kParallelSteps; ++j, step *= 0.5) {
      const double move = clip(ui + step * di, bound) - ui;
      const double dy = move - last[j];
      slope[j] -= move * jump;
      change[j] += dy * (y[i] + 0.5 * dy);
      last[j] = move;
    }
  }
  double step = 1;
  for (int j = 0; j < kParallelSteps; ++j, step *= 0.5)
    if (acceptable({change[j], slope[j]})) return step;
  return 0;
}

// Solves H_FF d_F = jump_F by Cholesky, F = {free}; d = 0 elsewhere. With a unit diagonal L and
// pivots p: p_e = 2 - 1/p_{e-1} along runs of free duals.
template <class D>
JAXTV_HD void newton_direction(std::ptrdiff_t m, D y, D is_free, D pivot, D d) {
  for (std::ptrdiff_t e = 0; e < m; ++e) {
    const bool chained = e > 0 && is_free[e] != 0 && is_free[e - 1] != 0;
    pivot[e] = chained ? 2 - 1 / pivot[e - 1] : 2;
    d[e] = is_free[e] == 0 ? 0 : (y[e + 1] - y[e]) + (chained ? d[e - 1] / pivot[e - 1] : 0);
  }
  for (std::ptrdiff_t e = m - 1; e >= 0; --e) {
    const bool chained = e + 1 < m && is_free[e + 1] != 0;
    d[e] = is_free[e] == 0 ? 0 : (d[e] + (chained ? d[e + 1] : 0)) / pivot[e];
  }
}

// The edge as a candidate for the solution: a cut where its dual is at the bound.
JAXTV_HD inline int cut_of(double u, double bound) {
  return u >= bound ? 1 : (u <= -bound ? -1 : 0);
}

// Whether the gap is within `tol` of the objective, or round-off.
JAXTV_HD inline bool within(Objective o, double tol, double scale) {
  return o.gap <= max_of(tol * o.primal, kEps * kEps * scale * scale);
}

// The epsilon-binding set: duals at, or near, a bound with the gradient pointing out. `size`: of
// the larger sample at the edge; `norm`: of the projected gradient.
JAXTV_HD inline bool is_binding(double u, double bound, double jump, double size, double norm,
                                double scale) {
  const double eps = min_of(1e-3 * min_of(bound, scale), norm);
  const double floor = 16 * kEps * min_of(scale, max_of(size, bound));  // jumps below: round-off
  return (u >= bound - eps && jump > -floor) || (u <= -bound + eps && jump < floor);
}

}  // namespace newton_detail

// Solves one signal. Writes its cuts (edges whose dual is at the bound) and the values that belong
// to them, so the output is exactly constant within a segment; `converged` is judged on that
// output. Within `tol` a few more steps are made until the cuts are certified: then value and
// segments are exact. `scratch` holds kNewtonScratch * n doubles; x must be finite. The whole loop
// by one thread; cuda/prox1d/newton.cu has it by many.
template <class X, class W, class S>
NewtonReport projected_newton(std::ptrdiff_t n, X x, W w, S sign, double* result, double* scratch,
                              double scale, NewtonOptions options) {
  using namespace newton_detail;
  const std::ptrdiff_t m = n - 1;
  double *u = scratch, *y = u + n, *d = y + n, *is_free = d + n, *pivot = is_free + n,
         *dual = pivot + n;

  double mean = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) mean += (double(x[i]) - double(x[0])) / double(n);
  mean += double(x[0]);
  double sum = 0;
  for (std::ptrdiff_t e = 0; e < m; ++e) {
    sum += mean - double(x[e]);
    u[e] = clip(sum, w[e]);
  }

  int within_tol = 0;
  for (std::int64_t iteration = 0;; ++iteration) {
    // The candidate: edges at their bound are cuts, all others are fused.
    for (std::ptrdiff_t e = 0; e < m; ++e) sign[e] = cut_of(u[e], w[e]);
    do values_from_cuts(n, x, w, sign, result);
    while (join_ties(n, x, w, sign, result, scale));
    sum = 0;
    for (std::ptrdiff_t e = 0; e < m; ++e) {
      sum += result[e] - double(x[e]);
      if (sign[e] != 0) sum = double(sign[e]) * double(w[e]);
      dual[e] = clip(sum, w[e]);
    }
    primal(n, x, dual, y);  // y(dual) differs from `result` where a clip was needed
    Objective o = objective(n, x, w, dual, result);
    for (std::ptrdiff_t i = 0; i < n; ++i) o.gap += 0.5 * (y[i] - result[i]) * (y[i] - result[i]);
    const bool converged = within(o, options.tol, scale);
    if (iteration == options.max_iterations ||
        (converged && (certify(n, x, w, sign, result) ||
                       (o.gap <= options.tol * o.level && within_tol++ == kFinishing))))
      return {iteration, converged};

    primal(n, x, u, y);
    double norm = 0;
    for (std::ptrdiff_t e = 0; e < m; ++e)
      norm = max_of(norm, abs_of(clip(u[e] + (y[e + 1] - y[e]), w[e]) - u[e]));
    for (std::ptrdiff_t e = 0; e < m; ++e)
      is_free[e] = is_binding(u[e], w[e], y[e + 1] - y[e],
                              max_of(abs_of(double(x[e])), abs_of(double(x[e + 1]))), norm, scale)
                       ? 0
                       : 1;
    newton_direction(m, y, is_free, pivot, d);
    for (std::ptrdiff_t e = 0; e < m; ++e)  // binding duals within epsilon move onto the bound
      if (is_free[e] == 0) d[e] = y[e + 1] - y[e];
    const double step = options.line_search == LineSearch::kParallel
                            ? parallel_search(n, w, u, y, d)
                            : backtrack([&](double trial) {
                                return try_step<std::ptrdiff_t>(0, n, n, w, u, y, d, trial);
                              });
    if (step == 0) return {iteration, converged};
    for (std::ptrdiff_t e = 0; e < m; ++e) u[e] = clip(u[e] + step * d[e], w[e]);
  }
}

}  // namespace jaxtv
