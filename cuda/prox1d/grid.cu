// Decomposition of long signals by the whole device: the steps of parallel_decomposition.cuh as one
// kernel each, with scans over the tiles of a signal between them. Launches depend on n only: some
// rounds, whose kernels return at once when no region is left to split. They leave many regions or
// short ones; a thread or a block each goes on with those that are not finished (by binary
// splitting, as ramps do, the rounds make enough of them to fill a device).
#include "half.cuh"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"
#include "prox1d/thread_per_signal.cuh"

namespace jaxtv::cuda {
namespace {

constexpr int kThreads = 256, kEach = 16, kTile = kThreads * kEach;
constexpr int kRounds = 8, kTieRounds = 2;  // at most
constexpr int kScanThreads = 1024;

// Of one signal: whether round i has work.
struct State {
  Bounds bounds;
  int split[kRounds + 1], joined[kTieRounds + 1];
};

constexpr int kNew = 4;
JAXTV_DEVICE bool is_new_mark(int mark) { return mark > 1; }
JAXTV_DEVICE int sign_of_mark(int mark) { return is_new_mark(mark) ? mark - kNew : mark; }

// The first thread that has found something, and on which sides.
struct Found {
  int thread = kThreads, left = 0, right = 0;
  template <class F>
  JAXTV_DEVICE Found each(F f) const {
    return {f(thread), f(left), f(right)};
  }
};
JAXTV_DEVICE Found join(const Found& a, const Found& b) { return a.thread <= b.thread ? a : b; }

// What flows into a tile, or first what it contributes.
struct Link {
  Run run;
  Last last;
  Clamp clamp;
  Label label;
  Bounds bounds;
  int left;  // the cut before the tile, while others change it
};

template <class D>
struct Job {
  Shape s;
  Prox<D> op;
  std::int64_t tiles;  // per signal
  double* c;
  State* states;
  Link* links;
  signed char *sign, *mark;  // mark: cuts after the last round, kNew added to the new ones
};

constexpr std::int64_t tiles_of(std::int64_t n) { return (n + kTile - 1) / kTile; }

// By binary splitting regions are not longer than a tile then.
constexpr int rounds_of(std::int64_t n) {
  int rounds = 2;
  while (rounds < kRounds && (std::int64_t(1) << (rounds - 1)) < tiles_of(n)) ++rounds;
  return rounds;
}

using G = Group<kThreads / kWarp>;
using Index = std::int64_t;

// Where a block works, and its thread's samples.
template <class D>
struct Work {
  Chain<Index, const D*, const Compute<D>*, signed char*, double*> d;
  D* y;
  State* state;
  Link* link;
  Index first;  // of the tile
  Range<Index> r;
  JAXTV_DEVICE Work(const Job<D>& job, std::int64_t index) {
    const Shape& s = job.s;
    const std::int64_t signal = index / job.tiles, tile = index - signal * job.tiles;
    const std::int64_t outer = signal / s.inner, inner = signal - outer * s.inner;
    const std::int64_t at = outer * s.n * s.inner + inner;
    const bool edge = job.op.per_edge;
    d = {s.n,
         job.op.x + at,
         s.inner,
         edge ? job.op.w + outer * (s.n - 1) * s.inner + inner : job.op.w + signal,
         edge ? s.inner : 0,
         job.sign + signal * s.n,
         job.c + signal * s.n,
         1.0};
    y = job.op.y + at;
    state = job.states + signal;
    link = job.links + index;
    first = tile * kTile;
    r.begin = min_of(first + Index(threadIdx.x) * kEach, s.n);
    r.end = min_of(r.begin + kEach, s.n);
  }
  JAXTV_DEVICE bool some() const { return r.begin < r.end; }
  // The cut before the range.
  JAXTV_DEVICE int left() const {
    if (!some() || r.begin == 0) return 0;
    return threadIdx.x == 0 ? link->left : d.cut(r.begin - 1);
  }
  JAXTV_DEVICE bool starts(Index i) const {
    return i == 0 || (i == r.begin ? left() : d.cut(i - 1)) != 0;
  }
  JAXTV_DEVICE void scale_down() {
    if (sizeof(Compute<D>) == 8 && state->bounds.scale() >= kSolverLimit) d.factor = kSolverScale;
  }
  JAXTV_DEVICE double scale() const { return state->bounds.scale() * d.factor; }
};

enum class Flags { kNone, kSplit, kJoined };
JAXTV_DEVICE bool has_work(const State& s, Flags flags, int round) {
  if (flags == Flags::kNone) return true;
  return flags == Flags::kSplit ? s.split[round] : s.joined[round];
}

// Calls f(work) for every tile of the signals that have work.
template <class D, class F>
JAXTV_DEVICE void for_tiles(const Job<D>& job, Flags flags, int round, F f) {
  const std::int64_t count = job.s.signals() * job.tiles;
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    Work<D> work(job, i);
    if (!has_work(*work.state, flags, round)) continue;
    work.scale_down();
    f(work);
    __syncthreads();
  }
}

// The join of what all threads have, in thread 0.
template <bool kReverse, class V>
JAXTV_DEVICE V total_of(const V& mine) {
  V total;
  G::scan<kReverse>(Arena{}, mine, total);
  return total;
}

// ---- one kernel per step ----

template <class D>
__global__ void __launch_bounds__(kThreads) g_bounds(Job<D> job) {
  const std::int64_t count = job.s.signals() * job.tiles;
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const Work<D> work(job, i);
    start_cuts(work.d, work.r);
    const Bounds b = total_of<false>(bounds<Compute<D>>(work.d, work.r));
    if (threadIdx.x == 0) work.link->bounds = b;
    __syncthreads();
  }
}

