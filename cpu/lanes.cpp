// Kernels across vector lanes, one signal per lane. Compiled once per instruction set (JAXTV_ISA
// names it, JAXTV_VECTOR_BYTES is its register width) with GCC/Clang vector extensions. Nothing
// with external linkage that another unit could also emit is used here: the linker must not mix
// instruction sets.
#include <cstring>
#include <type_traits>
#include <utility>

#include "sweep.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kBytes = JAXTV_VECTOR_BYTES;
#define JAXTV_UNROLL _Pragma("GCC unroll 8")

template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef std::int32_t M __attribute__((vector_size(kBytes)));
  typedef float Half __attribute__((vector_size(kBytes / 2)));  // as many lanes as Double
};
template <>
struct Vectors<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef std::int64_t M __attribute__((vector_size(kBytes)));
  typedef V Half;
};
typedef Vectors<double>::V Double;
typedef Vectors<double>::M DoubleMask;
constexpr int kDoubleLanes = kBytes / 8;

// The kDoubleLanes elements of v as a W of wider elements. Spelled out because GCC 12 splits
// __builtin_convertvector to wider elements into halves.
template <class W, class V, std::size_t... I>
JAXTV_INLINE W widen(V v, std::index_sequence<I...>) {
  return W{v[I]...};
}
template <class W, class V>
JAXTV_INLINE W widen(V v) {
  return widen<W>(v, std::make_index_sequence<kDoubleLanes>());
}
template <class T>
JAXTV_INLINE Double load_wide(const T* a) {
  typename Vectors<T>::Half v;
  std::memcpy(&v, a, sizeof v);
  return widen<Double>(v);
}

template <class T>
constexpr int kLanes = kBytes / sizeof(T);
template <class T>
constexpr T kUnit = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);
template <class T>
constexpr T kHuge = sizeof(T) == 4 ? T(3.4e38) : T(1.79e308);
constexpr int kRounds = 64;  // then the lanes that are left go to the serial solver

template <class V>
inline V vmin(V a, V b) {
  return a < b ? a : b;
}
template <class V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}
template <class V>
inline V vabs(V a) {
  return vmax(a, -a);
}
template <class M>
inline bool any(M m) {
  std::int64_t bits[kBytes / 8], all = 0;
  std::memcpy(bits, &m, kBytes);
  for (int i = 0; i < kBytes / 8; ++i) all |= bits[i];
  return all != 0;
}

// Groups of vectors are interleaved in one loop: the passes are bound by latency, not by
// throughput.
constexpr int kMaxGroups = kBytes == 64 ? 4 : 2;

template <class T, int G>
constexpr int kWidth = G * kLanes<T>;

// Scratch of one group, structure of arrays: row k holds sample k of every lane.
template <class T, int G>
struct Group {
  static constexpr int L = kWidth<T, G>;
  std::int64_t n;
  T *x, *m, *c, *h,
      *w;  // samples, messages, values, cut signs of edge (k-1, k), weights (1 or n-1)
  bool per_edge;
  alignas(64) T shift[L], scale[L], reach[L], length[L];  // reach: max |x - shift|
  bool hard[L];  // not for the lanes: not finite, huge, a bad weight, too many rounds

  Group(std::int64_t n, bool per_edge, void* scratch) : n(n), per_edge(per_edge) {
    x = static_cast<T*>(scratch);
    m = x + n * L;
    c = m + n * L;
    h = c + n * L;
    w = h + (n + 1) * L;
  }
};

// Base offset of every lane, and the runs of lanes that lie side by side in memory.
struct Bases {
  std::int64_t at[512];
  std::int64_t stride;
  int count, runs = 0;
  std::int16_t run[513];  // run r is the lanes run[r] to run[r + 1]
  bool by_rows;           // the runs are long enough to copy row by row
  Bases(const Shape& s, std::int64_t length, std::int64_t begin, std::int64_t end)
      : stride(s.inner), count(int(end - begin)) {
    std::int64_t next = s.offset(begin, length), left = s.inner - begin % s.inner;
    const std::int64_t jump = (length - 1) * s.inner;
    for (int l = 0; l < count; ++l, ++next, --left) {  // no division per lane
      if (left == 0) {
        left = s.inner;
        next += jump;
      }
      at[l] = next;
      if (l == 0 || next != at[l - 1] + 1) run[runs++] = std::int16_t(l);
    }
    run[runs] = std::int16_t(count);
    by_rows = count >= 8 * runs;
  }
  bool contiguous() const { return runs == 1; }
};

constexpr int kBlock = 16;  // rows that are transposed together, so that they stay in L1

template <int I>
using Count = std::integral_constant<int, I>;

