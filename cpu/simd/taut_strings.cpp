// The taut string of include/jaxtv/taut_string.hpp, several at once on one signal, one string per
// lane, in double and with the same operations. One string is bound by the latency of its updates,
// which the other lanes fill.
//
// Time counts steps. At time t lane l is at sample t - lag[l]; the lag grows where a segment ends
// and the lane steps back to its end. So all lanes step at once, and vectors hold times instead of
// samples.
#include "simd/taut_strings.hpp"

#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kMostVectors = 2;

// Runs `count` strings, as many at once as there are lanes, and writes their cuts (TautString).
// vmin, vmax, umin, umax and bound are as in taut_string.hpp.
template <class T, int kVectors>
struct TautStrings {
  static constexpr int kStrings = kVectors * kDoubleLanes;
  const TautStringProblem<T>& problem;
  TautString* strings;
  const int count;
  int taken = 0, running = 0;  // strings that have begun; of these, that have not ended
  bool failed = false;
  // Per lane:
  TautString* string[kStrings];  // null if there are no more for this lane
  const T* at[kStrings];         // at[t] is the present sample
  std::int64_t lag[kStrings];
  std::int64_t last_sample[kStrings];  // at which the string ends, at the latest
  std::int64_t began[kStrings];        // time at which the string began
  Double bound[kVectors], vmin[kVectors], vmax[kVectors], umin[kVectors], umax[kVectors];
  // Times: of the present segment's first sample; where vmin and vmax last touched a bound; now.
  Double start[kVectors], low[kVectors], high[kVectors], now = {};

  TautStrings(const TautStringProblem<T>& problem, TautString* strings, int count)
      : problem(problem), strings(strings), count(count) {
    for (int l = 0; l < kStrings; ++l) take_string(l, 0);
  }

  // Lane l takes the next string. If there is none, it steps on without effect: its bound is so
  // large that no segment ends.
  void take_string(int l, std::int64_t t) {
    const bool more = taken < count;
    string[l] = more ? &strings[taken++] : nullptr;
    running += more;
    began[l] = t;
    last_sample[l] = more && string[l]->end < problem.n ? string[l]->end - 1 : problem.n - 2;
    bound[l / kDoubleLanes][l % kDoubleLanes] = more ? problem.bound : 1e300;
    begin_segment(l, more ? string[l]->begin : 0, t,
                  more ? -double(string[l]->sign_before) * problem.bound : 0);
  }

  void end_string(int l, std::int64_t t) {
    running -= string[l] != nullptr;
    take_string(l, t);
  }

  // Lane l begins a segment at sample k, at time t; dual_before: the dual at its left end.
  void begin_segment(int l, std::int64_t k, std::int64_t t, double dual_before) {
    const int g = l / kDoubleLanes, i = l % kDoubleLanes;
    const double first = double(problem.x[k]) + dual_before, w = bound[g][i];
    lag[l] = t - k;
    at[l] = problem.x - lag[l];
    vmin[g][i] = first - w;
    vmax[g][i] = first + w;
    umin[g][i] = w;
    umax[g][i] = -w;
    start[g][i] = low[g][i] = high[g][i] = double(t);
  }

  // Lane l ends a segment with a jump after the sample at time `last`.
  void end_segment(int l, std::int64_t t, bool down, double last) {
    TautString& s = *string[l];
    const std::int64_t e = std::int64_t(last) - lag[l];
    const signed char jump = down ? -1 : 1;
    if (!s.cuts) {
      problem.sign[e] = jump;
      s.last_cut = e;
    } else if (problem.sign[e] == jump) {
      s.last_cut = e;
      return end_string(l, t);
    } else if (s.num_cuts == kMostCuts) {
      failed = true;
    } else {
      s.cuts[s.num_cuts++] = down ? ~e : e;
    }
    begin_segment(l, e + 1, t, down ? problem.bound : -problem.bound);
    const std::int64_t progress = e + 1 - s.begin, rereads = t - began[l] - progress;
    failed |= rereads > problem.patience + kMostRereads * progress;
  }

