// Threshold decomposition of one signal by many threads (include/jaxtv/decomposition.hpp has the
// serial one and the mathematics). Each thread owns a range of neighbouring samples; what crosses
// ranges is a scan over the threads. One pass of the decomposition, for all regions at once:
//   means     the mean of every region, its threshold, at     scan of RegionSum from the right,
//             its first sample                                then of LastRegion from the left
//   messages  as clamp functions m -> min(max(m + shift,      scan of Clamp from the left
//             low), high)
//   labels    what each message says: 0, 1, or as the right   scan of Label from the right
//             neighbour
//   cuts      where labels change
// until nothing was cut. The scans run over a warp, a block, or the tiles of a grid.
#pragma once

#include <type_traits>

#include "block/scan.cuh"
#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/overflow.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {

// The samples of a thread.
template <class Index>
struct SampleRange {
  Index begin, end;
};

// A signal and the state of its decomposition, in shared or in global memory. Samples may be of a
// half type; they are read as float.
template <class Index, class Samples, class Weights, class Cuts, class Values>
struct SignalState {
  Index n;
  Samples samples;
  Index stride;
  Weights weights;
  Index weight_stride;  // 0: one λ
  Cuts cuts;  // of the edge (i, i + 1): the sign of its jump, 0 inside a region and at n - 1
  Values region_values;  // at the first sample of a region: its mean
  double factor;         // of the signal's size, see kSolverLimit
  JAXTV_DEVICE double x(Index i) const { return double(samples[i * stride]) * factor; }
  JAXTV_DEVICE double w(Index e) const { return double(weights[e * weight_stride]) * factor; }
  JAXTV_DEVICE int cut(Index e) const { return cuts[e]; }
  JAXTV_DEVICE bool starts(Index i) const { return i == 0 || cut(i - 1) != 0; }
};

// The same with data weights (jaxtv/data_weight.hpp).
template <class Index, class Samples, class Weights, class Cuts, class Values>
struct WeightedSignalState : SignalState<Index, Samples, Weights, Cuts, Values> {
  Samples masses;
  JAXTV_DEVICE double mass(Index i) const { return double(masses[i * this->stride]); }
};

// The mass of a sample: 1, a whole number, in signals without data weights.
template <class Signal>
constexpr bool kHasMasses = requires(Signal signal) { signal.masses; };
template <class Signal, class Index>
JAXTV_DEVICE auto mass_of(const Signal& signal, Index i) {
  if constexpr (kHasMasses<Signal>)
    return signal.mass(i);
  else
    return 1ll;
}
template <class Signal>
using Mass = std::conditional_t<kHasMasses<Signal>, double, long long>;
template <class Signal, class Index>
JAXTV_DEVICE Mass<Signal> total_mass(const Signal& signal, SampleRange<Index> range) {
  if constexpr (!kHasMasses<Signal>) return range.end - range.begin;
  Mass<Signal> total = 0;
  for (Index i = range.begin; i < range.end; ++i) total += mass_of(signal, i);
  return total;
}

// Its samples, masses and weights as the accessors that the serial functions take.
template <class Signal>
struct SampleAccessor {
  const Signal& signal;
  template <class Index>
  JAXTV_DEVICE double operator[](Index i) const {
    return signal.x(i);
  }
};
template <class Signal>
struct MassAccessor {
  const Signal& signal;
  template <class Index>
  JAXTV_DEVICE double operator[](Index i) const {
    return double(mass_of(signal, i));
  }
};
template <class Signal>
struct WeightAccessor {
  const Signal& signal;
  template <class Index>
  JAXTV_DEVICE double operator[](Index i) const {
    return signal.w(i);
  }
};

// ---- what is scanned (block/scan.cuh) ----