// f(l) for all l < count, where no two of them touch the same memory.
template <class N, class F>
JAXTV_INLINE void each(N count, F f) {
  if constexpr (std::is_same_v<N, int>) {
    _Pragma("GCC ivdep") for (int l = 0; l < count; ++l) f(l);
  } else {
    for (int l = 0; l < count; ++l) f(l);
  }
}

// Calls f(row element, memory offset, count) for every run of samples that lie side by side in
// memory and in rows of L. Whole rows and single samples have a count that the compiler knows.
template <int L, class F>
JAXTV_INLINE void for_runs(const Bases& b, std::int64_t n, F f) {
  const std::int64_t stride = b.stride;  // f may write what the compiler takes for b
  if (b.contiguous() && b.count == L) {
    for (std::int64_t k = 0, at = b.at[0]; k < n; ++k, at += stride) f(k * L, at, Count<L>{});
    return;
  }
  for (std::int64_t k0 = 0; k0 < n; k0 += kBlock) {
    const std::int64_t k1 = k0 + kBlock < n ? k0 + kBlock : n;
    if (b.by_rows) {
      for (int r = 0, runs = b.runs; r < runs; ++r) {
        const int l = b.run[r], count = b.run[r + 1] - l;
        std::int64_t at = b.at[l] + k0 * stride;
        for (std::int64_t k = k0; k < k1; ++k, at += stride) f(k * L + l, at, count);
      }
    } else {
      for (int l = 0, count = b.count; l < count; ++l) {
        std::int64_t at = b.at[l] + k0 * stride;
        for (std::int64_t k = k0; k < k1; ++k, at += stride) f(k * L + l, at, Count<1>{});
      }
    }
  }
}

// Lanes beyond the last signal repeat it.
template <int L, class T>
void repeat_last(const Bases& b, std::int64_t n, T* rows) {
  for (std::int64_t k = 0; k < n && b.count < L; ++k)
    for (int l = b.count; l < L; ++l) rows[k * L + l] = rows[k * L + b.count - 1];
}

// rows[k * L + l] = source[lane l, sample k].
template <int L, class T>
void gather(const T* source, const Bases& b, std::int64_t n, T* rows) {
  for_runs<L>(b, n, [=](std::int64_t row, std::int64_t at, auto count) {
    std::memcpy(rows + row, source + at, count * sizeof(T));
  });
  repeat_last<L>(b, n, rows);
}

// The samples of A = x - sum(minus).
template <int L, class T>
void gather_input(const Sweep<T>& s, const Bases& b, T* rows) {
  gather<L>(s.x, b, s.shape.n, rows);
  for (int j = 0; j < s.num_minus; ++j) {
    const T* minus = s.minus[j];
    for_runs<L>(b, s.shape.n, [=](std::int64_t row, std::int64_t at, auto count) {
      each(count, [=](int l) { rows[row + l] -= minus[at + l]; });
    });
  }
  repeat_last<L>(b, s.shape.n, rows);
}

// Finds lanes that need the serial solver, and moves lanes whose samples lie within a factor of two
// of each other next to zero (an exact subtraction), so that a large offset costs no accuracy.
// Returns the samples as they came, in `copy` if it changed any.
template <class T, int G>
const T* prepare(Group<T, G>& group, T* copy) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  constexpr int L = Group<T, G>::L;
  const std::int64_t n = group.n, edges = group.per_edge ? n - 1 : 1;
  bool shifted = false;
  for (int g = 0; g < G; ++g) {
    V* x = reinterpret_cast<V*>(group.x) + g;
    const V* w = reinterpret_cast<const V*>(group.w) + g;
    V low = x[0], high = x[0], infinite = {};
    for (std::int64_t k = 0; k < n; ++k) {
      low = vmin(low, x[k * G]);
      high = vmax(high, x[k * G]);
      infinite += x[k * G] - x[k * G];
    }
    M bad = {};
    for (std::int64_t e = 0; e < edges; ++e) bad |= ~(w[e * G] >= T(0));
    for (int l = 0; l < kLanes<T>; ++l) {
      const int lane = g * kLanes<T> + l;
      const T size = low[l] < -high[l] ? -low[l] : high[l];
      const bool hard = !(infinite[l] == T(0)) || bad[l] != 0 || size > kHuge<T> / (T(8) * T(n));
      const bool near =
          (low[l] > 0 && high[l] <= 2 * low[l]) || (high[l] < 0 && low[l] >= 2 * high[l]);
      group.hard[lane] = hard;
      group.shift[lane] = !hard && near ? x[0][l] : T(0);
      group.scale[lane] = size;
      const T up = high[l] - group.shift[lane], down = group.shift[lane] - low[l];
      group.reach[lane] = up > down ? up : down;
      shifted |= hard || near;
    }
  }
  if (!shifted) return group.x;
  std::memcpy(copy, group.x, n * L * sizeof(T));
  for (std::int64_t k = 0; k < n; ++k)
    for (int l = 0; l < L; ++l)
      group.x[k * L + l] = group.hard[l] ? T(0) : group.x[k * L + l] - group.shift[l];
  return copy;
}

