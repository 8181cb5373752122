#include "data_weight.hpp"

#include <limits>

#include "jaxtv/certificate.hpp"
#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/overflow.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {
namespace {

// One signal in double, in the scratch of a thread.
struct Signal {
  std::int64_t n;
  double *x, *mass, *w, *y;
  signed char* sign;
  double magnitude = 0, low = 0, high = 0, total = 0;  // of the samples; of mass
  bool valid = true;                                   // finite, no negative weight, and some mass

  Signal(std::int64_t n, void* scratch) : n(n) {
    Arena arena(scratch);
    for (double** v : {&x, &mass, &w, &y}) *v = arena.take<double>(n);
    sign = arena.take<signed char>(n);
  }
  static std::size_t bytes(std::int64_t n) {
    return 4 * Arena::bytes<double>(n) + Arena::bytes<signed char>(n);
  }

  template <class T>
  void load(const DataWeightProx<T>& op, std::int64_t signal) {
    const std::int64_t length = op.w.length(n), stride = op.shape.inner;
    const std::int64_t first = op.shape.offset(signal, n);
    const T* weights = length ? op.w.data + op.shape.offset(signal, length) : op.w.data;
    total = 0;
    valid = op.w.per_edge || weights[0] >= 0;
    for (std::int64_t k = 0; k < n; ++k) {
      x[k] = double(op.x[first + k * stride]);
      mass[k] = double(op.mass[first + k * stride]);
      valid &= is_finite(x[k]) && is_finite(mass[k]) && mass[k] >= 0;
      total += mass[k];
      low = k ? min_of(low, x[k]) : x[k];
      high = k ? max_of(high, x[k]) : x[k];
      if (k + 1 == n) break;
      w[k] = double(weights[op.w.per_edge ? k * stride : 0]);
      valid &= w[k] >= 0;
    }
    valid &= total > 0;
    magnitude = max_of(-low, high);
  }

  void scale(double factor) {
    for (double* v : {&magnitude, &low, &high}) *v *= factor;
    for (std::int64_t k = 0; k < n; ++k) {
      x[k] *= factor;
      if (k + 1 < n) w[k] *= factor;
    }
  }

  // The cuts, and the values in y. The taut string loses digits next to a mass that is far smaller
  // than others. The decomposition does not, and takes what is not certified.
  void solve() {
    if (taut_string()) {
      values();
      if (certify(n, x, mass, w, sign, y)) return;
    }
    for (std::int64_t e = 0; e + 1 < n; ++e) sign[e] = 0;
    refine(std::int64_t(0), n, n, x, mass, w, sign);
    values();
  }

  void values() {
    cut_weightless(n, w, sign);
    const auto write = [&](std::int64_t a, std::int64_t b, double value) {
      for (std::int64_t k = a; k <= b; ++k) y[k] = value;
    };
    do for_segments<double>(n, x, mass, w, sign, write);
    while (join_ties(n, x, w, sign, y, magnitude));
  }

  // jaxtv/taut_string.hpp with sums of mass for lengths; false where it reads too much again.
  bool taut_string() {
    const double cap = 2 * total * (high - low);
    const auto bound = [&](std::int64_t e) { return e + 1 < n ? min_of(w[e], cap) : 0.0; };
    std::int64_t k, start = 0, lowest, highest, rereads = 0;
    double vmin, vmax, umin, umax, length;
    const auto begin = [&](double dual) {
      for (k = start; k + 1 < n && mass[k] == 0;) ++k;
      lowest = highest = k;
      length = mass[k];
      umin = bound(k);
      umax = -umin;
      vmin = x[k] + (dual - umin) / length;
      vmax = x[k] + (dual + umin) / length;
    };
    begin(0);
    while (k + 1 < n) {
      const double next = x[k + 1], m = mass[k + 1], wn = bound(k + 1);
      double a = umin + m * (next - vmin), b = umax + m * (next - vmax);
      if (a < -wn || b > wn) {  // the segment [start, e] ends with a jump down (a) or up (b)
        const bool down = a < -wn;
        const std::int64_t e = down ? lowest : highest;
        for (std::int64_t i = start; i < e; ++i) sign[i] = 0;
        sign[e] = down ? -1 : 1;
        rereads += k - e;
        start = e + 1;
        if (rereads > 4096 + n / 16 + 2 * start) return false;
        begin(down ? bound(e) : -bound(e));
        continue;
      }
      ++k;
      length += m;
      if (a >= wn) {
        vmin += (a - wn) / length;
        lowest = k;
        a = wn;
      }
      if (b <= -wn) {
        vmax += (b + wn) / length;
        highest = k;
        b = -wn;
      }
      umin = a;
      umax = b;
    }
    for (std::int64_t i = start; i + 1 < n; ++i) sign[i] = 0;
    return true;
  }

  // At a sample between weights 0, y is the sample itself, not a sum that rounds.
  template <class T>
  void store(const DataWeightProx<T>& op, std::int64_t signal, double factor) const {
    const std::int64_t stride = op.shape.inner, first = op.shape.offset(signal, n);
    for_segments<T>(n, x, mass, w, sign, [&](std::int64_t a, std::int64_t b, T value) {
      const bool alone = a == b && (a == 0 || w[a - 1] == 0) && (b + 1 == n || w[b] == 0);
      if (alone) value = op.x[first + a * stride];
      if (!alone) value *= T(1 / factor);
      for (std::int64_t k = a; k <= b; ++k) op.y[first + k * stride] = value;
    });
  }
};

template <class T>
void prox_signal(const DataWeightProx<T>& op, std::int64_t signal) {
  const std::int64_t n = op.shape.n;
  Signal s(n, thread_scratch(Signal::bytes(n)));
  s.load(op, signal);
  if (!s.valid) {
    T* y = op.y + op.shape.offset(signal, n);
    for (std::int64_t k = 0; k < n; ++k)
      y[k * op.shape.inner] = std::numeric_limits<T>::quiet_NaN();
    return;
  }
  const double factor = s.magnitude < kSolverLimit ? 1 : kSolverScale;
  if (factor != 1) s.scale(factor);
  s.solve();
  s.store(op, signal, factor);
}

}  // namespace

template <class T>
void prox1d_data_weight(const Pool& pool, const DataWeightProx<T>& op) {
  if (op.shape.size() == 0) return;
  const std::int64_t signals = op.shape.signals();
  const Pool part = part_of(pool, op.shape.size(), kSamplesPerThread / 8);
  const std::int64_t chunk = (signals + 8 * part.threads - 1) / (8 * part.threads);
  parallel_for(part, (signals + chunk - 1) / chunk, [=, &op](std::int64_t i) {
    for (std::int64_t s = i * chunk; s < signals && s < (i + 1) * chunk; ++s) prox_signal(op, s);
  });
}

template void prox1d_data_weight(const Pool&, const DataWeightProx<float>&);
template void prox1d_data_weight(const Pool&, const DataWeightProx<double>&);

}  // namespace jaxtv::cpu