// The samples from some place up to the end of its region. Count: a whole number, or a double for
// signals with data weights.
template <class Count>
struct RegionSumOf {
  double sum = 0;        // of x - reference
  double reference = 0;  // the last x: differences of neighbours are small
  double end_dual = 0;   // the dual at the end of the region
  Count count = 0;
  int complete = 0;  // the end of the region was met
  template <class F>
  JAXTV_DEVICE RegionSumOf each(F f) const {
    return {f(sum), f(reference), f(end_dual), f(count), f(complete)};
  }
  // Samples without a mass add nothing to what they are joined to.
  JAXTV_DEVICE bool empty() const {
    if constexpr (std::is_same_v<Count, double>)
      return count == 0 && !complete;
    else
      return count == 0;
  }
};
using RegionSum = RegionSumOf<long long>;
template <class Signal>
using RegionSumFor = RegionSumOf<Mass<Signal>>;
template <class Count>
JAXTV_DEVICE RegionSumOf<Count> join(const RegionSumOf<Count>& far,
                                     const RegionSumOf<Count>& near) {
  if (near.complete || far.empty()) return near;
  if (near.empty()) return far;
  return {near.sum + far.sum + double(near.count) * (near.reference - far.reference), far.reference,
          far.end_dual, near.count + far.count, far.complete};
}

// The value of the last region that starts in a range, if one does.
struct LastRegion {
  double value = 0;
  int found = 0;
  template <class F>
  JAXTV_DEVICE LastRegion each(F f) const {
    return {f(value), f(found)};
  }
};
JAXTV_DEVICE LastRegion join(const LastRegion& far, const LastRegion& near) {
  return near.found ? near : far;
}

// The message after a range as a function of the message m before it:
// min(max(m + shift, low), high).
struct Clamp {
  double shift = 0, low = -std::numeric_limits<double>::infinity(),
         high = std::numeric_limits<double>::infinity();
  template <class F>
  JAXTV_DEVICE Clamp each(F f) const {
    return {f(shift), f(low), f(high)};
  }
};
JAXTV_DEVICE Clamp join(const Clamp& first, const Clamp& then) {
  return {first.shift + then.shift, min_of(max_of(first.low + then.shift, then.low), then.high),
          min_of(max_of(first.high + then.shift, then.low), then.high)};
}

constexpr int kLabel0 = 0, kLabel1 = 1, kCopyRight = 2;
struct Label {
  int code = kCopyRight;
  template <class F>
  JAXTV_DEVICE Label each(F f) const {
    return {f(code)};
  }
};
JAXTV_DEVICE Label join(const Label& far, const Label& near) {
  return near.code == kCopyRight ? far : near;
}

struct SampleBounds {
  double low = std::numeric_limits<double>::infinity(),
         high = -std::numeric_limits<double>::infinity();
  int invalid = 0;  // a sample is not finite, or a weight is not >= 0
  template <class F>
  JAXTV_DEVICE SampleBounds each(F f) const {
    return {f(low), f(high), f(invalid)};
  }
  JAXTV_DEVICE double scale() const { return max_of(-low, high); }
};
JAXTV_DEVICE SampleBounds join(const SampleBounds& a, const SampleBounds& b) {
  return {min_of(a.low, b.low), max_of(a.high, b.high), a.invalid | b.invalid};
}

// ---- the steps of a pass, by one thread on its range ----

// No cuts but those that are known: edges of weight 0 (cut_weightless).
template <class Index, class Signal>
JAXTV_DEVICE void initialise_cuts(const Signal& signal, SampleRange<Index> range) {
  for (Index i = range.begin; i < range.end; ++i)
    signal.cuts[i] = i + 1 < signal.n && signal.w(i) == 0;
}

template <class T, class Index, class Signal>
JAXTV_DEVICE SampleBounds bounds_of(const Signal& signal, SampleRange<Index> range) {
  SampleBounds b;
  T probe = 0;
  for (Index i = range.begin; i < range.end; ++i) {
    const T v = signal.samples[i * signal.stride];
    probe += v - v;  // NaN as soon as one is not finite
    b.low = min_of(b.low, double(v));
    b.high = max_of(b.high, double(v));
    if constexpr (kHasMasses<Signal>)
      b.invalid |= !(signal.mass(i) >= 0 && is_finite(signal.mass(i)));
    if (i + 1 < signal.n || i == 0)
      b.invalid |= !(T(signal.weights[i * signal.weight_stride]) >= T(0));
  }
  b.invalid |= !(probe == T(0));
  return b;
}