// Threshold decomposition (see include/jaxtv/decomposition.hpp), all regions of all lanes in each
// round. The first round knows that there are no cuts yet.
template <class T, int G, bool kPerEdge>
struct Decomposition {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const std::int64_t n;
  const V *x, *w;
  V *m, *c, *h;
  V first[G];    // threshold of the leftmost region
  M changed[G];  // lanes that got a cut in this round

  explicit Decomposition(Group<T, G>& group)
      : n(group.n),
        x(rows(group.x)),
        w(rows(group.w)),
        m(rows(group.m)),
        c(rows(group.c)),
        h(rows(group.h)) {}
  static V* rows(T* a) { return reinterpret_cast<V*>(a); }
  V weight(std::int64_t e, int g) const { return w[(kPerEdge ? e * G : 0) + g]; }

  void start() {
    V sum[G] = {};
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < G; ++g) sum[g] += x[k * G + g] - x[g];
    }
    for (int g = 0; g < G; ++g) first[g] = x[g] + sum[g] / T(n);
    std::memset(static_cast<void*>(h), 0, (n + 1) * G * sizeof(V));
  }

  // The messages, from left to right; they start afresh at cuts. Returns whether any leaves its
  // bounds: if not, no label can change inside of a region.
  template <bool kFirst>
  bool forward() {
    const V zero = {};
    V message[G], threshold[G];
    M outside[G];
    JAXTV_UNROLL
    for (int g = 0; g < G; ++g) {
      outside[g] = M{};
      threshold[g] = first[g];
      m[g] = message[g] = threshold[g] - x[g];
    }
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < G; ++g) {
        const V bound = weight(k - 1, g);
        V t = vmin(vmax(message[g], -bound), bound);
        if constexpr (kFirst) {
          outside[g] |= t != message[g];
        } else {
          const V cut = h[k * G + g];
          outside[g] |= (t != message[g]) & (cut == zero);
          t = cut != zero ? cut * bound : t;
          threshold[g] = cut != zero ? c[k * G + g] : threshold[g];
        }
        m[k * G + g] = message[g] = t + (threshold[g] - x[k * G + g]);
      }
    }
    return any_of(outside);
  }
  static bool any_of(const M (&masks)[G]) {
    M all = masks[0];
    for (int g = 1; g < G; ++g) all |= masks[g];
    return any(all);
  }

  // The labels (masks), from right to left, the cuts where they change, and the thresholds of the
  // regions between the cuts.
  template <bool kFirst>
  void backward() {
    const V zero = {}, one = zero + T(1);
    const M up = (M)one, down = (M)-one;
    M label[G];
    V sum[G], count[G], right[G];
    JAXTV_UNROLL
    for (int g = 0; g < G; ++g) {
      label[g] = m[(n - 1) * G + g] < zero;
      sum[g] = x[(n - 1) * G + g];
      count[g] = one;
      right[g] = zero;
    }
    for (std::int64_t k = n - 2; k >= 0; --k) {
      JAXTV_UNROLL
      for (int g = 0; g < G; ++g) {
        const V t = m[k * G + g], bound = weight(k, g);
        V& edge = h[(k + 1) * G + g];
        const M after = label[g];
        label[g] = (t < -bound) | (after & ~(t > bound));
        M is_cut = label[g] ^ after;
        M cut = is_cut & (label[g] < 0 ? down : up);
        if constexpr (!kFirst) {
          const V old = edge;
          const M was_cut = old != zero;
          const M at_cut = t < old * bound;
          label[g] = was_cut ? at_cut : label[g];
          changed[g] |= is_cut & ~was_cut;
          cut = was_cut ? (M)old : cut;
          is_cut |= was_cut;
        } else {
          changed[g] |= is_cut;
        }
        edge = (V)cut;
        const V left = edge * bound;
        c[(k + 1) * G + g] = (sum[g] + (right[g] - left)) / count[g];  // read only where cut
        right[g] = is_cut < 0 ? left : right[g];
        sum[g] = (V)((M)sum[g] & ~is_cut) + x[k * G + g];
        count[g] = (V)((M)count[g] & ~is_cut) + one;
      }
    }
    JAXTV_UNROLL
    for (int g = 0; g < G; ++g) first[g] = (sum[g] + right[g]) / count[g];
  }

  // Returns whether there was a cut.
  template <bool kFirst>
  bool round() {
    for (int g = 0; g < G; ++g) changed[g] = M{};
    if (!forward<kFirst>()) return false;
    backward<kFirst>();
    return any_of(changed);
  }
};

