#include "serial.hpp"

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/edge_code.hpp"
#include "jaxtv/gap.hpp"
#include "jaxtv/newton.hpp"
#include "jaxtv/overflow.hpp"
#include "jaxtv/taut_string.hpp"
#include "message_passing.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {
namespace {

// Buffers of one thread for one signal; they grow and stay.
struct Workspace {
  std::vector<double> x, w, y, scratch;
  std::vector<signed char> sign;
  Knots knots;
  void reserve(std::int64_t n) {
    if (std::int64_t(sign.size()) >= n) return;
    for (auto* v : {&x, &w, &y}) v->resize(n);
    sign.resize(n);  // last: where memory ran out before, it is not there
  }
  double* scratch_of(std::int64_t n) {
    if (std::int64_t(scratch.size()) < n) scratch.resize(n);
    return scratch.data();
  }
};
// A thread's variable whose construction throws counts as constructed.
static_assert(std::is_nothrow_default_constructible_v<Workspace>);
thread_local Workspace workspace;  // in a loop by pointers only: each access looks for the thread's

// Samples [first, last) of the n in workspace, with their n - 1 edges. A sample before `first` or
// from `last` on is there for the cut of known sign that it makes. False `valid` where there is no
// solution: not finite, bad weight.
struct Signal {
  std::int64_t n, first, last;
  double magnitude = 0, range = 0;
  double factor = 1;  // samples and weights in workspace are the signal's times this
  bool valid = true, weightless = false;  // weightless: some edge has weight 0
};

Signal inspect(std::int64_t n, std::int64_t first, std::int64_t last) {
  Signal s{n, first, last};
  const double *x = workspace.x.data(), *w = workspace.w.data();
  double low = x[first], high = low;
  for (std::int64_t k = first; k < last; ++k) {
    const double v = x[k];
    s.valid &= is_finite(v);
    low = min_of(low, v);
    high = max_of(high, v);
  }
  for (std::int64_t e = 0; e + 1 < n; ++e) {
    s.valid &= w[e] >= 0;
    s.weightless |= w[e] == 0;
  }
  s.magnitude = max_of(-low, high);
  s.range = high - low;
  return s;
}

// Calls f(cap) while the known duals at the two ends of [first, s.last) are added to its end
// samples, which makes it a whole signal; no dual in it exceeds `cap`.
template <class F>
void with_end_duals(const Signal& s, std::int64_t first, F f) {
  double *x = workspace.x.data(), *w = workspace.w.data();
  const signed char* sign = workspace.sign.data();
  double &head = x[first], &tail = x[s.last - 1];
  const double head_sample = head, tail_sample = tail;
  const double left = first > 0 ? double(sign[first - 1]) * w[first - 1] : 0;
  const double right = s.last < s.n ? double(sign[s.last - 1]) * w[s.last - 1] : 0;
  head -= left;
  tail += right;
  f(double(s.last - first) * (s.range + abs_of(left) + abs_of(right)));
  tail = tail_sample;
  head = head_sample;
}

// The cuts, in workspace.sign: by the taut string, and where that takes too long by messages. The
// decomposition makes sure of these, and finds all by itself without them.
void find_cuts(const Signal& s, bool decompose) {
  double *x = workspace.x.data(), *w = workspace.w.data();
  signed char* sign = workspace.sign.data();
  std::int64_t from = s.first;
  if (decompose) {
    for (std::int64_t e = from; e + 1 < s.last; ++e) sign[e] = 0;
  } else {
    // Messages take about as long as the taut string for three samples.
    const Patience<std::int64_t> patience{.rereads = 4096 + s.n / 16, .rereads_per_sample = 2};
    with_end_duals(s, from, [&](double cap) {
      from += taut_string(s.last - from, x + from, w + from, sign + from, cap, patience);
    });
    if (from == s.last) return;
    with_end_duals(s, from, [&](double cap) {
      message_passing(s.last - from, x + from, w + from, sign + from, cap, workspace.y.data(),
                      workspace.scratch_of(s.last - from), workspace.knots);
    });
  }
  refine(from, s.last, s.n, x, w, sign);
}

NewtonReport solve(const Signal& s, const Solver& solver) {
  const double *x = workspace.x.data(), *w = workspace.w.data();
  double* y = workspace.y.data();
  signed char* sign = workspace.sign.data();
  if (solver.method == Method::kProjectedNewton)
    return projected_newton(s.n, x, w, sign, y, workspace.scratch_of(kNewtonScratch * s.n),
                            s.magnitude,
                            {solver.tol, solver.max_iterations, LineSearch(solver.line_search)});
  find_cuts(s, solver.method == Method::kDecomposition);
  if (s.weightless) cut_weightless(s.n, w, sign);
  do values_from_cuts(s.n, x, w, sign, y);
  while (join_ties(s.last - s.first, x + s.first, w + s.first, sign + s.first, y + s.first,
                   s.magnitude));
  return {1, true};
}

// Solves the signal, in its size or, beyond kSolverLimit, in a smaller one.
NewtonReport solve_scaled(Signal& s, const Solver& solver) {
  if (s.magnitude < kSolverLimit) return solve(s, solver);
  double *x = workspace.x.data(), *w = workspace.w.data();
  for (std::int64_t k = 0; k < s.n; ++k) {
    x[k] *= kSolverScale;
    if (k + 1 < s.n) w[k] *= kSolverScale;
  }
  s = inspect(s.n, s.first, s.last);
  s.factor = kSolverScale;
  return solve(s, solver);
}

// The solution in the type of the data, from the cuts in workspace, to the bit as SIMD gives it. At
// a sample between weights 0 it is sample(k) itself, not a sum that rounds.
template <class T, class Y, class Sample>
void write_values(const Signal& s, Y y, Sample sample) {
  const double *x = workspace.x.data(), *w = workspace.w.data();
  const signed char* sign = workspace.sign.data();
  for_segments<T>(s.n, x, w, sign, [&](std::int64_t a, std::int64_t b, T value) {
    if (a < s.first || b >= s.last) return;
    value *= T(1 / s.factor);
    for (std::int64_t k = a; k <= b; ++k) {
      const double left = k > 0 ? w[k - 1] : 0, right = k + 1 < s.n ? w[k] : 0;
      y[k] = left == 0 && right == 0 ? sample(k) : value;
    }
  });
}

template <class T, class Y>
void fill_nan(std::int64_t n, Y y) {
  for (std::int64_t k = 0; k < n; ++k) y[k] = std::numeric_limits<T>::quiet_NaN();
}

template <class T>
struct PassSignal {
  const Pass<T>& pass;
  std::int64_t n, base, stride, w_base, w_stride;
  PassSignal(const Pass<T>& pass, std::int64_t signal)
      : pass(pass),
        n(pass.shape.n),
        base(pass.shape.offset(signal, n)),
        stride(pass.shape.inner),
        // One sample has no edge, and their array perhaps no address.
        w_base(pass.w.length(n) ? pass.shape.offset(signal, pass.w.length(n)) : 0),
        w_stride(pass.w.per_edge ? stride : 0) {}
  T input(std::int64_t k) const {
    T a = pass.x[base + k * stride];
    for (int j = 0; j < pass.num_minus; ++j) a -= pass.minus[j][base + k * stride];
    return a;
  }
  T weight(std::int64_t e) const { return pass.w.data[w_base + e * w_stride]; }
};

}  // namespace