// Scans one member of the links of each signal. One block per signal.
template <bool kReverse, class V, class D>
JAXTV_DEVICE V scan_links(const Job<D>& job, std::int64_t signal, V Link::* member) {
  Link* link = job.links + signal * job.tiles;
  const std::int64_t each = (job.tiles + blockDim.x - 1) / blockDim.x;
  const std::int64_t begin = min_of(threadIdx.x * each, job.tiles);
  const std::int64_t end = min_of(begin + each, job.tiles);
  const auto at = [&](std::int64_t k) -> V& {
    return link[kReverse ? begin + (end - 1 - k) : k].*member;
  };
  V sum{}, total;
  for (std::int64_t k = begin; k < end; ++k) sum = join(sum, V(at(k)));
  sum = Group<kScanThreads / kWarp>::scan<kReverse>(Arena{}, sum, total);
  for (std::int64_t k = begin; k < end; ++k) {
    const V own = at(k);
    at(k) = sum;
    sum = join(sum, own);
  }
  return total;
}

template <class D>
__global__ void __launch_bounds__(kScanThreads) g_scan_bounds(Job<D> job) {
  for (std::int64_t signal = blockIdx.x; signal < job.s.signals(); signal += gridDim.x) {
    const Bounds b = scan_links<false>(job, signal, &Link::bounds);
    if (threadIdx.x == 0) {
      State& state = job.states[signal];
      state.bounds = b;
      for (int i = 0; i <= kRounds; ++i) state.split[i] = i == 0 && !b.bad;
      for (int i = 0; i <= kTieRounds; ++i) state.joined[i] = i == 0 && !b.bad;
    }
    __syncthreads();
  }
}

// Which member of a link a scan is about (nvcc takes no pointer to member as a kernel's argument).
JAXTV_DEVICE auto member_of(const Run&) { return &Link::run; }
JAXTV_DEVICE auto member_of(const Last&) { return &Link::last; }
JAXTV_DEVICE auto member_of(const Clamp&) { return &Link::clamp; }
JAXTV_DEVICE auto member_of(const Label&) { return &Link::label; }

