// The taut string of include/jaxtv/taut_string.hpp, several at once on one signal, a string per
// lane, in double and with the same operations. One string is bound by the latency of its updates,
// which the other lanes fill. Compiled once per instruction set, like lanes.cpp.
#include "sweep.hpp"
#include "vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kMostVectors = 2;

// Time t counts trips: lane l is at sample t - delay[l], which grows where a segment ends and the
// lane steps back to its end. start, low and high are times as well.
template <class T, int kVectors>
struct Lanes {
  static constexpr int kStrings = kVectors * kDoubleLanes;
  const StringProblem<T>& p;
  String* strings;
  const int count;
  int taken = 0, alive = 0;  // strings that have begun, and not ended
  bool failed = false;
  String* string[kStrings];  // of the lane, null when there are no more
  const T* at[kStrings];     // at[t] is the present sample
  std::int64_t delay[kStrings];
  std::int64_t stop[kStrings];     // the last sample to come to
  std::int64_t started[kStrings];  // when the string began
  Double bound[kVectors], vmin[kVectors], vmax[kVectors], umin[kVectors], umax[kVectors];
  Double start[kVectors], low[kVectors], high[kVectors], now = {};

  Lanes(const StringProblem<T>& problem, String* strings, int count)
      : p(problem), strings(strings), count(count) {
    for (int l = 0; l < kStrings; ++l) take_string(l, 0);
  }

  // Lane l takes the next string. Without one it goes on without an effect: no segment ends at such
  // a bound.
  void take_string(int l, std::int64_t t) {
    const bool more = taken < count;
    string[l] = more ? &strings[taken++] : nullptr;
    alive += more;
    started[l] = t;
    stop[l] = more && string[l]->end < p.n ? string[l]->end - 1 : p.n - 2;
    bound[l / kDoubleLanes][l % kDoubleLanes] = more ? p.bound : 1e300;
    begin(l, more ? string[l]->begin : 0, t, more ? -double(string[l]->left) * p.bound : 0);
  }

  void end_string(int l, std::int64_t t) {
    alive -= string[l] != nullptr;
    take_string(l, t);
  }

  // Lane l begins a segment at sample k, at time t; carry: the dual at its left end.
  void begin(int l, std::int64_t k, std::int64_t t, double carry) {
    const int g = l / kDoubleLanes, i = l % kDoubleLanes;
    const double first = double(p.x[k]) + carry, w = bound[g][i];
    delay[l] = t - k;
    at[l] = p.x - delay[l];
    vmin[g][i] = first - w;
    vmax[g][i] = first + w;
    umin[g][i] = w;
    umax[g][i] = -w;
    start[g][i] = low[g][i] = high[g][i] = double(t);
  }

  // Lane l ends a segment with a jump after the sample at time `last`.
  void end_segment(int l, std::int64_t t, bool down, double last) {
    String& s = *string[l];
    const std::int64_t e = std::int64_t(last) - delay[l];
    const signed char jump = down ? -1 : 1;
    if (!s.cuts) {
      p.sign[e] = jump;
      s.last = e;
    } else if (p.sign[e] == jump) {
      s.last = e;
      return end_string(l, t);
    } else if (s.count == kMostCuts) {
      failed = true;
    } else {
      s.cuts[s.count++] = down ? ~e : e;
    }
    begin(l, e + 1, t, down ? p.bound : -p.bound);
    const std::int64_t progress = e + 1 - s.begin, again = t - started[l] - progress;
    failed |= again > p.patience + kMostAgain * progress;
  }

  // Over the last edge of the signal, beyond which the dual is 0. Whether a segment ended.
  bool end_segment_at_last_edge(int l, std::int64_t t) {
    const int g = l / kDoubleLanes, i = l % kDoubleLanes;
    const double next = p.x[p.n - 1];
    const bool down = umin[g][i] + (next - vmin[g][i]) < 0;
    if (!down && !(umax[g][i] + (next - vmax[g][i]) > 0)) return false;
    end_segment(l, t, down, down ? low[g][i] : high[g][i]);
    return true;
  }

  // Ends the strings that have come to their last sample.
  void retire(std::int64_t t) {
    for (int l = 0; l < kStrings; ++l)
      while (t - delay[l] >= stop[l]) {
        String* s = string[l];
        if (s && t - delay[l] == p.n - 2 && end_segment_at_last_edge(l, t)) continue;
        if (s && s->cuts && s->end == p.n) s->last = p.n - 1;
        end_string(l, t);
      }
  }

  // The time at which the first lane has to retire.
  std::int64_t horizon() const {
    if (alive == 0 || failed) return 0;
    std::int64_t least = delay[0] + stop[0];
    for (int l = 1; l < kStrings; ++l) {
      const std::int64_t until = delay[l] + stop[l];
      least = until < least ? until : least;
    }
    return least;
  }

  // From time t to t + 1. Whether a segment ends there.
  bool step(std::int64_t t) {
    DoubleMask over = {};
    now += 1.0;
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g) {
      Double next;
      for (int i = 0; i < kDoubleLanes; ++i) next[i] = double(at[g * kDoubleLanes + i][t + 1]);
      const Double w = bound[g], r = 1.0 / (now - start[g] + 1.0);
      const Double a = umin[g] + (next - vmin[g]), b = umax[g] + (next - vmax[g]);
      const DoubleMask touch_low = a >= w, touch_high = b <= -w;
      over |= (a < -w) | (b > w);
      vmin[g] = touch_low ? vmin[g] + (a - w) * r : vmin[g];
      vmax[g] = touch_high ? vmax[g] + (b + w) * r : vmax[g];
      low[g] = touch_low ? now : low[g];
      high[g] = touch_high ? now : high[g];
      umin[g] = touch_low ? w : a;
      umax[g] = touch_high ? -w : b;
    }
    return any(over);
  }

  // Of the lanes that are beyond a bound, which the step has left at what it was for them.
  void end_segments(std::int64_t t) {
    for (int l = 0; l < kStrings; ++l) {
      const int g = l / kDoubleLanes, i = l % kDoubleLanes;
      const bool down = umin[g][i] < -bound[g][i];
      if (down || umax[g][i] > bound[g][i]) end_segment(l, t, down, down ? low[g][i] : high[g][i]);
    }
  }

  bool run() {
    for (std::int64_t t = 0; retire(t), alive > 0 && !failed;)
      for (std::int64_t until = horizon(); t < until;)
        if (step(t++)) {
          end_segments(t);
          until = horizon();
        }
    return !failed;
  }
};

template <class T>
bool run(const StringProblem<T>& problem, String* strings, int count) {
  if (count <= kDoubleLanes) return Lanes<T, 1>(problem, strings, count).run();
  return Lanes<T, kMostVectors>(problem, strings, count).run();
}

}  // namespace

extern const Strings strings;
const Strings strings = {{kMostVectors * kDoubleLanes, run<float>},
                         {kMostVectors * kDoubleLanes, run<double>}};

}  // namespace jaxtv::cpu::JAXTV_ISA
