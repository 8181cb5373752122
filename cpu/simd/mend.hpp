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
  T least_sure_jump;

  // Takes the cuts of the samples [begin, end), between two cuts that stay: writes the duals, in
  // units of `weight`, and the values. Returns whether they are surely right; the jumps at the ends
  // are left to surely_jumps.
  bool take_cuts(const T* cuts, std::int64_t begin, std::int64_t end, T weight) {
    bool right = true;
    double left = begin > 0 ? dual(begin - 1) : 0;
    for (std::int64_t k = begin, first = begin; k < end; ++k) {
      if (k + 1 < end) {
        const T cut = cuts[(k - begin) * stride] * weight;
        duals[k * stride] = cut;
        if (cut != cut) continue;
      }
      const double after = k + 1 < n ? dual(k) : 0;
      right &= take_segment(first, k + 1, left, after, double(weight));
      right &= first == begin || surely_jumps(first - 1);
      first = k + 1;
      left = after;
    }
    return right;
  }

  // Whether the values at a cut tell that it is a jump of its sign.
  bool surely_jumps(std::int64_t e) const {
    const T jump = y[(e + 1) * stride] - y[e * stride];
    return (duals[e * stride] < 0 ? -jump : jump) >= least_sure_jump;
  }

  // Certifies the segments of the samples [begin, end), and the jumps at their ends.
  bool certify_window(std::int64_t begin, std::int64_t end) {
    return certify(begin > 0 ? begin - 1 : 0, end < n ? end : n - 1) >= 0;
  }

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
    double left = 0, right = 0;  // duals at its ends
    double value = 0;
    T rounded = 0;         // the value as segment_values computes it, to the bit
    double magnitude = 0;  // what round-off is relative to: max |sample|, |value|
  };

  static bool is_finite(double v) { return v - v == 0; }
  static double abs(double v) { return v < 0 ? -v : v; }
  static double larger(double a, double b) { return a < b ? b : a; }
  double sample(std::int64_t k) const { return double(x[k * stride]); }
  double dual(std::int64_t k) const { return double(duals[k * stride]); }
  double weight(std::int64_t e) const { return double(w[e * w_stride]); }
  bool is_cut(std::int64_t e) const { return duals[e * stride] == duals[e * stride]; }

  Segment segment_of(std::int64_t k) const {
    while (k > 0 && !is_cut(k - 1)) --k;
    return segment_from(k);
  }
  // The segment that begins at k.
  Segment segment_from(std::int64_t k) const {
    Segment s{.begin = k, .end = k + 1};
    while (s.end < n && !is_cut(s.end - 1)) ++s.end;
    if (k > 0) s.left = dual(k - 1);
    if (s.end < n) s.right = dual(s.end - 1);
    const double ref = sample(s.end - 1);
    double sum = 0;
    for (std::int64_t i = s.end - 1; i >= k; --i) {
      const double here = sample(i);
      sum += here - ref;
      s.magnitude = larger(s.magnitude, abs(here));
    }
    const double rest = sum + (s.right - s.left), length = double(s.end - k);
    s.value = ref + rest / length;
    s.rounded = T(ref) + T(rest) / T(length);
    s.magnitude = larger(s.magnitude, abs(s.value));
    return s;
  }

  // The edge inside of a segment whose dual is farthest beyond its weight, and the dual that it
  // would have as a cut; no edge is -1.
  struct Edge {
    std::int64_t at;
    double dual;
  };
  Edge worst_edge(const Segment& s) const {
    Edge edge{-1, 0};
    double u = s.left;
    if (w_stride == 0) {  // most segments are right: a first look, without the slack that grows
      double most = 0;
      for (std::int64_t e = s.begin; e + 1 < s.end; ++e) {
        u += s.value - sample(e);
        most = larger(most, abs(u));
      }
      if (most <= weight(0) + 2 * kSlack * (s.magnitude + weight(0))) return edge;
      u = s.left;
    }
    double length = 1, worst = 0;
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
    return (a.right < 0 ? -jump : jump) > kSlack * larger(a.magnitude, b.magnitude);
  }

  // Writes the value of a segment. Returns whether its duals are surely right.
  bool take_segment(std::int64_t begin, std::int64_t end, double left, double right,
                    double weight) {
    const double ref = sample(end - 1);
    double sum = 0;
    for (std::int64_t i = end - 2; i >= begin; --i) sum += sample(i) - ref;
    const double rest = sum + (right - left), length = double(end - begin);
    const double value = ref + rest / length;
    const T rounded = T(ref) + T(rest) / T(length);
    double most = 0, u = left;
    for (std::int64_t i = begin; i + 1 < end; ++i) {
      u += value - sample(i);
      most = larger(most, abs(u));
      y[i * stride] = rounded;
    }
    y[(end - 1) * stride] = rounded;
    return most <= weight && is_finite(value);
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
      const Segment s = segment_from(first);
      write_value(s);
      first = s.end;
    }
    return last;
  }

  void write_value(const Segment& s) {
    for (std::int64_t i = s.begin; i < s.end; ++i) y[i * stride] = s.rounded;
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