template <class T, int G, bool kPerEdge>
void decompose(Group<T, G>& group) {
  Decomposition<T, G, kPerEdge> d(group);
  d.start();
  bool more = d.template round<true>();
  for (int round = 1; more && round < kRounds; ++round) more = d.template round<false>();
  for (int g = 0; g < G; ++g)
    for (int l = 0; l < kLanes<T>; ++l) group.hard[g * kLanes<T> + l] |= d.changed[g][l] != 0;
}

// Calls f(k, value) for every sample of kDoubleLanes lanes, from the last one: the mean of what
// follows it in its segment, so the segment's value at its start. In double, as values_from_cuts;
// `divide(ref, sum, count)` rounds. Returns the length of the longest segment.
template <class T, int G, bool kPerEdge, class Divide, class F>
JAXTV_INLINE Double means(const Group<T, G>& group, int lane, Divide divide, F f) {
  constexpr int L = Group<T, G>::L;
  const auto wide = [&](const T* a, std::int64_t k) { return load_wide(a + k * L + lane); };
  const Double zero = {}, one = zero + 1.0;
  const Double shift = wide(group.shift, 0), lam = wide(group.w, 0);
  Double ref = zero, sum = zero, count = zero, right = zero, longest = zero, left = zero;
  DoubleMask ends = zero == zero;
  for (std::int64_t k = group.n - 1; k >= 0; --k) {
    const Double x = wide(group.x, k) + shift, cut = wide(group.h, k);
    const Double bound = kPerEdge && k > 0 ? wide(group.w, k - 1) : lam;
    ref = ends ? x : ref;
    sum = (ends ? zero : sum) + (x - ref);
    count = (ends ? zero : count) + one;
    right = ends ? left : right;
    longest = vmax(longest, count);
    ends = cut != zero;
    left = ends ? cut * bound : zero;  // not 0 * inf
    f(k, divide(ref, sum + (right - left), count));
  }
  return longest;
}

// Values from the cuts: sums in double, the quotient in T.
template <class T, int G, bool kPerEdge>
void values(Group<T, G>& group, int lane) {
  using Half = typename Vectors<T>::Half;
  constexpr int L = Group<T, G>::L;
  const auto narrow = [](Double v) { return __builtin_convertvector(v, Half); };
  const Half length = narrow(means<T, G, kPerEdge>(
      group, lane,
      [=](Double ref, Double sum, Double count) {
        return narrow(ref) + narrow(sum) / narrow(count);
      },
      [&](std::int64_t k, Half value) {
        std::memcpy(group.c + k * L + lane, &value, sizeof value);
      }));
  std::memcpy(group.length + lane, &length, sizeof length);
}

// Spreads the values of vector g over their segments into m (the messages are read just before).
// Returns the lanes in which a decision was as close as round-off: those are certified in double.
template <class T, int G, bool kPerEdge>
typename Vectors<T>::M spread(Group<T, G>& group, int g) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const std::int64_t n = group.n;
  const V zero = {};
  const auto at = [g](T* a) { return reinterpret_cast<V*>(a) + g; };
  V *m = at(group.m), *c = at(group.c), *h = at(group.h), *w = at(group.w), *x = at(group.x);
  const V scale = *at(group.scale), shift = *at(group.shift), reach = *at(group.reach);
  const V relative = T(4) * kUnit<T> * (*at(group.length) + T(4));
  const V absolute = relative * reach;  // the messages see the shifted samples
  const V close = T(8) * kUnit<T> * scale;
  M doubt = {};
  V value = c[0], previous_weight = zero;
  for (std::int64_t k = 0; k < n; ++k) {
    const V bound = k + 1 < n ? w[(kPerEdge ? k : 0) * G] : zero;
    const V cut = h[k * G], next = h[(k + 1) * G], message = m[k * G];
    const V here = cut != zero ? c[k * G] : value;
    doubt |= (cut != zero) & (previous_weight > zero) & ((here - value) * cut <= close);
    if (k + 1 < n) doubt |= (next == zero) & (bound - vabs(message) < absolute + relative * bound);
    value = here;
    // A sample between weights 0 is its own, bit for bit.
    const V own = shift == zero ? x[k * G] : x[k * G] + shift;  // -0 + 0 would be +0
    m[k * G] = (bound == zero) & (previous_weight == zero) ? own : value;
    previous_weight = bound;
  }
  return doubt;
}