// The sum of no samples at the end of a range.
template <class Index, class Signal>
JAXTV_DEVICE RegionSumFor<Signal> empty_region_sum(const Signal& signal, SampleRange<Index> range) {
  if (range.begin == range.end) return {};
  return {0, signal.x(range.end - 1), 0, 0, range.end == signal.n};
}

// Extends a sum to the left by sample i, with `cut` after it.
template <class Index, class Signal>
JAXTV_DEVICE void extend(const Signal& signal, Index i, int cut, RegionSumFor<Signal>& region) {
  const double x = signal.x(i);
  const auto mass = mass_of(signal, i);
  if (cut != 0)
    region = {0, x, double(cut) * signal.w(i), mass, 1};
  else
    region.sum += double(mass) * (x - region.reference), region.count += mass;
}

// Of the samples from the first of the range on.
template <class Index, class Signal>
JAXTV_DEVICE RegionSumFor<Signal> region_sum_of(const Signal& signal, SampleRange<Index> range) {
  RegionSumFor<Signal> region = empty_region_sum(signal, range);
  for (Index i = range.end - 1; i >= range.begin; --i) extend(signal, i, signal.cut(i), region);
  return region;
}

// The dual before a region that starts at i.
template <class Index, class Signal>
JAXTV_DEVICE double dual_before(const Signal& signal, Index i) {
  return i > 0 ? double(signal.cut(i - 1)) * signal.w(i - 1) : 0.0;
}

// Writes the values of the regions that start in the range, rounded to Value. Goes from right to
// left: add() for each sample, or add_all() for the present cuts; begin() when all cuts are in
// memory; end() with the sum that comes in from the right. What is not needed in between waits in
// memory, as registers are few.
template <class Value, class Index, class Signal>
class RegionMeans {
 public:
  using Sum = RegionSumFor<Signal>;
  JAXTV_DEVICE RegionMeans(const Signal& signal, SampleRange<Index> range)
      : signal_(signal), range_(range), region_(empty_region_sum(signal, range)) {}
  JAXTV_DEVICE void add(Index i, int cut) {
    if (cut == 0) {
      extend(signal_, i, 0, region_);
    } else {
      if (i + 1 < range_.end) start(i + 1, double(cut) * signal_.w(i));
      extend(signal_, i, cut, region_);
    }
  }
  JAXTV_DEVICE void add_all() {
#pragma unroll 1
    for (Index i = range_.end - 1; i >= range_.begin; --i) add(i, signal_.cut(i));
  }
  // The sum from the first sample on.
  JAXTV_DEVICE Sum begin() {
    if (range_.begin < range_.end && signal_.starts(range_.begin))
      start(range_.begin, dual_before(signal_, range_.begin));
    return region_;
  }
  // The last region that starts here.
  JAXTV_DEVICE LastRegion end(const Sum& right) {
    if (last_ < 0) return {};
    if (last_is_open_) {
      const Sum in_range{signal_.region_values[last_], signal_.x(range_.end - 1), 0,
                         total_mass(signal_, SampleRange<Index>{last_, range_.end}), 0};
      signal_.region_values[last_] = value(join(right, in_range), dual_before(signal_, last_));
    }
    return {signal_.region_values[last_], 1};
  }

 private:
  JAXTV_DEVICE void start(Index i, double left_dual) {
    if (last_ < 0) {
      last_ = i;
      last_is_open_ = !region_.complete;
    }
    signal_.region_values[i] = region_.complete ? value(region_, left_dual) : region_.sum;
  }
  JAXTV_DEVICE static double value(const Sum& region, double left_dual) {
    return segment_value<Value>(region.reference, region.sum + (region.end_dual - left_dual),
                                double(region.count));
  }
  const Signal& signal_;
  SampleRange<Index> range_;
  Sum region_;
  Index last_ = -1;            // first sample of the last region that starts here
  bool last_is_open_ = false;  // it ends after the range: at its first sample is its sum so far
};