template <class T>
void solve_strided(const StridedSignal<T>& p) {
  const std::int64_t n = p.n;
  workspace.reserve(n);
  double *x = workspace.x.data(), *w = workspace.w.data();
  for (std::int64_t k = 0; k < n; ++k) {
    x[k] = double(p.x[k * p.stride]);
    if (k + 1 < n) w[k] = double(p.w[(p.per_edge ? k : 0) * p.stride]);
  }
  const Strided<T> y{p.y, p.stride};
  Signal s = inspect(n, 0, n);
  const bool bad_weight = n == 1 && !p.per_edge && !(p.w[0] >= 0);
  if (!s.valid || bad_weight) return fill_nan<T>(n, y);
  solve_scaled(s, {.method = Method::kTautString});
  write_values<T>(s, y, [&](std::int64_t k) { return p.x[k * p.stride]; });
}

template <class T>
void prox_serial(const Pass<T>& pass, const Solver& solver, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = pass.shape.n;
  workspace.reserve(n);
  double *x = workspace.x.data(), *w = workspace.w.data();
  T* z = static_cast<T*>(thread_scratch(n * sizeof(T)));
  for (std::int64_t signal = begin; signal < end; ++signal) {
    const PassSignal<T> at(pass, signal);
    for (std::int64_t k = 0; k < n; ++k) x[k] = double(at.input(k));
    for (std::int64_t e = 0; e + 1 < n; ++e) w[e] = double(at.weight(e));
    Signal s = inspect(n, 0, n);
    NewtonReport report{0, false};
    const bool bad_weight = n == 1 && !pass.w.per_edge && !(at.weight(0) >= 0);
    if (!s.valid || bad_weight) {
      fill_nan<T>(n, z);
    } else {
      report = solve_scaled(s, solver);
      write_values<T>(s, z, [&](std::int64_t k) { return at.input(k); });
    }
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t i = at.base + k * at.stride;
      const T input = at.input(k);  // before y, which may be the same memory as a state
      if (pass.residual) pass.residual[i] = input - z[k];
      if (pass.y) pass.y[i] = z[k];
      if (pass.codes) {
        const EdgeCode code =
            k + 1 < n ? edge_code(z[k], z[k + 1], [&] { return at.weight(k) > 0; }) : kSeparate;
        pass.codes[i] |= std::uint8_t(code << pass.code_shift);
      }
    }
    if (pass.iterations) {
      pass.iterations[signal] = std::int32_t(report.iterations);
      pass.converged[signal] = report.converged;
    }
  }
}