// certify of include/jaxtv/cuts.hpp on kDoubleLanes lanes, in double. With kMend it mends the cuts
// of what fails for another round: a cut without a jump of its sign is joined, an edge whose dual
// leaves its bounds is cut. `y` is scratch: the values at the starts of segments.
template <class T, int G, bool kPerEdge, bool kMend>
DoubleMask certify_round(Group<T, G>& group, int lane, DoubleMask pending, Double* y) {
  using Half = typename Vectors<T>::Half;
  constexpr int L = Group<T, G>::L;
  const auto wide = [&](const T* a, std::int64_t k) { return load_wide(a + k * L + lane); };
  const Double zero = {}, one = zero + 1.0, slack = zero + 8 * kUnit<double>;
  const Double shift = wide(group.shift, 0), scale = wide(group.scale, 0), lam = wide(group.w, 0);
  means<T, G, kPerEdge>(
      group, lane, [](Double ref, Double sum, Double count) { return ref + sum / count; },
      [=](std::int64_t k, Double value) { y[k] = value; });
  DoubleMask failed = {};
  Double value = y[0], u = zero, length = one;
  for (std::int64_t e = 0; e + 1 < group.n; ++e) {
    const Double cut = wide(group.h, e + 1), bound = kPerEdge ? wide(group.w, e) : lam;
    const Double force = cut * bound;
    const DoubleMask is_cut = cut != zero;
    const DoubleMask flat =
        pending & is_cut & (bound > zero) & ((y[e + 1] - value) * cut <= slack * scale);
    u += value - (wide(group.x, e) + shift);
    length += one;
    const Double limit = bound + slack * length * (scale + bound);
    const DoubleMask outside = pending & ~is_cut & (vabs(u) > limit);
    failed |= flat | outside;
    u = is_cut ? force : u;
    length = is_cut ? one : length;
    value = is_cut ? y[e + 1] : value;
    if constexpr (kMend) {
      const Double side = u > zero ? one : -one;
      const Double mended = outside ? side : (flat ? zero : cut);
      const Half sign = __builtin_convertvector(mended, Half);
      std::memcpy(group.h + (e + 1) * L + lane, &sign, sizeof sign);
      u = outside ? side * bound : u;
      length = outside ? one : length;
    }
  }
  return failed;
}

// Certifies the lanes of vector g that are in doubt and mends their cuts, together in double. Near
// ties, which float cannot decide, are many where samples and weights are multiples of one number
// (8 bit images). Lanes that no few rounds mend go to the serial solver.
template <class T, int G, bool kPerEdge>
void certify(Group<T, G>& group, int g, typename Vectors<T>::M doubt) {
  constexpr int kMends = 6;
  Double* y = reinterpret_cast<Double*>(group.c);  // the values have been spread
  const int begin = g * kLanes<T>, end = begin + kLanes<T>;
  bool mended = false;
  for (int lane = begin; lane < end; lane += kDoubleLanes) {
    DoubleMask pending;
    for (int l = 0; l < kDoubleLanes; ++l)
      pending[l] = doubt[lane - begin + l] != 0 && !group.hard[lane + l] ? -1 : 0;
    pending = certify_round<T, G, kPerEdge, false>(group, lane, pending, y);
    mended |= any(pending);
    for (int round = 0; round < kMends && any(pending); ++round)
      pending = certify_round<T, G, kPerEdge, true>(group, lane, pending, y);
    for (int l = 0; l < kDoubleLanes; ++l) group.hard[lane + l] |= pending[l] != 0;
  }
  if (!mended) return;
  for (int lane = begin; lane < end; lane += kDoubleLanes) values<T, G, kPerEdge>(group, lane);
  spread<T, G, kPerEdge>(group, g);
}

// Mask codes of the edges after row k of the group, whose values are in m.
template <class T, int G>
JAXTV_INLINE void row_codes(const Group<T, G>& group, std::int64_t k, int shift,
                            std::uint8_t* codes) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  typedef std::uint8_t Bytes __attribute__((vector_size(kLanes<T>)));
  const V *z = reinterpret_cast<const V*>(group.m), *w = reinterpret_cast<const V*>(group.w);
  for (int g = 0; g < G; ++g) {
    M code = M{} + 3;
    if (k + 1 < group.n) {
      const V here = z[k * G + g], next = z[(k + 1) * G + g];
      const M joined = (here == next) & (w[(group.per_edge ? k : 0) * G + g] > V{});
      code = (next > here ? M{} + 1 : (next < here ? M{} + 2 : code)) & ~joined;
    }
    const Bytes bytes = __builtin_convertvector(code << shift, Bytes);
    std::memcpy(codes + g * kLanes<T>, &bytes, sizeof bytes);
  }
}

// Writes the results of the group, whose values are in m.
template <class T, int G>
void store(const Sweep<T>& s, const Bases& b, const Group<T, G>& group, const T* input) {
  constexpr int L = Group<T, G>::L;
  const T* z = group.m;
  T *y = s.y, *residual = s.residual;
  if (y)
    for_runs<L>(b, group.n, [=](std::int64_t row, std::int64_t at, auto count) {
      std::memcpy(y + at, z + row, count * sizeof(T));
    });
  if (residual)
    for_runs<L>(b, group.n, [=](std::int64_t row, std::int64_t at, auto count) {
      each(count, [=](int l) { residual[at + l] = input[row + l] - z[row + l]; });
    });
  if (std::uint8_t* mask = s.mask) {
    std::uint8_t* codes = reinterpret_cast<std::uint8_t*>(group.c);  // the values have been spread
    for (std::int64_t k = 0; k < group.n; ++k) row_codes(group, k, s.shift, codes + k * L);
    for_runs<L>(b, group.n, [=](std::int64_t row, std::int64_t at, auto count) {
      each(count, [=](int l) { mask[at + l] |= codes[row + l]; });
    });
  }
}