template <class D, class V, bool kReverse>
__global__ void __launch_bounds__(kScanThreads) g_scan(Job<D> job, Flags flags, int round) {
  for (std::int64_t signal = blockIdx.x; signal < job.s.signals(); signal += gridDim.x) {
    if (!has_work(job.states[signal], flags, round)) continue;
    scan_links<kReverse>(job, signal, member_of(V{}));
    __syncthreads();
  }
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_sums(Job<D> job, Flags flags, int round) {
  for_tiles(job, flags, round, [&](Work<D>& work) {
    const Run run = total_of<true>(sums(work.d, work.r));
    if (threadIdx.x == 0) work.link->run = run;
  });
}

template <class D, class R>
__global__ void __launch_bounds__(kThreads) g_means(Job<D> job, Flags flags, int round) {
  for_tiles(job, flags, round, [&](Work<D>& work) {
    Means<R, Index, decltype(work.d)> means(work.d, work.r);
    means.add_all();
    const Run in = G::scan<true>(Arena{}, means.begin());
    const Last last = total_of<false>(means.end(join(work.link->run, in)));
    if (threadIdx.x != 0) return;
    work.link->last = last;
    work.link->left = work.r.begin > 0 ? work.d.cut(work.r.begin - 1) : 0;
  });
}

// c that comes in from the left: the last region that starts in the tile before the thread, or
// before the tile.
template <class D>
JAXTV_DEVICE double left_value(const Work<D>& work) {
  Last last;
  for (Index i = work.r.end - 1; i >= work.r.begin && !last.has; --i)
    if (work.starts(i)) last = {work.d.c[i], 1};
  const Last in = G::scan<false>(Arena{}, last);
  return join(Last(work.link->last), in).c;
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_compose(Job<D> job, Flags flags, int round) {
  for_tiles(job, flags, round, [&](Work<D>& work) {
    const Clamp f = total_of<false>(compose(work.d, work.r, left_value(work), work.left()));
    if (threadIdx.x == 0) work.link->clamp = f;
  });
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_labels(Job<D> job, Flags flags, int round) {
  for_tiles(job, flags, round, [&](Work<D>& work) {
    const double c = left_value(work);
    const int left = work.left();
    Clamp in = G::scan<false>(Arena{}, compose(work.d, work.r, c, left));
    in = join(Clamp(work.link->clamp), in);
    __syncthreads();
    const Label label = total_of<true>(labels(work.d, work.r, c, left, in.lo));
    if (threadIdx.x == 0) work.link->label = label;
  });
}

// Also the sums of the next round.
template <class D>
__global__ void __launch_bounds__(kThreads) g_fill(Job<D> job, int round, bool last) {
  for_tiles(job, Flags::kSplit, round, [&](Work<D>& work) {
    Label first;
    for (Index i = work.r.end - 1; i >= work.r.begin; --i) {
      const int code = (int(work.d.sign[i]) + 1) >> 2;
      if (code != kCopyRight) first.code = code;
    }
    Label z = G::scan<true>(Arena{}, first);
    z = join(Label(work.link->label), z);
    signed char* mark = job.mark + (work.d.sign - job.sign);
    Run run = no_run(work.d, work.r);
    const bool cut = fill(work.d, work.r, z.code, [&](Index i, int cut, bool is_new) {
      if (last) mark[i] = static_cast<signed char>(is_new ? cut + kNew : cut);
      extend(work.d, i, cut, run);
    });
    if (cut) work.state->split[round + 1] = 1;
    run = total_of<true>(run);
    if (threadIdx.x == 0) work.link->run = run;
  });
}

// ---- the regions that the last round made ----
// A region belongs to the new cut at its left end, or else to that at its right end. Short ones are
// finished by a thread each, then the others by a block each.

constexpr int kShort = 64;
constexpr Index kFar = -2;

// The first edge from e on, in steps of `direction`, that has a mark; -1 or n - 1 when none has;
// kFar when more than kShort edges have none.
template <class D>
JAXTV_DEVICE Index near_mark(const D& d, const signed char* mark, Index e, int direction) {
  for (int k = 0; k < kShort; ++k, e += direction)
    if (e < 0 || e + 1 >= d.n || mark[e] != 0) return e;
  return kFar;
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_finish_short(Job<D> job, int rounds) {
  for_tiles(job, Flags::kSplit, rounds, [&](Work<D>& work) {
    const auto& d = work.d;
    const signed char* mark = job.mark + (d.sign - job.sign);
    const auto finish = [&](Index a, Index b) {
      refine(a, b + 1, d.n, Samples{d}, Bars{d}, d.sign);
    };
    for (Index e = work.r.begin; e < work.r.end; ++e) {
      if (!is_new_mark(mark[e])) continue;
      const Index right = near_mark(d, mark, e + 1, 1), left = near_mark(d, mark, e - 1, -1);
      if (right != kFar) finish(e + 1, right);
      if (left != kFar && (left < 0 || !is_new_mark(mark[left]))) finish(left + 1, e);
    }
  });
}

// A signal of which a block owns the samples from `first` on: others may change the cut before.
template <class D>
struct Owned : D {
  Index first;
  int before;
  JAXTV_DEVICE Owned(const D& d, Index a, int cut) : D(d), first(a), before(cut) {}
  JAXTV_DEVICE int cut(Index e) const { return e < first ? before : D::cut(e); }
  JAXTV_DEVICE bool starts(Index i) const { return i == 0 || cut(i - 1) != 0; }
};

// near_mark by a block, however far.
template <class D>
JAXTV_DEVICE Index find_mark(const D& d, const signed char* mark, Index e, int direction) {
  for (;; e += direction * kThreads) {
    const Index mine = e + direction * Index(threadIdx.x);
    const bool stop = mine < 0 || mine + 1 >= d.n || mark[mine] != 0;
    Found total;
    G::scan<false>(Arena{}, stop ? Found{int(threadIdx.x), 0, 0} : Found{}, total);
    if (total.thread < kThreads)
      return min_of(max_of(e + direction * total.thread, Index(-1)), d.n - 1);
  }
}

template <class D>
JAXTV_DEVICE void finish(const D& d, const signed char* mark, Index a, Index b) {
  const Index each = (b - a + kThreads) / kThreads;
  const Index begin = min_of(a + Index(threadIdx.x) * each, b + 1);
  const Range<Index> r{begin, min_of(begin + each, b + 1)};
  const Owned<D> owned(d, a, a > 0 ? sign_of_mark(mark[a - 1]) : 0);
  // As many rounds as it takes: the exponent range of the data bounds them.
  double c = update<double, G>(owned, r);
  while (split<G>(owned, r, c)) {
  }
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_finish(Job<D> job, int rounds) {
  for_tiles(job, Flags::kSplit, rounds, [&](Work<D>& work) {
    const auto& d = work.d;
    const signed char* mark = job.mark + (d.sign - job.sign);
    const Index stop = min_of(work.first + kTile, d.n - 1);
    for (Index base = work.first; base < stop; base += kThreads) {
      const Index mine = base + Index(threadIdx.x);
      const bool is_new = mine < stop && is_new_mark(mark[mine]);
      const int right = is_new && near_mark(d, mark, mine + 1, 1) == kFar;
      const int left = is_new && near_mark(d, mark, mine - 1, -1) == kFar;
      const int thread = int(threadIdx.x);
      int next = -1;
      for (;;) {  // the cuts with long regions among these edges, one after the other
        Found total;
        G::scan<false>(Arena{},
                       (left | right) != 0 && thread > next ? Found{thread, left, right} : Found{},
                       total);
        next = total.thread;
        if (next == kThreads) break;
        const Index e = base + next;
        if (total.right) finish(d, mark, e + 1, find_mark(d, mark, e + 1, 1));
        if (!total.left) continue;
        const Index end = find_mark(d, mark, e - 1, -1);
        if (end < 0 || !is_new_mark(mark[end])) finish(d, mark, end + 1, e);
      }
    }
  });
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_fuse(Job<D> job, Flags flags, int round) {
  for_tiles(job, flags, round, [&](Work<D>& work) {
    const bool starts = work.some() && work.starts(work.r.begin);
    const double c = left_value(work);
    __syncthreads();
    if (fuse(work.d, work.r, c, starts, work.scale())) work.state->joined[round + 1] = 1;
  });
}

template <class D>
__global__ void __launch_bounds__(kScanThreads) g_finish_ties(Job<D> job) {
  for (std::int64_t signal = blockIdx.x; signal < job.s.signals(); signal += gridDim.x) {
    Work<D> work(job, signal * job.tiles);
    if (!work.state->joined[kTieRounds] || threadIdx.x != 0) continue;
    work.scale_down();
    while (fuse_ties(work.d.n, Samples{work.d}, Bars{work.d}, work.d.sign, work.scale())) {
    }
  }
}

template <class D>
__global__ void __launch_bounds__(kThreads) g_spread(Job<D> job) {
  for_tiles(job, Flags::kNone, 0, [&](Work<D>& work) {
    if (work.state->bounds.bad) {
      for (Index i = work.r.begin; i < work.r.end; ++i)
        work.y[i * work.d.stride] = kNaN<Compute<D>>;
      return;
    }
    spread<Compute<D>>(work.d, work.r, left_value(work), work.y);
  });
}

// ---- launching ----

template <class D>
struct Launcher {
  cudaStream_t stream;
  Job<D> job;
  Status bad = nullptr;

  template <class K, class... A>
  void tiles(const char* name, K kernel, A... args) {
    if (!bad)
      bad = launch(name, kernel, job.s.signals() * job.tiles, kThreads, G::kScratch, stream, job,
                   args...);
  }
  template <class K, class... A>
  void signals(const char* name, K kernel, A... args) {
    if (!bad)
      bad = launch(name, kernel, job.s.signals(), kScanThreads,
                   Group<kScanThreads / kWarp>::kScratch, stream, job, args...);
  }

  void sums(Flags flags, int round) { tiles("g_sums", g_sums<D>, flags, round); }
  template <class R>
  void means(Flags flags, int round) {
    signals("g_scan", g_scan<D, Run, true>, flags, round);
    tiles("g_means", g_means<D, R>, flags, round);
    signals("g_scan", g_scan<D, Last, false>, flags, round);
  }
  void split(int round, bool last) {
    const Flags flags = Flags::kSplit;
    means<double>(flags, round);
    tiles("g_compose", g_compose<D>, flags, round);
    signals("g_scan", g_scan<D, Clamp, false>, flags, round);
    tiles("g_labels", g_labels<D>, flags, round);
    signals("g_scan", g_scan<D, Label, true>, flags, round);
    tiles("g_fill", g_fill<D>, round, last);
  }
  void run() {
    const int rounds = rounds_of(job.s.n);
    tiles("g_bounds", g_bounds<D>);
    signals("g_scan_bounds", g_scan_bounds<D>);
    sums(Flags::kSplit, 0);
    for (int round = 0; round < rounds; ++round) split(round, round + 1 == rounds);
    tiles("g_finish_short", g_finish_short<D>, rounds);
    tiles("g_finish", g_finish<D>, rounds);
    for (int round = 0; round < kTieRounds; ++round) {
      sums(Flags::kJoined, round);
      means<double>(Flags::kJoined, round);
      tiles("g_fuse", g_fuse<D>, Flags::kJoined, round);
    }
    signals("g_finish_ties", g_finish_ties<D>);
    sums(Flags::kNone, 0);
    means<Compute<D>>(Flags::kNone, 0);
    tiles("g_spread", g_spread<D>);
  }
};

}  // namespace

std::int64_t grid_bytes(std::int64_t n) {
  return 10 * n + tiles_of(n) * std::int64_t(sizeof(Link)) + std::int64_t(sizeof(State));
}

template <class D>
Status prox_grid(cudaStream_t stream, const Shape& s, const Prox<D>& op, void* workspace) {
  const std::int64_t signals = s.signals(), tiles = tiles_of(s.n);
  double* c = static_cast<double*>(workspace);
  State* states = reinterpret_cast<State*>(c + signals * s.n);
  Link* links = reinterpret_cast<Link*>(states + signals);
  signed char* sign = reinterpret_cast<signed char*>(links + signals * tiles);
  Launcher<D> launcher{stream, {s, op, tiles, c, states, links, sign, sign + signals * s.n}};
  launcher.run();
  return launcher.bad;
}

#define JAXTV_INSTANTIATE(D) \
  template Status prox_grid(cudaStream_t, const Shape&, const Prox<D>&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
