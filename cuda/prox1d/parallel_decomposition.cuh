// Threshold decomposition of one signal by many threads (include/jaxtv/decomposition.hpp has the
// serial one and the mathematics). Each thread owns a range of samples; what crosses ranges is a
// scan. One round:
//   means    from the right: the mean c of every region, its threshold   scan of Run, then of Last:
//            at its first sample                                         c of the left
//   compose  messages as clamp functions m -> min(max(m + a, lo), hi)   scan of Clamp
//   labels   what each message says: 0, 1, or as the right neighbour    scan of Label, from the
//   right fill     labels, and a cut where they change
// until nothing was cut. The scans run over a warp, a block, or the tiles of a grid.
#pragma once

#include "block/launch.cuh"
#include "jaxtv/cuts.hpp"
#include "jaxtv/decomposition.hpp"
#include "jaxtv/overflow.hpp"

namespace jaxtv::cuda {

// A signal and its state. sign[i]: cut of the edge (i, i + 1); c[i]: at the first sample of a
// region, its value. The pointers are to shared or global memory; X's may be of half types, which
// are read as float.
template <class I, class X, class W, class Sign, class C>
struct Chain {
  I n;
  X values;
  I stride;
  W weights;
  I w_stride;  // 0: one λ
  Sign sign;
  C c;
  double factor;  // of the signal's size, see kSolverLimit
  JAXTV_DEVICE double x(I i) const { return double(values[i * stride]) * factor; }
  JAXTV_DEVICE double w(I e) const { return double(weights[e * w_stride]) * factor; }
  JAXTV_DEVICE int cut(I e) const { return sign[e]; }
  JAXTV_DEVICE bool starts(I i) const { return i == 0 || cut(i - 1) != 0; }
};

// As the accessors that the serial functions take.
template <class D>
struct Samples {
  const D& d;
  template <class I>
  JAXTV_DEVICE double operator[](I i) const {
    return d.x(i);
  }
};
template <class D>
struct Bars {
  const D& d;
  template <class I>
  JAXTV_DEVICE double operator[](I i) const {
    return d.w(i);
  }
};

template <class I>
struct Range {
  I begin, end;
};

// ---- what is scanned; join(far, near): `near` is the later one in the scan's direction ----

struct Run {                           // the samples from a place up to the end of its region
  double sum = 0, ref = 0, right = 0;  // sum of x - ref, ref = the last x, right = dual at its end
  long long count = 0;
  int closed = 0;  // the end has been met
  template <class F>
  JAXTV_DEVICE Run each(F f) const {
    return {f(sum), f(ref), f(right), f(count), f(closed)};
  }
};
JAXTV_DEVICE Run join(const Run& far, const Run& near) {
  if (near.closed || far.count == 0) return near;
  if (near.count == 0) return far;
  return {near.sum + far.sum + double(near.count) * (near.ref - far.ref), far.ref, far.right,
          near.count + far.count, far.closed};
}

struct Last {  // c of the last region that starts here
  double c = 0;
  int has = 0;
  template <class F>
  JAXTV_DEVICE Last each(F f) const {
    return {f(c), f(has)};
  }
};
JAXTV_DEVICE Last join(const Last& far, const Last& near) { return near.has ? near : far; }

struct Clamp {
  double a = 0, lo = -std::numeric_limits<double>::infinity(),
         hi = std::numeric_limits<double>::infinity();
  template <class F>
  JAXTV_DEVICE Clamp each(F f) const {
    return {f(a), f(lo), f(hi)};
  }
};
JAXTV_DEVICE Clamp join(const Clamp& f, const Clamp& g) {  // first f, then g
  return {f.a + g.a, min_of(max_of(f.lo + g.a, g.lo), g.hi),
          min_of(max_of(f.hi + g.a, g.lo), g.hi)};
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

struct Bounds {
  double low = std::numeric_limits<double>::infinity(),
         high = -std::numeric_limits<double>::infinity();
  int bad = 0;
  template <class F>
  JAXTV_DEVICE Bounds each(F f) const {
    return {f(low), f(high), f(bad)};
  }
  JAXTV_DEVICE double scale() const { return max_of(-low, high); }
};
JAXTV_DEVICE Bounds join(const Bounds& a, const Bounds& b) {
  return {min_of(a.low, b.low), max_of(a.high, b.high), a.bad | b.bad};
}

// ---- threads that work on one signal ----

// kWarps = 1: each warp has its own signal; else the whole block of kWarps warps has one.
template <int kWarps>
struct Group {
  static constexpr int kThreads = kWarps * kWarp;
  JAXTV_DEVICE static int thread() {
    return kWarps == 1 ? int(threadIdx.x) % kWarp : int(threadIdx.x);
  }
  JAXTV_DEVICE static void sync() {
    if constexpr (kWarps == 1)
      __syncwarp();
    else
      __syncthreads();
  }
  JAXTV_DEVICE static bool any(bool v) {
    if constexpr (kWarps == 1)
      return __any_sync(kAllLanes, v);
    else
      return __syncthreads_or(v);
  }
  // Bytes of shared memory for scans.
  static constexpr std::size_t kScratch = kWarps == 1 ? 0 : kWarps * sizeof(Run);

  // The join of all values before this thread's (after it, when kReverse); `total`: of all.
  template <bool kReverse, class V>
  JAXTV_DEVICE static V scan(Arena arena, V mine, V& total) {
    const int lane = int(threadIdx.x) % kWarp, rank = kReverse ? kWarp - 1 - lane : lane;
    const auto fetch = [&](unsigned distance) {
      return mine.each([&](auto v) {
        return kReverse ? __shfl_down_sync(kAllLanes, v, distance)
                        : __shfl_up_sync(kAllLanes, v, distance);
      });
    };
#pragma unroll 1
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const V other = fetch(distance);
      if (rank >= distance) mine = join(other, mine);
    }
    V before = fetch(1);
    if (rank == 0) before = V{};
    total = mine.each([&](auto v) { return __shfl_sync(kAllLanes, v, kReverse ? 0 : kWarp - 1); });
    if constexpr (kWarps > 1) {
      const Shared<V> totals = arena.take<V>(kWarps);
      const int warp = int(threadIdx.x) / kWarp, place = kReverse ? kWarps - 1 - warp : warp;
      if (lane == 0) totals[place] = total;
      __syncthreads();
      V sum{};
      for (int i = 0; i < kWarps; ++i) {
        if (i == place) before = join(sum, before);
        sum = join(sum, V(totals[i]));
      }
      total = sum;
      __syncthreads();
    }
    return before;
  }
  template <bool kReverse, class V>
  JAXTV_DEVICE static V scan(Arena arena, V mine) {
    V total;
    return scan<kReverse>(arena, mine, total);
  }
};

// ---- the steps of a round, by one thread on its range ----

// No cuts but those that are known: edges of weight 0 (cut_weightless).
template <class I, class D>
JAXTV_DEVICE void start_cuts(const D& d, Range<I> r) {
  for (I i = r.begin; i < r.end; ++i) d.sign[i] = i + 1 < d.n && d.w(i) == 0;
}

template <class T, class I, class D>
JAXTV_DEVICE Bounds bounds(const D& d, Range<I> r) {
  Bounds b;
  T probe = 0;
  for (I i = r.begin; i < r.end; ++i) {
    const T v = d.values[i * d.stride];
    probe += v - v;
    b.low = min_of(b.low, double(v));
    b.high = max_of(b.high, double(v));
    if (i + 1 < d.n || i == 0) b.bad |= !(T(d.weights[i * d.w_stride]) >= T(0));
  }
  b.bad |= !(probe == T(0));
  return b;
}

// The cut after sample i.
template <class I, class D>
JAXTV_DEVICE int cut_after(const D& d, I i) {
  return i + 1 < d.n ? d.cut(i) : 0;
}

// The run of no samples at the end of a range.
template <class I, class D>
JAXTV_DEVICE Run no_run(const D& d, Range<I> r) {
  return {0, r.begin < r.end ? d.x(r.end - 1) : 0.0, 0, 0, 0};
}

// Extends a run to the left by sample i, with `cut` after it.
template <class I, class D>
JAXTV_DEVICE void extend(const D& d, I i, int cut, Run& run) {
  const double x = d.x(i);
  if (i + 1 == d.n || cut != 0)
    run = {0, x, cut != 0 ? double(cut) * d.w(i) : 0.0, 1, 1};
  else
    run.sum += x - run.ref, ++run.count;
}

template <class I, class D>
JAXTV_DEVICE Run sums(const D& d, Range<I> r) {
  Run run = no_run(d, r);
  for (I i = r.end - 1; i >= r.begin; --i) extend(d, i, cut_after(d, i), run);
  return run;
}

// The dual before a region that starts at i.
template <class I, class D>
JAXTV_DEVICE double dual_before(const D& d, I i) {
  return i > 0 ? double(d.cut(i - 1)) * d.w(i - 1) : 0.0;
}

// Writes the values of the regions that start in the range, rounded to R. Goes from right to left:
// add() for each sample, or add_all() for the present cuts, begin() when all cuts are in memory,
// end() with the run that comes in from the right. What is not needed in between waits in memory,
// as registers are few.
template <class R, class I, class D>
class Means {
 public:
  JAXTV_DEVICE Means(const D& d, Range<I> r) : d_(d), r_(r), run_(no_run(d, r)) {}
  JAXTV_DEVICE void add(I i, int cut) {
    if (cut != 0 && i + 1 < r_.end) start(i + 1, double(cut) * d_.w(i));
    extend(d_, i, cut, run_);
  }
  JAXTV_DEVICE void add_all() {
#pragma unroll 1
    for (I i = r_.end - 1; i >= r_.begin; --i) add(i, cut_after(d_, i));
  }
  // The run from the first sample on.
  JAXTV_DEVICE Run begin() {
    if (r_.begin < r_.end && d_.starts(r_.begin)) start(r_.begin, dual_before(d_, r_.begin));
    return run_;
  }
  // The last region that starts here.
  JAXTV_DEVICE Last end(const Run& right) {
    if (last_ < 0) return {};
    if (open_) {
      const Run own{d_.c[last_], d_.x(r_.end - 1), 0, r_.end - last_, 0};
      d_.c[last_] = value(join(right, own), dual_before(d_, last_));
    }
    return {d_.c[last_], 1};
  }