template <class T, int G, bool kPerEdge>
void prox_group(const Sweep<T>& s, std::int64_t begin, std::int64_t end, void* scratch) {
  constexpr int L = kWidth<T, G>;
  const std::int64_t n = s.shape.n;
  Group<T, G> group(n, kPerEdge, scratch);
  const Bases b(s.shape, n, begin, end);
  gather_input<L>(s, b, group.x);
  gather<L>(s.w.data, Bases(s.shape, s.w.pitch(n), begin, end), s.w.length(n), group.w);

  const T* input = prepare(group, group.w + (kPerEdge && n > 1 ? n - 1 : 1) * L);
  decompose<T, G, kPerEdge>(group);
  for (int lane = 0; lane < L; lane += kDoubleLanes) values<T, G, kPerEdge>(group, lane);
  typename Vectors<T>::M doubt[G];
  for (int g = 0; g < G; ++g) doubt[g] = spread<T, G, kPerEdge>(group, g);
  for (int g = 0; g < G; ++g)
    if (any(doubt[g])) certify<T, G, kPerEdge>(group, g, doubt[g]);
  for (int l = 0; l < b.count; ++l) {
    if (!group.hard[l]) continue;
    for (std::int64_t k = 0; k < n; ++k) {  // its samples were taken out or shifted
      T a = s.x[b.at[l] + k * b.stride];
      for (int j = 0; j < s.num_minus; ++j) a -= s.minus[j][b.at[l] + k * b.stride];
      group.x[k * L + l] = a;
    }
    solve_lane<T>({n, L, group.x + l, group.w + l, kPerEdge, group.m + l});
  }
  store(s, b, group, input);
}

template <class T, int G>
void prox_groups(const Sweep<T>& s, std::int64_t begin, std::int64_t end, void* scratch) {
  if (s.w.per_edge)
    prox_group<T, G, true>(s, begin, end, scratch);
  else
    prox_group<T, G, false>(s, begin, end, scratch);
}

// Few interleaved vectors for long signals: the scratch should stay in the second-level cache.
template <class T>
int group_size(std::int64_t n) {
  constexpr std::int64_t kCache = 2 << 20, kPerLane = 4 * sizeof(T);  // x, m, c, h
  const auto fits = [n](int lanes) { return n * lanes * kPerLane <= kCache; };
  if (fits(kWidth<T, kMaxGroups>)) return kWidth<T, kMaxGroups>;
  if (fits(kWidth<T, 2>)) return kWidth<T, 2>;
  return kLanes<T>;
}

template <class T>
std::size_t scratch_bytes(std::int64_t n) {
  return (6 * n + 4) * group_size<T>(n) * sizeof(T);
}

template <class T>
void prox(const Sweep<T>& s, std::int64_t begin, std::int64_t end, void* scratch) {
  if (end - begin > kWidth<T, 2>)
    prox_groups<T, kMaxGroups>(s, begin, end, scratch);
  else if (end - begin > kLanes<T>)
    prox_groups<T, 2>(s, begin, end, scratch);
  else
    prox_groups<T, 1>(s, begin, end, scratch);
}

// ---- derivatives: segment means (Eq. 8 in O(n)) ----

// Signals that are done together: interleaved vectors of double, a cache line of floats.
constexpr int kPair = kBytes == 64 ? 2 : 4;
constexpr int kChunk = kPair * kDoubleLanes;

template <class T>
struct Lanes {  // one vector of kDoubleLanes signals
  using V = typename Vectors<T>::Half;
  using M = decltype(V{} == V{});
  static V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }
  static Double wide(V v) { return widen<Double>(v); }
  static V narrow(Double v) { return __builtin_convertvector(v, V); }
};

// An edge of kDoubleLanes signals: whether it lies inside a segment, and the sign of its jump.
struct Edge {
  DoubleMask joined;
  Double sign;
};
JAXTV_INLINE Double only(Double v, DoubleMask where) { return (Double)((DoubleMask)v & where); }