// The messages of the range as a function of the one before it. `value`: of the region that comes
// in from the left; `left`: the cut before the range.
template <class Index, class Signal>
JAXTV_DEVICE Clamp compose_messages(const Signal& signal, SampleRange<Index> range, double value,
                                    int left) {
  Clamp message;
  if (range.begin == 0) left = 1;  // a region starts there, after the dual 0
  for (Index i = range.begin; i < range.end; ++i) {
    const double bound = i > 0 ? signal.w(i - 1) : 0.0;
    if (left != 0) {
      value = signal.region_values[i];
      message.low = message.high =
          double(left) * bound + double(mass_of(signal, i)) * (value - signal.x(i));
    } else {
      const double by = double(mass_of(signal, i)) * (value - signal.x(i));
      message.shift += by;
      message.low = max_of(-bound, min_of(bound, message.low)) + by;
      message.high = max_of(-bound, min_of(bound, message.high)) + by;
    }
    left = signal.cut(i);
  }
  return message;
}

// The first label of the range that is not kCopyRight. `message`: of the sample before the range.
// Leaves 4 * code on top of the cuts.
template <class Index, class Signal>
JAXTV_DEVICE Label label_samples(const Signal& signal, SampleRange<Index> range, double value,
                                 int left, double message) {
  Label first;
  if (range.begin == 0) left = 1;
  double before = range.begin > 0 && range.begin < range.end ? signal.w(range.begin - 1) : 0.0;
  for (Index i = range.begin; i < range.end; ++i) {
    const int cut = signal.cut(i);
    const double bound = i + 1 < signal.n ? signal.w(i) : 0.0;
    if (left != 0) {
      value = signal.region_values[i];
      message = double(left) * before;
    } else {
      message = max_of(-before, min_of(before, message));
    }
    message += double(mass_of(signal, i)) * (value - signal.x(i));
    int code;
    if (i + 1 == signal.n || cut != 0) {
      code = message - (cut != 0 ? double(cut) * bound : 0.0) < 0 ? kLabel1 : kLabel0;
    } else {
      const double slack =
          decomposition_detail::round_off(bound, value, signal.x(i), double(mass_of(signal, i)));
      code = message > bound + slack ? kLabel0 : (message < -bound - slack ? kLabel1 : kCopyRight);
    }
    signal.cuts[i] = static_cast<signed char>(cut + 4 * code);
    if (first.code == kCopyRight) first.code = code;
    left = cut;
    before = bound;
  }
  return first;
}

// Cuts where labels change; returns whether it cut. `right`: the label of the sample after the
// range; kCopyRight where there is none. note(i, cut, is_new) is told the state of each edge.
template <class Index, class Signal, class Note>
JAXTV_DEVICE bool cut_between_labels(const Signal& signal, SampleRange<Index> range, int right,
                                     Note note) {
  int changed = 0;
  const auto label_at = [&](int packed) { return (packed + 1) >> 2; };
  if (right == kCopyRight && range.begin < range.end) right = label_at(signal.cuts[range.end - 1]);
#pragma unroll 1
  for (Index i = range.end - 1; i >= range.begin; --i) {
    const int packed = signal.cuts[i], code = label_at(packed);
    const int label = code == kCopyRight ? right : code;
    int cut = packed - 4 * code;
    const int new_cut = cut == 0 ? right - label : 0;
    cut += new_cut;
    changed |= new_cut;
    signal.cuts[i] = static_cast<signed char>(cut);
    note(i, cut, new_cut != 0);
    right = label;
  }
  return changed != 0;
}

// Whether the cut after sample i, between regions of the values `left` and `right`, is a tie
// (is_tie in include/jaxtv/cuts.hpp). A thread does not look for the largest sample of the regions:
// it takes kLargest times what it has at hand.
template <class Index, class Signal>
JAXTV_DEVICE bool is_tie_at(const Signal& signal, Index i, double left, double right,
                            double scale) {
  constexpr double kLargest = 256;
  const double jump = (right - left) * double(signal.cut(i));
  if (!(jump <= kTieSlack * scale)) return false;
  const double value = max_of(abs_of(left), abs_of(right));
  const double sample = max_of(abs_of(signal.x(i)), abs_of(signal.x(i + 1)));
  return jump <= kTieSlack * kLargest * max_of(value, sample);
}

