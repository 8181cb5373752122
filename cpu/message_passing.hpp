// Message passing for one signal (Johnson 2013; Kolmogorov, Pock & Rolínek 2016), O(n) whatever the
// signal: where the taut string reads most samples many times, on long ramps, it reads them once.
// The message to the right is the optimal cost of all samples so far as a function of the value of
// the last one. Its derivative is piecewise linear and increasing, and what it tells the next
// sample is clamped to ±w of the edge between: where it is clamped are two new knots.
// Where no knot is left the line is known, without one whose round-off may be that of an outlier.
#pragma once

#include <cstddef>
#include <vector>

#include "jaxtv/common.hpp"

namespace jaxtv::cpu {

// Where the slope of the derivative changes, and by how much (a whole number).
struct Knot {
  double at, change;
};

// The knots from left to right, in a ring of 2^k elements that grows and stays.
class Knots {
 public:
  bool empty() const { return size_ == 0; }
  void clear() { size_ = 0; }
  const Knot& front() const { return ring_[first_]; }
  const Knot& back() const { return ring_[(first_ + size_ - 1) & mask()]; }
  void pop_front() {
    first_ = (first_ + 1) & mask();
    --size_;
  }
  void pop_back() { --size_; }
  void push(const Knot& front, const Knot& back) {
    if (size_ + 2 > ring_.size()) grow();
    first_ = (first_ - 1) & mask();
    ring_[first_] = front;
    ring_[(first_ + size_ + 1) & mask()] = back;
    size_ += 2;
  }

 private:
  std::vector<Knot> ring_;
  std::size_t first_ = 0, size_ = 0;

  std::size_t mask() const { return ring_.size() - 1; }
  void grow() {
    std::vector<Knot> larger(max_of(std::size_t{1024}, 2 * ring_.size()));
    for (std::size_t i = 0; i < size_; ++i) larger[i] = ring_[(first_ + i) & mask()];
    ring_.swap(larger);
    first_ = 0;
  }
};

// Finds all cuts. `low` and `high` (n) are working memory; `cap` bounds infinite weights as in
// taut_string.hpp.
inline void message_passing(std::ptrdiff_t n, const double* x, const double* w, signed char* sign,
                            double cap, double* low, double* high, Knots& knots) {
  knots.clear();
  double before = 0;  // the bound of the edge on the left
  for (std::ptrdiff_t k = 0; k < n; ++k) {
    const double bound = k + 1 < n ? min_of(w[k], cap) : 0;
    // Left of all knots the derivative is y - x - before: where it is -bound.
    double slope = 1, value, at;
    low[k] = x[k] + (before - bound);
    if (!knots.empty() && (value = (knots.front().at - x[k]) - before) < -bound) {
      for (double next = value; next < -bound;) {
        value = next;
        at = knots.front().at;
        slope += knots.front().change;
        knots.pop_front();
        if (knots.empty()) break;
        next += slope * (knots.front().at - at);
      }
      low[k] = knots.empty() ? x[k] - (before + bound) : at + (-bound - value) / slope;
    }
    const Knot left{low[k], slope};
    // Right of all knots it is y - x + before: where it is +bound.
    slope = 1;
    high[k] = x[k] + (bound - before);
    if (!knots.empty() && (value = (knots.back().at - x[k]) + before) > bound) {
      for (double next = value; next > bound;) {
        value = next;
        at = knots.back().at;
        slope -= knots.back().change;
        knots.pop_back();
        if (knots.empty()) break;
        next -= slope * (at - knots.back().at);
      }
      high[k] = knots.empty() ? low[k] + 2 * bound / left.change : at - (value - bound) / slope;
    }
    high[k] = max_of(low[k], high[k]);
    knots.push(left, {high[k], -slope});
    before = bound;
  }
  double y = low[n - 1];
  for (std::ptrdiff_t k = n - 2; k >= 0; --k) {
    sign[k] = y > high[k] ? 1 : (y < low[k] ? -1 : 0);
    y = max_of(low[k], min_of(high[k], y));
  }
}

}  // namespace jaxtv::cpu