// Signals side by side: sample k of lane l at k * stride + l. Edges come from values and weights,
// or from a mask.
template <class T>
struct FromValues {
  const T *y, *w;
  std::int64_t stride, w_stride;
  Edge operator()(std::int64_t k, int l) const {
    using L = Lanes<T>;
    const auto a = L::load(y + k * stride + l), b = L::load(y + (k + 1) * stride + l);
    const typename L::V zero = {}, one = zero + T(1);
    return {widen<DoubleMask>((a == b) & (L::load(w + k * w_stride + l) > zero)),
            L::wide((b > a ? one : zero) - (b < a ? one : zero))};
  }
};
struct FromMask {
  const std::uint8_t* mask;
  std::int64_t stride;
  DoubleMask bits;  // of each lane's byte in a word of kDoubleLanes bytes
  FromMask(const std::uint8_t* mask, std::int64_t stride, int shift) : mask(mask), stride(stride) {
    for (int i = 0; i < kDoubleLanes; ++i)
      bits[i] = std::int64_t(std::uint64_t(3) << (8 * i + shift));
  }
  Edge operator()(std::int64_t k, int l) const {
    std::int64_t word = 0;
    std::memcpy(&word, mask + k * stride + l, kDoubleLanes);
    const DoubleMask zero = {}, low = bits & ~(bits << 1), code = (zero + word) & bits;
    const Double one = Double{} + 1.0;
    return {code == zero, only(one, code == low) - only(one, code == (bits ^ low))};
  }
};

// out = segment means of v(k, l), summed from the right in double; visit(k, l, edge, before, after)
// sees every edge k with the means on both sides. `out` may be what v reads.
template <class T, class Edges, class Value, class Visit>
inline void segment_means(std::int64_t n, std::int64_t stride, Edges edges, Value v, T* out,
                          Visit visit) {
  using L = Lanes<T>;
  const Double zero = {}, one = zero + 1.0;
  Double sum[kPair] = {}, count[kPair] = {};
  for (std::int64_t k = n - 1; k >= 0; --k) {
    JAXTV_UNROLL
    for (int g = 0; g < kPair; ++g) {
      const int l = g * kDoubleLanes;
      sum[g] += v(k, l);
      count[g] += one;
      L::store(out + k * stride + l,
               L::narrow(sum[g]) / L::narrow(count[g]));  // the mean at starts
      if (k == 0) continue;
      const DoubleMask joined = edges(k - 1, l).joined;
      sum[g] = only(sum[g], joined);
      count[g] = only(count[g], joined);
    }
  }
  Double mean[kPair];
  for (int g = 0; g < kPair; ++g) mean[g] = load_wide(out + g * kDoubleLanes);
  for (std::int64_t k = 1; k < n; ++k) {
    JAXTV_UNROLL
    for (int g = 0; g < kPair; ++g) {
      const int l = g * kDoubleLanes;
      const Edge edge = edges(k - 1, l);
      const Double before = mean[g], after = load_wide(out + k * stride + l);
      mean[g] = edge.joined ? before : after;
      L::store(out + k * stride + l, L::narrow(mean[g]));
      visit(k - 1, l, edge, before, mean[g]);
    }
  }
}

// kChunk signals: their memory, or a tile of scratch that they are copied to when they do not lie
// side by side (the contiguous axis, few channels, the last signals).
template <class T>
struct Tile {
  const Shape& shape;
  const Bases bases;
  std::int64_t first;
  bool direct;
  T* scratch;
  Tile(const Shape& shape, std::int64_t begin, std::int64_t end, void* scratch)
      : shape(shape),
        bases(shape, shape.n, begin, end),
        first(begin),
        direct(bases.contiguous() && bases.count == kChunk),
        scratch(static_cast<T*>(scratch)) {}
  std::int64_t stride() const { return direct ? shape.inner : kChunk; }
  Bases bases_of(std::int64_t length) const {
    return Bases(shape, length, first, first + bases.count);
  }
  template <class U>
  U* take(std::int64_t rows) {
    U* here = reinterpret_cast<U*>(scratch);
    scratch += (rows * kChunk * sizeof(U) + sizeof(T) - 1) / sizeof(T);
    return here;
  }
  template <class U>
  const U* read(const U* source, std::int64_t rows) {
    if (direct) return source + shape.offset(first, rows);
    U* tile = take<U>(rows);
    gather<kChunk>(source, bases_of(rows), rows, tile);
    return tile;
  }
  T* output(T* target, std::int64_t rows) {
    return direct ? target + shape.offset(first, rows) : take<T>(rows);
  }
  void flush(T* target, const T* tile, std::int64_t rows) {
    if (direct) return;
    for_runs<kChunk>(bases_of(rows), rows, [=](std::int64_t row, std::int64_t at, auto count) {
      std::memcpy(target + at, tile + row, count * sizeof(T));
    });
  }
};

template <class T>
std::size_t derivative_scratch_bytes(std::int64_t n) {
  return (6 * n + 8) * kChunk * sizeof(T);
}