  // Looks at the last sample of the signal, after which the dual is 0. Returns whether a segment
  // ended.
  bool end_segment_at_last_edge(int l, std::int64_t t) {
    const int g = l / kDoubleLanes, i = l % kDoubleLanes;
    const double next = problem.x[problem.n - 1];
    const bool down = umin[g][i] + (next - vmin[g][i]) < 0;
    if (!down && !(umax[g][i] + (next - vmax[g][i]) > 0)) return false;
    end_segment(l, t, down, down ? low[g][i] : high[g][i]);
    return true;
  }

  // Ends the strings that have reached their last sample.
  void retire(std::int64_t t) {
    for (int l = 0; l < kStrings; ++l)
      while (t - lag[l] >= last_sample[l]) {
        TautString* s = string[l];
        if (s && t - lag[l] == problem.n - 2 && end_segment_at_last_edge(l, t)) continue;
        if (s && s->cuts && s->end == problem.n) s->last_cut = problem.n - 1;
        end_string(l, t);
      }
  }

  // The time at which the next string reaches its last sample.
  std::int64_t next_retirement() const {
    if (running == 0 || failed) return 0;
    std::int64_t least = lag[0] + last_sample[0];
    for (int l = 1; l < kStrings; ++l) {
      const std::int64_t until = lag[l] + last_sample[l];
      least = until < least ? until : least;
    }
    return least;
  }

  // All lanes from time t to t + 1. Returns whether a segment ends in any of them.
  bool step(std::int64_t t) {
    DoubleMask beyond = {};
    now += 1.0;
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g) {
      Double next;
      for (int i = 0; i < kDoubleLanes; ++i) next[i] = double(at[g * kDoubleLanes + i][t + 1]);
      const Double w = bound[g], r = 1.0 / (now - start[g] + 1.0);
      const Double a = umin[g] + (next - vmin[g]), b = umax[g] + (next - vmax[g]);
      const DoubleMask touch_low = a >= w, touch_high = b <= -w;
      beyond |= (a < -w) | (b > w);
      vmin[g] = touch_low ? vmin[g] + (a - w) * r : vmin[g];
      vmax[g] = touch_high ? vmax[g] + (b + w) * r : vmax[g];
      low[g] = touch_low ? now : low[g];
      high[g] = touch_high ? now : high[g];
      umin[g] = touch_low ? w : a;
      umax[g] = touch_high ? -w : b;
    }
    return any(beyond);
  }

  // Ends the segments of the lanes that are beyond a bound. There `step` has neither clamped
  // the value that is beyond (umin or umax) nor moved its time (low or high).
  void end_segments(std::int64_t t) {
    for (int l = 0; l < kStrings; ++l) {
      const int g = l / kDoubleLanes, i = l % kDoubleLanes;
      const bool down = umin[g][i] < -bound[g][i];
      if (down || umax[g][i] > bound[g][i]) end_segment(l, t, down, down ? low[g][i] : high[g][i]);
    }
  }

  bool run() {
    for (std::int64_t t = 0; retire(t), running > 0 && !failed;)
      for (std::int64_t until = next_retirement(); t < until;)
        if (step(t++)) {
          end_segments(t);
          until = next_retirement();
        }
    return !failed;
  }
};

template <class T>
bool run(const TautStringProblem<T>& problem, TautString* strings, int count) {
  if (count <= kDoubleLanes) return TautStrings<T, 1>(problem, strings, count).run();
  return TautStrings<T, kMostVectors>(problem, strings, count).run();
}

}  // namespace

extern const TautStringTable taut_strings;
const TautStringTable taut_strings = {{kMostVectors * kDoubleLanes, run<float>},
                                      {kMostVectors * kDoubleLanes, run<double>}};

}  // namespace jaxtv::cpu::JAXTV_ISA