template <class T>
bool prox_piece(const Pass<T>& pass, std::int64_t signal, const Piece& piece, T* z) {
  const PassSignal<T> at(pass, signal);
  const std::int64_t begin = piece.begin - (piece.sign_before != 0),
                     end = piece.end + (piece.sign_after != 0);
  const std::int64_t n = end - begin;
  workspace.reserve(n);
  double *x = workspace.x.data(), *w = workspace.w.data();
  for (std::int64_t k = 0; k < n; ++k) x[k] = double(at.input(begin + k));
  for (std::int64_t e = 0; e + 1 < n; ++e) w[e] = double(at.weight(begin + e));
  if (piece.sign_before) workspace.sign[0] = piece.sign_before;
  if (piece.sign_after) workspace.sign[n - 2] = piece.sign_after;
  Signal s = inspect(n, piece.begin - begin, piece.end - begin);
  if (!s.valid) return false;
  solve_scaled(s, {.method = Method::kDirect});
  write_values<T>(s, Strided<T>{z + at.base + begin * at.stride, at.stride},
                  [&](std::int64_t k) { return at.input(begin + k); });
  return true;
}

template <class T>
void report_gap(const Pass<T>& pass, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = pass.shape.n;
  for (std::int64_t signal = begin; signal < end; ++signal) {
    const PassSignal<T> at(pass, signal);
    const Strided<const T> x{pass.x + at.base, at.stride}, y{pass.y + at.base, at.stride};
    const Strided<const T> w{pass.w.data + at.w_base, at.w_stride};
    double gap = duality_gap(n, x, w, y);
    if (!is_finite(gap))  // else inf - inf
      gap = duality_gap(n, Scaled{x, kSolverScale}, Scaled{w, kSolverScale},
                        Scaled{y, kSolverScale}) /
            kSolverScale / kSolverScale;
    pass.gap[signal] = T(gap);
  }
}

#define JAXTV_INSTANTIATE(T)                                                            \
  template void solve_strided(const StridedSignal<T>&);                                 \
  template void prox_serial(const Pass<T>&, const Solver&, std::int64_t, std::int64_t); \
  template bool prox_piece(const Pass<T>&, std::int64_t, const Piece&, T*);             \
  template void report_gap(const Pass<T>&, std::int64_t, std::int64_t);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