 private:
  JAXTV_DEVICE void start(I i, double left) {
    if (last_ < 0) {
      last_ = i;
      open_ = !run_.closed;
    }
    d_.c[i] = run_.closed ? value(run_, left) : run_.sum;
  }
  JAXTV_DEVICE static double value(const Run& region, double left) {
    return segment_value<R>(region.ref, region.sum + (region.right - left), double(region.count));
  }
  const D& d_;
  Range<I> r_;
  Run run_;
  I last_ = -1;        // its first sample
  bool open_ = false;  // it ends behind the range: at its first sample is its sum in the range
};

// `c`: of the region that comes in from the left; `left`: the cut before the range.
template <class I, class D>
JAXTV_DEVICE Clamp compose(const D& d, Range<I> r, double c, int left) {
  Clamp f;
  for (I i = r.begin; i < r.end; ++i) {
    const double bound = i > 0 ? d.w(i - 1) : 0.0;
    if (i == 0 || left != 0) {
      c = d.c[i];
      f.lo = f.hi = (left != 0 ? double(left) * bound : 0.0) + (c - d.x(i));
    } else {
      const double by = c - d.x(i);
      f.a += by;
      f.lo = max_of(-bound, min_of(bound, f.lo)) + by;
      f.hi = max_of(-bound, min_of(bound, f.hi)) + by;
    }
    left = d.cut(i);
  }
  return f;
}

// `message`: of the sample before the range. Leaves 4 * code on top of the cuts.
template <class I, class D>
JAXTV_DEVICE Label labels(const D& d, Range<I> r, double c, int left, double message) {
  Label first;
  double before = r.begin > 0 && r.begin < r.end ? d.w(r.begin - 1) : 0.0;
  for (I i = r.begin; i < r.end; ++i) {
    const int cut = cut_after(d, i);
    const double bound = i + 1 < d.n ? d.w(i) : 0.0;
    if (i == 0 || left != 0) {
      c = d.c[i];
      message = left != 0 ? double(left) * before : 0.0;
    } else {
      message = max_of(-before, min_of(before, message));
    }
    message += c - d.x(i);
    int code;
    if (i + 1 == d.n || cut != 0) {
      code = message - (cut != 0 ? double(cut) * bound : 0.0) < 0 ? kLabel1 : kLabel0;
    } else {
      const double slack = decomposition_detail::round_off(bound, c, d.x(i));
      code = message > bound + slack ? kLabel0 : (message < -bound - slack ? kLabel1 : kCopyRight);
    }
    d.sign[i] = static_cast<signed char>(cut + 4 * code);
    if (first.code == kCopyRight) first.code = code;
    left = cut;
    before = bound;
  }
  return first;
}

// `z`: the label of the sample after the range. Returns whether it cut. note(i, cut, is_new) is
// told the state of each edge.
template <class I, class D, class F>
JAXTV_DEVICE bool fill(const D& d, Range<I> r, int z, F note) {
  bool changed = false;
#pragma unroll 1
  for (I i = r.end - 1; i >= r.begin; --i) {
    const int packed = d.sign[i], code = (packed + 1) >> 2;
    int cut = packed - 4 * code;
    const bool old = cut != 0;
    const int zi = code == kCopyRight ? z : code;
    if (!old && i + 1 < d.n) cut = z - zi;
    changed |= cut != 0 && !old;
    d.sign[i] = static_cast<signed char>(cut);
    note(i, cut, cut != 0 && !old);
    z = zi;
  }
  return changed;
}

// Joins ties (join_ties in include/jaxtv/cuts.hpp). `c`: value of the region from the left.
template <class I, class D>
JAXTV_DEVICE bool fuse(const D& d, Range<I> r, double c, bool starts, double scale) {
  bool joined = false;
  for (I i = r.begin; i < r.end; ++i) {
    if (starts) c = d.c[i];
    const int cut = cut_after(d, i);
    starts = cut != 0;
    if (cut == 0 || !(d.w(i) > 0)) continue;
    if ((double(d.c[i + 1]) - c) * double(cut) <= 8 * kEps * scale) {
      d.sign[i] = 0;
      joined = true;
    }
  }
  return joined;
}

// y of the range, in the signal's size; a sample between weights 0 is its own, bit for bit.
template <class T, class I, class D, class Y>
JAXTV_DEVICE void spread(const D& d, Range<I> r, double c, Y y) {
  for (I i = r.begin; i < r.end; ++i) {
    if (d.starts(i)) c = d.c[i];
    const bool own = (i == 0 || T(d.weights[(i - 1) * d.w_stride]) == T(0)) &&
                     (i + 1 == d.n || T(d.weights[i * d.w_stride]) == T(0));
    y[i * d.stride] = own ? T(d.values[i * d.stride]) : T(c / d.factor);
  }
}

// ---- steps of a group on its signal ----

// Ends the means of a group, whose cuts are all in memory; returns the value that comes in from the
// left.
template <class G, class R, class I, class D>
JAXTV_DEVICE double finish(Means<R, I, D>& means) {
  const Run right = G::template scan<true>(Arena{}, means.begin());
  const double c = G::template scan<false>(Arena{}, means.end(right)).c;
  G::sync();
  return c;
}

// The same for the present cuts.
template <class R, class G, class I, class D>
JAXTV_DEVICE double update(const D& d, Range<I> r) {
  Means<R, I, D> means(d, r);
  means.add_all();
  return finish<G>(means);
}

// One round by a group; returns whether it cut, with the means of its regions. `c`: see finish.
template <class G, class I, class D>
JAXTV_DEVICE bool split(const D& d, Range<I> r, double& c) {
  const int left = r.begin > 0 && r.begin < r.end ? d.cut(r.begin - 1) : 0;
  const Clamp in = G::template scan<false>(Arena{}, compose(d, r, c, left));
  G::sync();
  const Label label = labels(d, r, c, left, in.lo);
  const Label z = G::template scan<true>(Arena{}, label);
  Means<double, I, D> means(d, r);
  const bool cut = G::any(fill(d, r, z.code, [&](I i, int cut, bool) { means.add(i, cut); }));
  G::sync();
  c = finish<G>(means);
  return cut;
}

// One round of joining ties by a group; returns whether it joined.
template <class G, class I, class D>
JAXTV_DEVICE bool join_ties(const D& d, Range<I> r, double c, double scale) {
  const bool starts = r.begin < r.end && d.starts(r.begin);
  G::sync();
  const bool joined = G::any(fuse(d, r, c, starts, scale));
  G::sync();
  return joined;
}

}  // namespace jaxtv::cuda
