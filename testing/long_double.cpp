// The exact 1D prox by message passing over the knots of the derivative of the value function
// (Johnson 2013), in long double: linear in n whatever the data.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "over_rows.hpp"

namespace {

using Real = long double;
struct Line {
  Real slope, offset;
};
struct Knot {
  Real position;
  Line change;
};

// w[e] is the weight between the samples e and e + 1.
void solve(const double* x, const double* w, double* y, std::int64_t n) {
  std::vector<Knot> knots(2 * n);
  std::vector<Real> low(n), high(n);
  std::int64_t first = n, last = n;  // the knots in use: [first, last)
  Line left{1, -Real(x[0])}, right = left;
  for (std::int64_t i = 0;; ++i) {
    const Real limit = i < n - 1 ? w[i] : 0;
    for (; first < last && left.slope * knots[first].position + left.offset < -limit; ++first) {
      left.slope += knots[first].change.slope;
      left.offset += knots[first].change.offset;
    }
    low[i] = (-limit - left.offset) / left.slope;
    if (i == n - 1) break;
    for (; first < last && right.slope * knots[last - 1].position + right.offset > limit; --last) {
      right.slope -= knots[last - 1].change.slope;
      right.offset -= knots[last - 1].change.offset;
    }
    high[i] = (limit - right.offset) / right.slope;
    knots[--first] = {low[i], {left.slope, left.offset + limit}};
    knots[last++] = {high[i], {-right.slope, limit - right.offset}};
    left = {1, -limit - Real(x[i + 1])};
    right = {1, limit - Real(x[i + 1])};
  }
  Real value = low[n - 1];
  for (std::int64_t i = n - 1; i >= 0; --i) {
    if (i < n - 1) value = std::clamp(value, low[i], high[i]);
    y[i] = double(value);
  }
}

}  // namespace

// x and y: (rows, n), w: (rows, n - 1), finite; all contiguous.
extern "C" void message_passing(const double* x, const double* w, double* y, std::int64_t rows,
                                std::int64_t n, int threads) {
  over_rows(rows, threads,
            [=](std::int64_t r) { solve(x + r * n, w + r * (n - 1), y + r * n, n); });
}
