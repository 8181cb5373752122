// The plain C loop that jaxtv has to beat: one signal after the other through a scalar direct
// solver, on a number of threads.
#include <algorithm>
#include <cstdint>

#include "over_rows.hpp"

namespace {

// Linearised taut string (Condat 2013). vmin and vmax bound the value of the segment that begins
// at k0, umin and umax are the duals behind sample k where the segment has these values.
template <class T>
void taut_string(const T* x, T lam, T* y, std::int64_t n) {
  std::int64_t k = 0, k0 = 0, kmin = 0, kmax = 0;
  const auto width = [=](std::int64_t edge) { return edge < n - 1 ? lam : T(0); };
  T umin = width(0), umax = -umin, vmin = x[0] - umin, vmax = x[0] + umin;
  while (k < n - 1) {
    const T w = width(k + 1), low = umin + (x[k + 1] - vmin), high = umax + (x[k + 1] - vmax);
    const bool down = low < -w;
    if (down || high > w) {
      const std::int64_t end = down ? kmin : kmax;
      std::fill(y + k0, y + end + 1, down ? vmin : vmax);
      k = k0 = kmin = kmax = end + 1;
      const T start = x[k] + (down ? lam : -lam);
      umin = width(k), umax = -umin, vmin = start - umin, vmax = start + umin;
      continue;
    }
    ++k;
    umin = low, umax = high;
    if (umin >= w) {
      vmin += (umin - w) / T(k - k0 + 1);
      umin = w, kmin = k;
    }
    if (umax <= -w) {
      vmax += (umax + w) / T(k - k0 + 1);
      umax = -w, kmax = k;
    }
  }
  std::fill(y + k0, y + n, vmin);
}

}  // namespace

// x and y: (rows, n), contiguous.
extern "C" {
void loop_f32(const float* x, double lam, float* y, std::int64_t rows, std::int64_t n,
              int threads) {
  over_rows(rows, threads,
            [=](std::int64_t r) { taut_string(x + r * n, float(lam), y + r * n, n); });
}
void loop_f64(const double* x, double lam, double* y, std::int64_t rows, std::int64_t n,
              int threads) {
  over_rows(rows, threads, [=](std::int64_t r) { taut_string(x + r * n, lam, y + r * n, n); });
}
}