// Calls f(tile, edges) for every chunk of the signals [begin, end).
template <class T, class F>
void for_tiles(const Segments<T>& s, std::int64_t begin, std::int64_t end, void* scratch, F f) {
  const std::int64_t n = s.shape.n;
  for (std::int64_t first = begin; first < end; first += kChunk) {
    Tile<T> tile(s.shape, first, first + kChunk < end ? first + kChunk : end, scratch);
    if (s.y) {
      const T* y = tile.read(s.y, n);
      const T* w = tile.read(s.w.data, s.w.length(n));
      f(tile, FromValues<T>{y, w, tile.stride(), s.w.per_edge ? tile.stride() : 0});
    } else {
      f(tile, FromMask(tile.read(s.mask, n), tile.stride(), s.shift));
    }
  }
}

template <class T>
void push(const Pushforward<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    const std::int64_t stride = tile.stride(), step = op.tw.per_edge ? stride : 0;
    const T* tx = tile.read(op.tx, n);
    const T* tw = tile.read(op.tw.data, op.tw.length(n));
    T* out = tile.output(op.out, n);
    const auto force = [&](std::int64_t e, int l) {  // s_e tw_e
      return edges(e, l).sign * load_wide(tw + e * step + l);
    };
    segment_means<T>(
        n, stride, edges,
        [&](std::int64_t k, int l) {
          Double v = load_wide(tx + k * stride + l);
          if (k + 1 < n) v += force(k, l);
          if (k > 0) v -= force(k - 1, l);
          return v;
        },
        out, [](auto...) {});
    tile.flush(op.out, out, n);
  });
}

// out = P g on a tile; g and out have sample k at k * stride and may be the same. Weight gradients
// go to gw, as in Pullback.
template <class T, class Edges>
void pull_tile(Tile<T>& tile, const Edges& edges, const T* g, T* out, std::int64_t stride, T* gw,
               bool per_edge, bool accumulate) {
  using L = Lanes<T>;
  const std::int64_t n = tile.shape.n, rows = per_edge ? n - 1 : 1, step = tile.stride();
  const T* before = accumulate ? tile.read(gw, rows) : nullptr;
  T* sums = tile.output(gw, rows);
  const auto save = [=](std::int64_t at, Double v) {
    if (before) v += load_wide(before + at);
    L::store(sums + at, L::narrow(v));
  };
  Double total[kPair] = {};
  segment_means<T>(
      n, stride, edges, [=](std::int64_t k, int l) { return load_wide(g + k * stride + l); }, out,
      [&](std::int64_t e, int l, const Edge& edge, Double left, Double right) {
        const Double term = edge.sign * (left - right);
        if (per_edge)
          save(e * step + l, term);
        else
          total[l / kDoubleLanes] += term;
      });
  if (!per_edge)
    for (int i = 0; i < kPair; ++i) save(i * kDoubleLanes, total[i]);
  tile.flush(gw, sums, rows);
}

template <class T>
void pull(const Pullback<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    const T* g = tile.read(op.g, n);
    T* gx = tile.output(op.gx, n);
    pull_tile(tile, edges, g, gx, tile.stride(), op.gw, op.per_edge, op.accumulate);
    tile.flush(op.gx, gx, n);
  });
}

template <class T>
void adjoint(const Adjoint<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    T* c = tile.template take<T>(n);
    const T* g = op.g;
    T *state = op.state, *gx = op.gx;
    for_runs<kChunk>(tile.bases, n, [=](std::int64_t row, std::int64_t at, auto count) {
      each(count, [=](int l) { c[row + l] = (g ? g[at + l] : T(0)) - state[at + l]; });
    });
    repeat_last<kChunk>(tile.bases, n, c);
    pull_tile<T>(tile, edges, c, c, kChunk, op.gw, op.per_edge, true);
    const bool swap = op.swap;
    for_runs<kChunk>(tile.bases, n, [=, &op](std::int64_t row, std::int64_t at, auto count) {
      each(count, [=](int l) {
        const T a = c[row + l] + state[at + l];
        c[row + l] = a;
        gx[at + l] += a;
        state[at + l] = swap ? T(0) - a : T(0);
      });
      for (int j = 0; j < op.num_others; ++j) {
        T* other = op.others[j];
        each(count, [=](int l) { other[at + l] -= c[row + l]; });
      }
    });
  });
}

template <class T>
constexpr LaneKernels<T> kernels() {
  return {group_size<T>, scratch_bytes<T>, prox<T>,   derivative_scratch_bytes<T>,
          push<T>,       pull<T>,          adjoint<T>};
}

}  // namespace

#define JAXTV_STRING_(s) #s
#define JAXTV_STRING(s) JAXTV_STRING_(s)
extern const Isa table;
const Isa table = {JAXTV_STRING(JAXTV_ISA), kernels<float>(), kernels<double>()};

}  // namespace jaxtv::cpu::JAXTV_ISA
