// The taut string of include/jaxtv/taut_string.hpp on several windows at once, a window per lane,
// in double and with the same operations. One string is bound by the latency of its updates, which
// the strings of the other lanes fill. Compiled once per instruction set, like lanes.cpp.
#include <cstring>

#include "sweep.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kBytes = JAXTV_VECTOR_BYTES;
constexpr int kVector = kBytes / 8;
constexpr int kVectors = 2;
constexpr int kStrings = kVectors * kVector;
typedef double Double __attribute__((vector_size(kBytes)));
typedef std::int64_t Mask __attribute__((vector_size(kBytes)));

inline bool any(Mask m) {
  std::int64_t bits[kVector], all = 0;
  std::memcpy(bits, &m, kBytes);
  for (int i = 0; i < kVector; ++i) all |= bits[i];
  return all != 0;
}

// Time t counts trips: lane l is at sample t - delay[l], which grows where a segment ends and the
// lane steps back to its end. start, low and high are times as well.
template <class T>
struct Lanes {
  std::int64_t n;
  const T* from[kStrings];  // the window
  const T* at[kStrings];    // at[t] is the present sample
  signed char* sign[kStrings];
  std::int64_t delay[kStrings] = {}, *solved;
  bool done[kStrings] = {};
  Double bound[kVectors], vmin[kVectors], vmax[kVectors], umin[kVectors], umax[kVectors];
  Double start[kVectors], low[kVectors], high[kVectors];

  // Lane l begins a segment at sample k, at time t; carry: the dual at its left end.
  void begin(int l, std::int64_t k, std::int64_t t, double carry) {
    const int g = l / kVector, i = l % kVector;
    const double first = double(from[l][k]) + carry, w = bound[g][i];
    delay[l] = t - k;
    at[l] = from[l] - delay[l];
    vmin[g][i] = first - w;
    vmax[g][i] = first + w;
    umin[g][i] = w;
    umax[g][i] = -w;
    start[g][i] = low[g][i] = high[g][i] = double(t);
  }

  // Ends the lanes that are before the last sample of their window. They go on, at the first one
  // and without an effect, until all have ended: false.
  bool retire(std::int64_t t) {
    bool alive = false;
    for (int l = 0; l < kStrings; ++l) {
      if (t - delay[l] >= n - 2) {
        if (!done[l]) solved[l] = std::int64_t(start[l / kVector][l % kVector]) - delay[l];
        done[l] = true;
        begin(l, 0, t, 0);
      }
      alive |= !done[l];
    }
    return alive;
  }

  // The time at which the first lane has to retire.
  std::int64_t horizon() const {
    std::int64_t least = delay[0];
    for (int l = 1; l < kStrings; ++l) least = delay[l] < least ? delay[l] : least;
    return least + n - 2;
  }

  void end_segment(int l, std::int64_t t, bool down, double last) {
    const std::int64_t e = std::int64_t(last) - delay[l];
    const double w = bound[l / kVector][l % kVector];
    if (!done[l]) sign[l][e] = down ? -1 : 1;
    begin(l, e + 1, t, down ? w : -w);
  }

  // From time t to t + 1. Whether a segment ended.
  bool step(std::int64_t t) {
    bool ended = false;
    const Double now = Double{} + double(t + 1);
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g) {
      Double next;
      for (int i = 0; i < kVector; ++i) next[i] = double(at[g * kVector + i][t + 1]);
      const Double w = bound[g];
      const Double a = umin[g] + (next - vmin[g]), b = umax[g] + (next - vmax[g]);
      const Mask down = a < -w, over = down | (b > w), touch_low = a >= w, touch_high = b <= -w;
      const Double r = 1.0 / (now - start[g] + 1.0);
      const Double low_before = low[g], high_before = high[g];
      vmin[g] = touch_low ? vmin[g] + (a - w) * r : vmin[g];
      vmax[g] = touch_high ? vmax[g] + (b + w) * r : vmax[g];
      low[g] = touch_low ? now : low[g];
      high[g] = touch_high ? now : high[g];
      umin[g] = touch_low ? w : a;
      umax[g] = touch_high ? -w : b;
      if (!any(over)) continue;
      ended = true;
      for (int i = 0; i < kVector; ++i)
        if (over[i])
          end_segment(g * kVector + i, t + 1, down[i] != 0,
                      down[i] ? low_before[i] : high_before[i]);
    }
    return ended;
  }
};

// Sets the signs of the cuts of windows [0, windows), which lie one after the other in x. They are
// those of any signal that starts as the window does: solved[l] is the first sample that they do
// not cover. False where the strings take too many trips, as on long smooth ramps.
template <class T>
bool taut_strings(std::int64_t n, std::int64_t windows, const T* x, const double* bound,
                  signed char* sign, std::int64_t* solved) {
  Lanes<T> s;
  std::int64_t ends[kStrings];
  s.n = n;
  s.solved = ends;
  for (int l = 0; l < kStrings; ++l) {  // lanes without a window repeat the last one
    const std::int64_t window = l < windows ? l : windows - 1;
    s.from[l] = x + window * n;
    s.sign[l] = sign + window * n;
    s.bound[l / kVector][l % kVector] = bound[window];
    s.begin(l, 0, 0, 0);
  }
  for (std::int64_t t = 0; s.retire(t);) {
    if (t > 6 * n) return false;
    for (std::int64_t until = s.horizon(); t < until; ++t)
      if (s.step(t)) until = s.horizon();
  }
  std::memcpy(solved, ends, windows * sizeof *solved);
  return true;
}

}  // namespace

extern const Strings strings;
const Strings strings = {{kStrings, taut_strings<float>}, {kStrings, taut_strings<double>}};

}  // namespace jaxtv::cpu::JAXTV_ISA