// Joins ties (join_ties in include/jaxtv/cuts.hpp). `value`: of the region from the left; `starts`:
// whether one starts with the range.
template <class Index, class Signal>
JAXTV_DEVICE bool join_ties_in_range(const Signal& signal, SampleRange<Index> range, double value,
                                     bool starts, double scale) {
  bool joined = false;
  for (Index i = range.begin; i < range.end; ++i) {
    if (starts) value = signal.region_values[i];
    const int cut = i + 1 < signal.n ? signal.cut(i) : 0;
    starts = cut != 0;
    if (cut == 0 || !(signal.w(i) > 0)) continue;
    if (is_tie_at(signal, i, value, signal.region_values[i + 1], scale)) {
      signal.cuts[i] = 0;
      joined = true;
    }
  }
  return joined;
}

// y of the range, in the signal's size; a sample between weights 0 is its own, bit for bit.
template <class T, class Index, class Signal, class Output>
JAXTV_DEVICE void write_solution(const Signal& signal, SampleRange<Index> range, double value,
                                 Output y) {
  for (Index i = range.begin; i < range.end; ++i) {
    if (signal.starts(i)) value = signal.region_values[i];
    const auto weightless = [&](Index e) {
      return T(signal.weights[e * signal.weight_stride]) == T(0);
    };
    const bool alone = (i == 0 || weightless(i - 1)) && (i + 1 == signal.n || weightless(i));
    y[i * signal.stride] = alone ? T(signal.samples[i * signal.stride]) : T(value / signal.factor);
  }
}

// ---- steps of a group of threads on its signal ----

// Ends the means of a group, whose cuts are all in memory; returns the value that comes in from the
// left.
template <class Group, class Value, class Index, class Signal>
JAXTV_DEVICE double finish_means(RegionMeans<Value, Index, Signal>& means) {
  const auto right = Group::template scan<true>(Arena{}, means.begin());
  const double value = Group::template scan<false>(Arena{}, means.end(right)).value;
  Group::sync();
  return value;
}

// The same for the present cuts.
template <class Value, class Group, class Index, class Signal>
JAXTV_DEVICE double update_means(const Signal& signal, SampleRange<Index> range) {
  RegionMeans<Value, Index, Signal> means(signal, range);
  means.add_all();
  return finish_means<Group>(means);
}

// The first and the last new cut of a pass.
template <class Index>
struct NewCuts {
  Index first = std::numeric_limits<Index>::max(), last = -1;
  template <class F>
  JAXTV_DEVICE NewCuts each(F f) const {
    return {f(first), f(last)};
  }
};
template <class Index>
JAXTV_DEVICE NewCuts<Index> join(const NewCuts<Index>& a, const NewCuts<Index>& b) {
  return {min_of(a.first, b.first), max_of(a.last, b.last)};
}

// One pass by a group; returns whether it cut, with the means of its regions. `value`: see
// finish_means; `found`: of this thread.
template <class Group, class Index, class Signal>
JAXTV_DEVICE bool decomposition_pass(const Signal& signal, SampleRange<Index> range, double& value,
                                     NewCuts<Index>& found) {
  const int left = range.begin > 0 && range.begin < range.end ? signal.cut(range.begin - 1) : 0;
  const Clamp before =
      Group::template scan<false>(Arena{}, compose_messages(signal, range, value, left));
  Group::sync();
  const Label label = label_samples(signal, range, value, left, before.low);
  const Label right = Group::template scan<true>(Arena{}, label);
  RegionMeans<double, Index, Signal> means(signal, range);
  const bool cut =
      Group::any(cut_between_labels(signal, range, right.code, [&](Index i, int cut, bool is_new) {
        means.add(i, cut);
        if (!is_new) return;
        found.first = i;  // it goes to the left
        found.last = max_of(found.last, i);
      }));
  Group::sync();
  value = finish_means<Group>(means);
  return cut;
}

