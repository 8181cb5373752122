// One signal of a bundle in double: certifies the segments that spread_values left undecided, and
// mends the cuts that do not pass. Samples and weights that are multiples of one number (8 bit
// images) have many ties, which float cannot decide.
#pragma once

#include <cstdint>

#include "simd/solution.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

template <class T>
class DoubleSignal {
 public:
  std::int64_t n, stride, w_stride;  // w_stride 0: one weight
  const T *x, *w;
  T *duals, *y;

  // Certifies the segments with an edge in rows [first, last] or at their ends, and the jumps
  // between them; mends what fails. Returns the row up to which all is then right, or -1 where the
  // signal has to be solved otherwise.
  std::int64_t certify(std::int64_t first, std::int64_t last) {
    Segment before = segment_of(first);
    for (bool has_before = false;; has_before = true) {
      const Segment s = has_before ? segment_of(before.end) : before;
      if (!is_finite(s.value)) return -1;
      if (worst_edge(s).at >= 0 || (has_before && !jumps(before, s))) {
        const std::int64_t end = mend(s.begin);
        if (end < 0 || end > last) return end;
        before = segment_of(end - 1);
      } else {
        before = s;
      }
      if (before.end > last || before.end == n) return before.end;
    }
  }

 private:
  static constexpr double kSlack = 8 * kUnit<double>;
  struct Segment {
    std::int64_t begin, end;
    double left, right;       // duals at its ends
    double ref, rest, value;  // value = ref + rest / (end - begin)
    double magnitude;         // what round-off is relative to: max |sample|, |value|
  };

  static bool is_finite(double v) { return v - v == 0; }
  static double abs(double v) { return v < 0 ? -v : v; }
  double sample(std::int64_t k) const { return double(x[k * stride]); }
  double dual(std::int64_t k) const { return double(duals[k * stride]); }
  double weight(std::int64_t e) const { return double(w[e * w_stride]); }
  bool is_cut(std::int64_t e) const { return duals[e * stride] == duals[e * stride]; }

  Segment segment_of(std::int64_t k) const {
    Segment s{k, k + 1, 0, 0, 0, 0, 0, 0};
    while (s.begin > 0 && !is_cut(s.begin - 1)) --s.begin;
    while (s.end < n && !is_cut(s.end - 1)) ++s.end;
    if (s.begin > 0) s.left = dual(s.begin - 1);
    if (s.end < n) s.right = dual(s.end - 1);
    s.ref = sample(s.end - 1);
    for (std::int64_t i = s.end - 1; i >= s.begin; --i) {
      s.rest += sample(i) - s.ref;
      if (abs(sample(i)) > s.magnitude) s.magnitude = abs(sample(i));
    }
    s.rest += s.right - s.left;
    s.value = s.ref + s.rest / double(s.end - s.begin);
    if (abs(s.value) > s.magnitude) s.magnitude = abs(s.value);
    return s;
  }

  // The edge inside of a segment whose dual is farthest beyond its weight, and the dual that it
  // would have as a cut; no edge is -1.
  struct Edge {
    std::int64_t at;
    double dual;
  };
  Edge worst_edge(const Segment& s) const {
    double u = s.left, length = 1, worst = 0;
    Edge edge{-1, 0};
    for (std::int64_t e = s.begin; e + 1 < s.end; ++e) {
      u += s.value - sample(e);
      length += 1;
      const double beyond = abs(u) - weight(e) - kSlack * length * (s.magnitude + weight(e));
      if (!(beyond > worst)) continue;
      worst = beyond;
      edge = {e, u < 0 ? -weight(e) : weight(e)};
    }
    return edge;
  }

  // Whether the cut between two segments is a jump of its sign.
  bool jumps(const Segment& a, const Segment& b) const {
    if (!(weight(a.end - 1) > 0)) return true;
    const double jump = b.value - a.value;
    const double magnitude = a.magnitude > b.magnitude ? a.magnitude : b.magnitude;
    return (a.right < 0 ? -jump : jump) > kSlack * magnitude;
  }

  // Cuts the edges whose duals leave their bounds and joins cuts without a jump of their sign, from
  // the segment of sample k on to all that this touches; then writes the values. Returns the row
  // after all that, or -1 after too many steps.
  std::int64_t mend(std::int64_t k) {
    constexpr int kMostSteps = 64;
    std::int64_t pending[kMostSteps + 2] = {k}, first = n, last = 0;
    for (int size = 1, steps = 0; size > 0; ++steps) {
      if (steps == kMostSteps || size > kMostSteps) return -1;
      const Segment s = segment_of(pending[--size]);
      if (s.begin < first) first = s.begin;
      if (s.end > last) last = s.end;
      if (!is_finite(s.value)) return -1;
      if (const Edge worst = worst_edge(s); worst.at >= 0) {
        duals[worst.at * stride] = T(worst.dual);
        pending[size++] = worst.at;
        pending[size++] = worst.at + 1;
      } else if (s.begin > 0 && !jumps(segment_of(s.begin - 1), s)) {
        duals[(s.begin - 1) * stride] = T(__builtin_nanf(""));
        pending[size++] = s.begin;
      } else if (s.end < n && !jumps(s, segment_of(s.end))) {
        duals[(s.end - 1) * stride] = T(__builtin_nanf(""));
        pending[size++] = s.begin;
      }
    }
    while (first < last) {
      const Segment s = segment_of(first);
      const T value = T(s.ref) + T(s.rest) / T(s.end - s.begin);
      for (std::int64_t i = s.begin; i < s.end; ++i) y[i * stride] = value;
      first = s.end;
    }
    return last;
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