// What a thread of a group has of some samples.
template <class Group, class Index>
JAXTV_DEVICE SampleRange<Index> share_of(SampleRange<Index> all) {
  const Index each =
      ((all.end - all.begin + Group::kThreads - 1) / Group::kThreads) | 1;  // odd: banks differ
  const Index begin = min_of(all.begin + Index(Group::thread()) * each, all.end);
  return {begin, min_of(begin + each, all.end)};
}

// From the region before the first new cut to the one after the last, by a warp. All regions
// outside are segments of the solution.
template <class Index, class Signal>
JAXTV_DEVICE SampleRange<Index> samples_around(const Signal& signal, const NewCuts<Index>& found) {
  using Warp = ThreadGroup<1>;
  const NewCuts<Index> all = Warp::template total<false>(found);
  const int lane = Warp::thread();
  unsigned ends = 0;
  Index begin = all.first, end = all.last + 1;
  while (begin > 0 && ends == 0) {
    const Index e = begin - 1 - lane;
    ends = __ballot_sync(kAllLanes, e < 0 || signal.cut(e) != 0);
    begin -= ends != 0 ? __ffs(int(ends)) - 1 : kWarp;
  }
  for (ends = 0; ends == 0;) {
    const Index e = end + lane;
    ends = __ballot_sync(kAllLanes, e + 1 >= signal.n || signal.cut(e) != 0);
    end += ends != 0 ? __ffs(int(ends)) : kWarp;
  }
  return {begin, end};
}

// Joins ties once by a group; returns whether it joined.
template <class Group, class Index, class Signal>
JAXTV_DEVICE bool join_ties(const Signal& signal, SampleRange<Index> range, double value,
                            double scale) {
  const bool starts = range.begin < range.end && signal.starts(range.begin);
  Group::sync();
  const bool joined = Group::any(join_ties_in_range(signal, range, value, starts, scale));
  Group::sync();
  return joined;
}

// The cuts of the solution, from scratch.
template <class Group, class Index, class Signal>
JAXTV_DEVICE void find_cuts(const Signal& signal, SampleRange<Index> range, double scale) {
  constexpr int kMostPasses = tuning::GroupPerSignal::kMostPasses;
  initialise_cuts(signal, range);
  Group::sync();
  double value = update_means<double, Group>(signal, range);
  int pass = 0;
  SampleRange<Index> all{0, signal.n}, mine = range;  // what passes go over, and this thread's
  NewCuts<Index> found;
#pragma unroll 1
  while (pass < kMostPasses && decomposition_pass<Group>(signal, mine, value, found)) {
    ++pass;
    if constexpr (Group::kThreads == kWarp) {
      const SampleRange<Index> open = samples_around(signal, found);
      found = {};
      if (2 * (open.end - open.begin) > all.end - all.begin) continue;
      all = open;
      mine = share_of<Group>(all);
      value = update_means<double, Group>(signal, mine);
    }
  }
  if (all.end - all.begin < signal.n) value = update_means<double, Group>(signal, range);
  if (pass == kMostPasses) {
    if (Group::thread() == 0)
      refine(Index(0), signal.n, signal.n, SampleAccessor{signal}, MassAccessor{signal},
             WeightAccessor{signal}, signal.cuts);
    Group::sync();
    value = update_means<double, Group>(signal, range);
  }
#pragma unroll 1
  while (join_ties<Group>(signal, range, value, scale))
    value = update_means<double, Group>(signal, range);
}

// y = prox(x) by a group.
template <class T, class Group, class Index, class Signal, class Output>
JAXTV_DEVICE void solve(Signal signal, Output y) {
  const SampleRange<Index> range = share_of<Group>(SampleRange<Index>{0, signal.n});
  SampleBounds bounds;
  Group::template scan<false>(Arena{}, bounds_of<T>(signal, range), bounds);
  if (bounds.invalid) {
    for (Index i = range.begin; i < range.end; ++i) y[i * signal.stride] = kNaN<T>;
    return;
  }
  if (sizeof(T) == 8 && bounds.scale() >= kSolverLimit) signal.factor = kSolverScale;
  find_cuts<Group>(signal, range, bounds.scale() * signal.factor);
  write_solution<T>(signal, range, update_means<T, Group>(signal, range), y);
}

}  // namespace jaxtv::cuda
