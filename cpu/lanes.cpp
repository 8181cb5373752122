// Kernels across vector lanes, one signal per lane. Compiled once per instruction set. Nothing with
// external linkage that another unit could also emit is used here: the linker must not mix
// instruction sets.
#include <cstring>
#include <type_traits>
#include <utility>

#include "jaxtv/edge_code.hpp"
#include "jaxtv/overflow.hpp"
#include "sweep.hpp"
#include "vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

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
  typedef Double V;
  typedef DoubleMask M;
  typedef Double Half;
};

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
  using M = decltype(a == a);
  return (V)((M)a & ~(M)-V{});
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
  T *x, *m, *c;  // samples, messages, values
  T* h;          // dual of edge (k-1, k) where it is cut: plus or minus its weight; else NaN
  T* w;          // weights (1 or n-1)
  bool per_edge;
  alignas(64) T shift[L], scale[L];
  bool hard[L];  // not for the lanes: not finite, huge, a bad weight, too many rounds

  Group(std::int64_t n, bool per_edge, void* scratch) : n(n), per_edge(per_edge) {
    x = static_cast<T*>(scratch);
    m = x + n * L;
    c = m + n * L;
    h = c + n * L;
    w = h + (n + 1) * L;
  }
};

// Base offset of every lane, and the runs of lanes that lie side by side in memory. Lanes beyond
// the last signal, up to `width`, repeat it.
struct Bases {
  std::int64_t at[512];
  std::int64_t stride;
  int count, runs = 0;
  std::int16_t run[513];  // run r is the lanes run[r] to run[r + 1]
  bool by_rows;           // the runs are long enough to copy row by row
  Bases(const Shape& s, std::int64_t length, std::int64_t begin, std::int64_t end, int width)
      : stride(s.inner), count(int(end - begin)) {
    std::int64_t next = s.offset(begin, length);
    const auto add = [&](int l) {
      if (l == 0 || next != at[l - 1] + 1) run[runs++] = std::int16_t(l);
      at[l] = next;
    };
    if (s.inner == 1) {
      for (int l = 0; l < count; ++l, next += length) add(l);
    } else {
      std::int64_t left = s.inner - begin % s.inner;
      for (int l = 0; l < count; ++l, ++next) {  // no division per lane
        add(l);
        if (--left > 0) continue;
        left = s.inner;
        next += (length - 1) * s.inner;
      }
    }
    run[runs] = std::int16_t(count);
    by_rows = count >= 8 * runs;
    for (int l = count; l < width; ++l) at[l] = at[count - 1];
  }
  bool contiguous() const { return runs == 1; }
};

constexpr std::size_t kAlign = 64;
constexpr int kBlock = 16;  // rows that are transposed together, so that they stay in L1

// Signals that are contiguous in memory are transposed in registers, in quads: 16 bytes of a
// signal.
template <class T>
constexpr int kQuad = 16 / sizeof(T);
constexpr int kQuads = kBytes / 16;

// The elements I of a followed by b.
template <class V, std::size_t... I>
JAXTV_INLINE auto pick(V a, V b, std::index_sequence<I...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, I...);
#else
  typedef decltype(a[0] + a[0]) T;
  typedef T W __attribute__((vector_size(sizeof...(I) * sizeof(T))));
  constexpr std::size_t n = sizeof(V) / sizeof(T);
  return W{(I < n ? a[I % n] : b[I % n])...};
#endif
}
template <class V>
JAXTV_INLINE auto join(V a, V b) {
  return pick(a, b, std::make_index_sequence<2 * sizeof(V) / sizeof(a[0])>());
}

// The low or high halves of every quad of a and b, interleaved.
template <class T, bool kHigh, class V, std::size_t... I>
JAXTV_INLINE V interleave(V a, V b, std::index_sequence<I...>) {
  constexpr std::size_t q = kQuad<T>, n = sizeof(V) / sizeof(T);
  return pick(a, b,
              std::index_sequence<(I % 2 * n + I / q * q + (kHigh ? q / 2 : 0) + I % q / 2)...>());
}
template <class T, bool kHigh, class V>
JAXTV_INLINE V interleave(V a, V b) {
  return interleave<T, kHigh>(a, b, std::make_index_sequence<sizeof(V) / sizeof(T)>());
}

// Transposes the quads of v: element r of quad j of v[i] changes places with element i of v[r].
JAXTV_INLINE void transpose_quads(Vectors<double>::V (&v)[2]) {
  const auto low = interleave<double, false>(v[0], v[1]);
  v[1] = interleave<double, true>(v[0], v[1]);
  v[0] = low;
}
JAXTV_INLINE void transpose_quads(Vectors<float>::V (&v)[4]) {
  using V = Vectors<float>::V;
  for (int i = 0; i < 2; ++i) {
    // Rows 0, 1, then 2, 3: pairs of floats, which move like doubles from here on.
    const V low = interleave<float, false>(v[2 * i], v[2 * i + 1]);
    v[2 * i + 1] = interleave<float, true>(v[2 * i], v[2 * i + 1]);
    v[2 * i] = low;
  }
  Double a[2] = {(Double)v[0], (Double)v[2]}, b[2] = {(Double)v[1], (Double)v[3]};
  transpose_quads(a);
  transpose_quads(b);
  v[0] = (V)a[0], v[1] = (V)a[1], v[2] = (V)b[0], v[3] = (V)b[1];
}

// A vector of quads: quad j lies at source + at[j * kQuad].
template <class T>
struct Quads {
  using V = typename Vectors<T>::V;
  typedef T Q __attribute__((vector_size(16)));
  static Q load_quad(const T* p) {
    Q q;
    std::memcpy(&q, p, sizeof q);
    return q;
  }
  static auto load_pair(const T* source, const std::int64_t* at) {
    return join(load_quad(source + at[0]), load_quad(source + at[kQuad<T>]));
  }
  static V load(const T* source, const std::int64_t* at) {
    if constexpr (kQuads == 1)
      return load_quad(source + at[0]);
    else if constexpr (kQuads == 2)
      return load_pair(source, at);
    else
      return join(load_pair(source, at), load_pair(source, at + 2 * kQuad<T>));
  }
  static void store(T* target, const std::int64_t* at, V v) {
    for (int j = 0; j < kQuads; ++j)
      std::memcpy(target + at[j * kQuad<T>], reinterpret_cast<const char*>(&v) + 16 * j, 16);
  }
};

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

// Calls f(row element, memory offset, count) for every run of samples, from sample `first` on, that
// lie side by side in memory and in rows of L. Whole rows and single samples have a count that the
// compiler knows.
template <int L, class F>
JAXTV_INLINE void for_runs(const Bases& b, std::int64_t first, std::int64_t n, F f) {
  const std::int64_t stride = b.stride;  // f may write what the compiler takes for b
  if (b.contiguous() && b.count == L) {
    std::int64_t at = b.at[0] + first * stride;
    for (std::int64_t k = first; k < n; ++k, at += stride) f(k * L, at, Count<L>{});
    return;
  }
  for (std::int64_t k0 = first; k0 < n; k0 += kBlock) {
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

// Calls f(k, lane) for every kQuad rows of one vector of lanes that quads can move, and returns how
// many samples of every lane that are.
template <int L, class T, class F>
JAXTV_INLINE std::int64_t for_quads(const Bases& b, std::int64_t n, F f) {
  if (b.stride != 1 || b.by_rows) return 0;
  const std::int64_t end = n / kQuad<T> * kQuad<T>;
  for (std::int64_t k = 0; k < end; k += kQuad<T>)
    for (int l = 0; l < L; l += kLanes<T>) f(k, l);
  return end;
}

// Lanes beyond the last signal repeat it, from sample `first` on.
template <int L, class T>
void repeat_last(const Bases& b, std::int64_t first, std::int64_t n, T* rows) {
  for (std::int64_t k = first; k < n && b.count < L; ++k)
    for (int l = b.count; l < L; ++l) rows[k * L + l] = rows[k * L + b.count - 1];
}

// op(row element or vector, value) for rows[k * L + l] and the sample k of lane l of source.
template <int L, class T, class Op>
void gather(const T* source, const Bases& b, std::int64_t n, T* rows, Op op) {
  using V = typename Vectors<T>::V;
  const std::int64_t done = for_quads<L, T>(b, n, [&](std::int64_t k, int l) {
    V v[kQuad<T>];
    for (int i = 0; i < kQuad<T>; ++i) v[i] = Quads<T>::load(source + k, b.at + l + i);
    transpose_quads(v);
    for (int i = 0; i < kQuad<T>; ++i) op(*reinterpret_cast<V*>(rows + (k + i) * L + l), v[i]);
  });
  for_runs<L>(b, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    each(count, [=](int l) { op(rows[row + l], source[at + l]); });
  });
  repeat_last<L>(b, done, n, rows);
}
template <int L, class T>
void gather(const T* source, const Bases& b, std::int64_t n, T* rows) {
  gather<L>(source, b, n, rows, [](auto& row, auto value) { row = value; });
}

// Where in memory samples lie: a vector of quads, one of samples side by side, or one sample.
template <class T>
struct QuadPlace {
  std::int64_t k;
  const std::int64_t* at;
  auto load(const T* p) const { return Quads<T>::load(p + k, at); }
  void store(T* p, typename Vectors<T>::V v) const { Quads<T>::store(p + k, at, v); }
};
template <class T, class V>
struct Place {
  std::int64_t at;
  V load(const T* p) const {
    V v;
    std::memcpy(&v, p + at, sizeof v);
    return v;
  }
  void store(T* p, V v) const { std::memcpy(p + at, &v, sizeof v); }
};

// f(value or vector of them, its place) for rows[k * L + l], whose place is sample k of lane l.
// With kRepeats also for lanes that repeat the last signal, so for places that it has seen.
template <int L, bool kRepeats, class T, class F>
void for_places(const T* rows, const Bases& b, std::int64_t n, F f) {
  using V = typename Vectors<T>::V;
  const std::int64_t most = kRepeats || b.count == L ? n : 0;
  const std::int64_t done = for_quads<L, T>(b, most, [&](std::int64_t k, int l) {
    V v[kQuad<T>];
    for (int i = 0; i < kQuad<T>; ++i) v[i] = *reinterpret_cast<const V*>(rows + (k + i) * L + l);
    transpose_quads(v);
    for (int i = 0; i < kQuad<T>; ++i) f(v[i], QuadPlace<T>{k, b.at + l + i});
  });
  for_runs<L>(b, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    if constexpr (std::is_same_v<decltype(count), Count<L>>)
      for (int l = 0; l < L; l += kLanes<T>)
        f(*reinterpret_cast<const V*>(rows + row + l), Place<T, V>{at + l});
    else
      each(count, [=](int l) { f(rows[row + l], Place<T, T>{at + l}); });
  });
}

// The inverse of gather.
template <int L, class T>
void scatter(const T* rows, const Bases& b, std::int64_t n, T* target) {
  for_places<L, true>(rows, b, n, [=](auto value, auto place) { place.store(target, value); });
}

// Mask codes, a byte a sample, by squares of 16 bytes.
constexpr int kSquare = 16;
typedef std::uint8_t Codes __attribute__((vector_size(kSquare)));

JAXTV_INLINE void transpose_codes(Codes (&v)[kSquare]) {
  for (int step = 1; step < kSquare; step *= 2) {
    Codes shuffled[kSquare];
    for (int i = 0; i < kSquare / 2; ++i) {
      shuffled[2 * i] = interleave<std::uint8_t, false>(v[i], v[i + kSquare / 2]);
      shuffled[2 * i + 1] = interleave<std::uint8_t, true>(v[i], v[i + kSquare / 2]);
    }
    for (int i = 0; i < kSquare; ++i) v[i] = shuffled[i];
  }
}

// Calls f(k, lane) for squares of kSquare rows that cover all of them, and returns n; 0 where the
// samples of a signal do not lie side by side or are fewer. Squares may overlap.
template <int L, class F>
JAXTV_INLINE std::int64_t for_squares(const Bases& b, std::int64_t n, F f) {
  if (b.stride != 1 || b.by_rows || n < kSquare) return 0;
  for (std::int64_t end = kSquare;; end = end + kSquare < n ? end + kSquare : n) {
    for (int l = 0; l < L; l += kSquare) f(end - kSquare, l);
    if (end == n) return n;
  }
}

template <int L>
void gather(const std::uint8_t* source, const Bases& b, std::int64_t n, std::uint8_t* rows) {
  constexpr int kWide = L < kSquare ? L : kSquare;
  const std::int64_t done = for_squares<L>(b, n, [&](std::int64_t k, int l) {
    Codes v[kSquare] = {};
    for (int i = 0; i < kWide; ++i) std::memcpy(&v[i], source + b.at[l + i] + k, kSquare);
    transpose_codes(v);
    for (int i = 0; i < kSquare; ++i) std::memcpy(rows + (k + i) * L + l, &v[i], kWide);
  });
  for_runs<L>(b, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    std::memcpy(rows + row, source + at, count);
  });
  repeat_last<L>(b, done, n, rows);
}

// mask |= rows.
template <int L>
void add_codes(const std::uint8_t* rows, const Bases& b, std::int64_t n, std::uint8_t* mask) {
  constexpr int kWide = L < kSquare ? L : kSquare;
  const std::int64_t done = for_squares<L>(b, n, [&](std::int64_t k, int l) {
    Codes v[kSquare] = {};
    for (int i = 0; i < kSquare; ++i) std::memcpy(&v[i], rows + (k + i) * L + l, kWide);
    transpose_codes(v);
    for (int i = 0; i < kWide; ++i) {
      const Place<std::uint8_t, Codes> place{b.at[l + i] + k};
      place.store(mask, place.load(mask) | v[i]);
    }
  });
  for_runs<L>(b, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    each(count, [=](int l) { mask[at + l] |= rows[row + l]; });
  });
}

// Finds lanes that need the serial solver, and moves lanes whose samples lie within a factor of two
// of each other next to zero (an exact subtraction), so that a large offset costs no accuracy.
// Returns the samples as they came, in `copy` if it changed any.
template <class T, int G>
T* prepare(Group<T, G>& group, T* copy) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  constexpr int L = Group<T, G>::L;
  const std::int64_t n = group.n, edges = group.per_edge ? n - 1 : 1;
  const T largest = simd_limit<T>(n);
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
      const bool hard = !(infinite[l] == T(0)) || bad[l] != 0 || size > largest;
      const bool near =
          (low[l] > 0 && high[l] <= 2 * low[l]) || (high[l] < 0 && low[l] >= 2 * high[l]);
      group.hard[lane] = hard;
      group.shift[lane] = !hard && near ? x[0][l] : T(0);
      group.scale[lane] = size;
      shifted |= hard || near;
    }
  }
  if (!shifted) return group.x;
  std::memcpy(copy, group.x, n * L * sizeof(T));
  for (std::int64_t k = 0; k < n; ++k)
    for (int l = 0; l < L; ++l) {
      const T x = group.x[k * L + l], shift = group.shift[l];
      const T moved = shift == T(0) ? x : x - shift;  // denormal x - 0 would be 0
      group.x[k * L + l] = group.hard[l] ? T(0) : moved;
    }
  return copy;
}

// Where v is not a number, as a dual is inside of a segment.
template <class V>
inline auto inside_of(V v) {
  return v != v;
}
// v with the sign of `sign` taken for a factor of it.
template <class V>
inline V times_sign(V v, V sign) {
  using M = decltype(v == v);
  return (V)((M)v ^ ((M)sign & (M)-V{}));
}
// mask ? v : 0. Like `mask < 0 ? a : b` it takes the bits of a mask as they are: compilers compare
// a mask that they do not see made with 0 again.
template <class V, class M>
inline V keep(M mask, V v) {
  return (V)((M)v & mask);
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
  V uniform[G];  // the weight of all edges
  V first[G];    // threshold of the leftmost region
  M changed[G];  // lanes that got a cut in this round

  explicit Decomposition(Group<T, G>& group)
      : n(group.n),
        x(rows(group.x)),
        w(rows(group.w)),
        m(rows(group.m)),
        c(rows(group.c)),
        h(rows(group.h)) {
    for (int g = 0; g < G; ++g) uniform[g] = w[g];
  }
  static V* rows(T* a) { return reinterpret_cast<V*>(a); }
  V weight(std::int64_t e, int g) const { return kPerEdge ? w[e * G + g] : uniform[g]; }

  void start() {
    V sum[G] = {};
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < G; ++g) sum[g] += x[k * G + g] - x[g];
    }
    for (int g = 0; g < G; ++g) {
      first[g] = x[g] + sum[g] / T(n);
      h[g] = h[n * G + g] = V{};  // the ends of the signal are cuts without a force
    }
  }

  // The messages, from left to right; they start afresh at cuts. Returns whether one left its
  // bounds: where none does, all regions are segments.
  template <bool kFirst>
  bool forward() {
    V message[G], threshold[G];
    M clamped[G];
    JAXTV_UNROLL
    for (int g = 0; g < G; ++g) {
      threshold[g] = first[g];
      m[g] = message[g] = threshold[g] - x[g];
      clamped[g] = M{};
    }
    for (std::int64_t k = 1; k < n; ++k) {
      JAXTV_UNROLL
      for (int g = 0; g < G; ++g) {
        const V bound = weight(k - 1, g);
        V t = vmin(vmax(message[g], -bound), bound);
        if constexpr (!kFirst) {
          const V force = h[k * G + g];
          const M inside = inside_of(force);
          clamped[g] |= (t != message[g]) & inside;
          t = inside < 0 ? t : force;
          threshold[g] = inside < 0 ? threshold[g] : c[k * G + g];
        }
        m[k * G + g] = message[g] = t + (threshold[g] - x[k * G + g]);
      }
    }
    return kFirst || any_of(clamped);
  }

  // The labels (masks), from right to left, the cuts where they change, and the thresholds of the
  // regions between the cuts.
  template <bool kFirst>
  void backward() {
    const V zero = {}, one = zero + T(1);
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
        M inside = label[g] == after;
        V force = label[g] < 0 ? -bound : bound;
        force = (V)((M)force | inside);  // all bits set are not a number
        M was_inside = ~M{};
        if constexpr (!kFirst) {
          const V old = edge;
          was_inside = inside_of(old);
          label[g] = (label[g] & was_inside) | (t < old);
          force = was_inside < 0 ? force : old;
          inside &= was_inside;
        }
        changed[g] |= inside ^ was_inside;
        edge = force;
        c[(k + 1) * G + g] = (sum[g] + (right[g] - force)) / count[g];  // read only where cut
        right[g] = inside < 0 ? right[g] : force;
        sum[g] = keep(inside, sum[g]) + x[k * G + g];
        count[g] = keep(inside, count[g]) + one;
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
  // An edge of weight 0 joins nothing. Where one λ is 0, own_samples does it.
  void cut_weightless() {
    for (std::int64_t e = 0; kPerEdge && e + 1 < n; ++e)
      for (int g = 0; g < G; ++g) {
        V& edge = h[(e + 1) * G + g];
        edge = weight(e, g) == V{} ? V{} : edge;
      }
  }
  static bool any_of(const M (&masks)[G]) {
    M all = masks[0];
    for (int g = 1; g < G; ++g) all |= masks[g];
    return any(all);
  }
};

template <class T, int G, bool kPerEdge>
void decompose(Group<T, G>& group) {
  Decomposition<T, G, kPerEdge> d(group);
  d.start();
  bool more = d.template round<true>();
  for (int round = 1; more && round < kRounds; ++round) more = d.template round<false>();
  d.cut_weightless();
  for (int g = 0; g < G; ++g)
    for (int l = 0; l < kLanes<T>; ++l) group.hard[g * kLanes<T> + l] |= d.changed[g][l] != 0;
}

// Calls f(k, value) for every sample of kDoubleLanes lanes, from the last one: the mean of what
// follows it in its segment, so the segment's value at its start. In double, as values_from_cuts;
// `divide(ref, sum, count)` rounds.
template <class T, int G, class Divide, class F>
JAXTV_INLINE void means(const Group<T, G>& group, int lane, Divide divide, F f) {
  const auto wide = [&](const T* a, std::int64_t k) {
    return load_wide(a + k * Group<T, G>::L + lane);
  };
  const Double zero = {}, one = zero + 1.0, shift = wide(group.shift, 0);
  Double ref = zero, sum = zero, count = zero, right = zero;
  Double next = zero;  // dual of the edge to the right of k, where that is cut
  for (std::int64_t k = group.n - 1; k >= 0; --k) {
    const Double x = wide(group.x, k) + shift;
    const DoubleMask inside = inside_of(next);
    ref = inside ? ref : x;
    sum = keep(inside, sum) + (x - ref);
    count = keep(inside, count) + one;
    right = inside ? right : next;
    next = wide(group.h, k);
    f(k, divide(ref, sum + (right - next), count));
  }
}

// Values from the cuts: sums in double, the quotient in T.
template <class T, int G>
void values(Group<T, G>& group, int lane) {
  using Half = typename Vectors<T>::Half;
  const auto narrow = [](Double v) { return __builtin_convertvector(v, Half); };
  const auto divide = [=](Double ref, Double sum, Double count) {
    return narrow(ref) + narrow(sum) / narrow(count);
  };
  means(group, lane, divide, [&](std::int64_t k, Half value) {
    std::memcpy(group.c + k * Group<T, G>::L + lane, &value, sizeof value);
  });
}

// Spreads the values of vector g over their segments into m (the messages are read just before).
// Returns the lanes in which a decision was as close as round-off, to be certified in double; c
// gets a mask of the samples whose segments that concerns.
//
// A message of a segment is off by that of the threshold, once for every sample up to it, and by
// its own rounding, 3 units of the weights in sum: a step is a difference of duals. At the end of
// the segment the message would be the dual there, so what it is off there bounds the former.
template <class T, int G, bool kPerEdge>
typename Vectors<T>::M spread(Group<T, G>& group, int g) {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  const std::int64_t n = group.n;
  const V zero = {}, huge = zero + T(3e38), margin = zero + T(4) * kUnit<T>;
  const auto at = [g](T* a) { return reinterpret_cast<V*>(a) + g; };
  V *m = at(group.m), *c = at(group.c), *h = at(group.h), *w = at(group.w);
  const V close = T(8) * kUnit<T> * *at(group.scale);
  const auto weight = [&](std::int64_t e) { return w[(kPerEdge ? e : 0) * G]; };
  M doubt = {}, inside = ~M{};
  V value = c[0], force = {};
  V room = huge, total = zero;  // of the segment: least distance to a bound, sum of its bounds
  for (std::int64_t k = 0; k < n; ++k) {
    const V here = inside < 0 ? value : c[k * G];
    M narrow = ~inside & (times_sign(here - value, force) <= close);
    if (kPerEdge && k > 0) narrow &= weight(k - 1) > zero;
    const V message = m[k * G];
    m[k * G] = value = here;
    force = h[(k + 1) * G];
    const M closely = narrow | (room < vabs(message - force) + margin * total);  // NaN: inside
    c[k * G] = (V)closely;
    doubt |= closely;
    if (k + 1 == n) break;
    const V bound = weight(k);
    inside = inside_of(force);
    room = inside < 0 ? vmin(room, bound - vabs(message)) : huge;
    total = keep(inside, total) + bound;
  }
  if (!kPerEdge) doubt &= weight(0) > zero;
  return doubt;
}

// A sample between weights 0 is its own, bit for bit.
template <class T, int G, bool kPerEdge>
void own_samples(Group<T, G>& group, int g) {
  using V = typename Vectors<T>::V;
  const std::int64_t n = group.n;
  const V zero = {};
  const auto at = [g](T* a) { return reinterpret_cast<V*>(a) + g; };
  V *m = at(group.m), *w = at(group.w), *x = at(group.x);
  const V shift = *at(group.shift);
  if (!kPerEdge && n > 1 && !any(w[0] == zero)) return;
  V before = zero;
  for (std::int64_t k = 0; k < n; ++k) {
    const V after = k + 1 < n ? w[(kPerEdge ? k : 0) * G] : zero;
    const V own = shift == zero ? x[k * G] : x[k * G] + shift;  // -0 + 0 would be +0
    m[k * G] = (before == zero) & (after == zero) ? own : m[k * G];
    before = after;
  }
}

// certify of include/jaxtv/cuts.hpp on kDoubleLanes lanes, in double. Mends the cuts of what fails
// for another round: a cut without a jump of its sign is joined, an edge whose dual leaves its
// bounds is cut. `y` is scratch: the values at the starts of segments.
template <class T, int G, bool kPerEdge>
DoubleMask mend(Group<T, G>& group, int lane, DoubleMask pending, Double* y) {
  using Half = typename Vectors<T>::Half;
  constexpr int L = Group<T, G>::L;
  const auto wide = [&](const T* a, std::int64_t k) { return load_wide(a + k * L + lane); };
  const Double zero = {}, one = zero + 1.0, slack = zero + 8 * kUnit<double>;
  const Double none = (Double)(zero == zero);
  const Double shift = wide(group.shift, 0), scale = wide(group.scale, 0);
  means(
      group, lane, [](Double ref, Double sum, Double count) { return ref + sum / count; },
      [=](std::int64_t k, Double value) { y[k] = value; });
  DoubleMask failed = {};
  Double value = y[0], u = zero, length = one;
  for (std::int64_t e = 0; e + 1 < group.n; ++e) {
    const Double force = wide(group.h, e + 1), bound = wide(group.w, kPerEdge ? e : 0);
    const DoubleMask is_cut = force == force;
    const DoubleMask flat =
        pending & is_cut & (bound > zero) & (times_sign(y[e + 1] - value, force) <= slack * scale);
    u += value - (wide(group.x, e) + shift);
    length += one;
    const Double limit = bound + slack * length * (scale + bound);
    const DoubleMask outside = pending & ~is_cut & (vabs(u) > limit);
    failed |= flat | outside;
    const Double side = u > zero ? bound : -bound;
    u = outside ? side : (is_cut ? force : u);
    length = is_cut | outside ? one : length;
    value = is_cut ? y[e + 1] : value;
    const Half mended = __builtin_convertvector(outside ? side : (flat ? none : force), Half);
    std::memcpy(group.h + (e + 1) * L + lane, &mended, sizeof mended);
  }
  return failed;
}

// One lane of a group, in double.
template <class T, int G, bool kPerEdge>
struct Lane {
  static constexpr int L = Group<T, G>::L;
  static constexpr double kSlack = 8 * kUnit<double>;
  struct Segment {
    std::int64_t begin, end;
    double value;
  };
  const Group<T, G>& group;
  const int lane;

  double sample(std::int64_t k) const {
    return double(group.x[k * L + lane]) + double(group.shift[lane]);
  }
  double force(std::int64_t k) const { return double(group.h[k * L + lane]); }
  double weight(std::int64_t e) const { return double(group.w[(kPerEdge ? e : 0) * L + lane]); }

  Segment segment_of(std::int64_t k) const {
    std::int64_t begin = k, end = k + 1;
    while (inside_of(force(begin))) --begin;
    while (inside_of(force(end))) ++end;
    const double ref = sample(end - 1);
    double sum = 0;
    for (std::int64_t i = end - 1; i >= begin; --i) sum += sample(i) - ref;
    sum += force(end) - force(begin);
    return {begin, end, ref + sum / double(end - begin)};
  }

  // certify of include/jaxtv/cuts.hpp for the segment of sample k and the jump before it.
  bool certified(std::int64_t k) const {
    const Segment s = segment_of(k);
    const double scale = double(group.scale[lane]);
    double u = force(s.begin), length = 1;
    for (std::int64_t e = s.begin; e + 1 < s.end; ++e) {
      u += s.value - sample(e);
      length += 1;
      if (abs_of(u) > weight(e) + kSlack * length * (scale + weight(e))) return false;
    }
    if (s.begin == 0 || !(weight(s.begin - 1) > 0)) return true;
    const double jump = s.value - segment_of(s.begin - 1).value;
    return (force(s.begin) < 0 ? -jump : jump) > kSlack * scale;
  }
};

// Of the lanes of vector g that are in doubt, those with a segment that double does not certify.
template <class T, int G, bool kPerEdge>
typename Vectors<T>::M uncertified(const Group<T, G>& group, int g, typename Vectors<T>::M doubt) {
  using M = typename Vectors<T>::M;
  const M* close = reinterpret_cast<const M*>(group.c) + g;  // from spread
  M failed = {};
  if (!any(doubt)) return failed;
  for (std::int64_t k = 0; k < group.n; ++k) {
    const M here = close[k * G] & doubt & ~failed;
    if (!any(here)) continue;
    for (int l = 0; l < kLanes<T>; ++l) {
      const int lane = g * kLanes<T> + l;
      if (here[l] && !group.hard[lane] && !Lane<T, G, kPerEdge>{group, lane}.certified(k))
        failed[l] = -1;
    }
  }
  return failed;
}

// Mends the cuts of lanes of vector g that are not certified, together in double. Near ties, which
// float cannot decide, are many where samples and weights are multiples of one number (8 bit
// images). Lanes that no few rounds mend go to the serial solver.
template <class T, int G, bool kPerEdge>
void mend_lanes(Group<T, G>& group, int g, typename Vectors<T>::M failed) {
  constexpr int kMends = 6;
  Double* y = reinterpret_cast<Double*>(group.c);  // the values have been spread
  const int begin = g * kLanes<T>, end = begin + kLanes<T>;
  for (int lane = begin; lane < end; lane += kDoubleLanes) {
    DoubleMask pending;
    for (int l = 0; l < kDoubleLanes; ++l) pending[l] = failed[lane - begin + l];
    for (int round = 0; round < kMends && any(pending); ++round)
      pending = mend<T, G, kPerEdge>(group, lane, pending, y);
    for (int l = 0; l < kDoubleLanes; ++l) group.hard[lane + l] |= pending[l] != 0;
  }
  for (int lane = begin; lane < end; lane += kDoubleLanes) values(group, lane);
  spread<T, G, kPerEdge>(group, g);
}

// The low bytes of the elements of v.
template <class V, std::size_t... I>
JAXTV_INLINE auto low_bytes(V v, std::index_sequence<I...>) {
  typedef std::uint8_t Bytes __attribute__((vector_size(kBytes)));
  return pick((Bytes)v, (Bytes)v, std::index_sequence<I * sizeof(v[0])...>());
}

// Mask codes of the edges after row k of the group, whose values are in m.
template <class T, int G>
JAXTV_INLINE void row_codes(const Group<T, G>& group, std::int64_t k, int shift,
                            std::uint8_t* codes) {
  using V = typename Vectors<T>::V;
  const V *z = reinterpret_cast<const V*>(group.m), *w = reinterpret_cast<const V*>(group.w);
  for (int g = 0; g < G; ++g) {
    const V here = z[k * G + g], next = z[(k + 1) * G + g];
    const auto joined = (here == next) & (w[(group.per_edge ? k : 0) * G + g] > V{});
    constexpr int kSet[] = {kSeparate ^ kInside, kSeparate ^ kJumpUp, kSeparate ^ kJumpDown};
    const auto code =
        int(kSeparate) ^ (joined & kSet[0]) ^ ((next > here) & kSet[1]) ^ ((next < here) & kSet[2]);
    const auto bytes = low_bytes(code << shift, std::make_index_sequence<kLanes<T>>());
    std::memcpy(codes + g * kLanes<T>, &bytes, sizeof bytes);
  }
}

// Writes the results of the group, whose values are in m. `input` is what the residual is made of,
// and made in.
template <class T, int G>
void store(const Sweep<T>& s, const Bases& b, const Group<T, G>& group, T* input) {
  constexpr int L = Group<T, G>::L;
  const std::int64_t n = group.n;
  const T* z = group.m;
  if (s.y) scatter<L>(z, b, n, s.y);
  if (s.residual) {
    for (std::int64_t i = 0; i < n * L; ++i) input[i] -= z[i];
    scatter<L>(input, b, n, s.residual);
  }
  if (std::uint8_t* mask = s.mask) {
    std::uint8_t* codes = reinterpret_cast<std::uint8_t*>(group.c);  // the values have been spread
    for (std::int64_t k = 0; k + 1 < n; ++k) row_codes(group, k, s.shift, codes + k * L);
    std::memset(codes + (n - 1) * L, kSeparate << s.shift, L);
    add_codes<L>(codes, b, n, mask);
  }
}

template <class T, int G, bool kPerEdge>
void prox_group(const Sweep<T>& s, std::int64_t begin, std::int64_t end, void* scratch) {
  constexpr int L = kWidth<T, G>;
  const std::int64_t n = s.shape.n;
  Group<T, G> group(n, kPerEdge, scratch);
  const Bases b(s.shape, n, begin, end, L);
  gather<L>(s.x, b, n, group.x);
  for (int j = 0; j < s.num_minus; ++j)
    gather<L>(s.minus[j], b, n, group.x, [](auto& row, auto value) { row -= value; });
  gather<L>(s.w.data, Bases(s.shape, s.w.pitch(n), begin, end, L), s.w.length(n), group.w);

  T* input = prepare(group, group.w + (kPerEdge && n > 1 ? n - 1 : 1) * L);
  decompose<T, G, kPerEdge>(group);
  for (int lane = 0; lane < L; lane += kDoubleLanes) values(group, lane);
  typename Vectors<T>::M failed[G];
  for (int g = 0; g < G; ++g)
    failed[g] = uncertified<T, G, kPerEdge>(group, g, spread<T, G, kPerEdge>(group, g));
  for (int g = 0; g < G; ++g)
    if (any(failed[g])) mend_lanes<T, G, kPerEdge>(group, g, failed[g]);
  for (int g = 0; g < G; ++g) own_samples<T, G, kPerEdge>(group, g);
  for (int l = 0; l < b.count; ++l) {
    if (!group.hard[l]) continue;
    for (std::int64_t k = 0; k < n; ++k) {  // its samples were taken out or shifted
      T a = s.x[b.at[l] + k * b.stride];
      for (int j = 0; j < s.num_minus; ++j) a -= s.minus[j][b.at[l] + k * b.stride];
      group.x[k * L + l] = a;
    }
    solve_lane<T>({n, L, group.x + l, group.w + l, kPerEdge, group.m + l});
  }
  const int last = b.count - 1;
  if (group.hard[last])  // the lanes that repeat it, too: they are stored over it
    for (std::int64_t k = 0; k < n; ++k)
      for (int l = b.count; l < L; ++l) group.m[k * L + l] = group.m[k * L + last];
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
      bits[i] = std::int64_t(std::uint64_t(kCodeMask) << (8 * i + shift));
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
  const std::int64_t first, edges;  // weights of a signal
  const Bases bases;
  const bool direct;
  const Bases weight_bases;  // of no signals, where direct
  T* scratch;
  Tile(const Shape& shape, bool per_edge, std::int64_t begin, std::int64_t end, void* scratch)
      : shape(shape),
        first(begin),
        edges(per_edge ? shape.n - 1 : 1),
        bases(shape, shape.n, begin, end, kChunk),
        direct(bases.contiguous() && bases.count == kChunk),
        weight_bases(shape, edges, begin, direct ? begin : end, direct ? 0 : kChunk),
        scratch(static_cast<T*>(scratch)) {}
  std::int64_t stride() const { return direct ? shape.inner : kChunk; }
  // The weights of single samples have no rows, and their memory may be null.
  std::int64_t offset(std::int64_t rows) const { return rows ? shape.offset(first, rows) : 0; }
  const Bases& bases_of(std::int64_t rows) const { return rows == shape.n ? bases : weight_bases; }
  template <class U>
  U* take(std::int64_t rows) {  // aligned for vectors
    U* here = reinterpret_cast<U*>(scratch);
    scratch += (rows * kChunk * sizeof(U) + kAlign - 1) / kAlign * (kAlign / sizeof(T));
    return here;
  }
  template <class U>
  const U* read(const U* source, std::int64_t rows) {
    if (direct) return source + offset(rows);
    U* tile = take<U>(rows);
    gather<kChunk>(source, bases_of(rows), rows, tile);
    return tile;
  }
  T* output(T* target, std::int64_t rows) { return direct ? target + offset(rows) : take<T>(rows); }
  void flush(T* target, const T* tile, std::int64_t rows) {
    if (direct) return;
    scatter<kChunk>(tile, bases_of(rows), rows, target);
  }
};

template <class T>
std::size_t derivative_scratch_bytes(std::int64_t n) {
  constexpr std::size_t kTakes = 6;  // of n rows at most
  return kTakes * (n * kChunk * sizeof(T) + kAlign);
}

// Calls f(tile, edges) for every chunk of the signals [begin, end).
template <class T, class F>
void for_tiles(const Segments<T>& s, bool per_edge, std::int64_t begin, std::int64_t end,
               void* scratch, F f) {
  const std::int64_t n = s.shape.n;
  for (std::int64_t first = begin; first < end; first += kChunk) {
    const std::int64_t last = first + kChunk < end ? first + kChunk : end;
    Tile<T> tile(s.shape, per_edge, first, last, scratch);
    if (s.y) {
      const T* y = tile.read(s.y, n);
      const T* w = tile.read(s.w.data, tile.edges);
      f(tile, FromValues<T>{y, w, tile.stride(), s.w.per_edge ? tile.stride() : 0});
    } else {
      f(tile, FromMask(tile.read(s.mask, n), tile.stride(), s.shift));
    }
  }
}

template <class T>
void push(const Pushforward<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.tw.per_edge, begin, end, scratch,
            [&](Tile<T>& tile, const auto& edges) {
              const std::int64_t stride = tile.stride(), step = op.tw.per_edge ? stride : 0;
              const T* tx = tile.read(op.tx, n);
              const T* tw = tile.read(op.tw.data, tile.edges);
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
  const std::int64_t n = tile.shape.n, step = tile.stride();
  const T* before = accumulate ? tile.read(gw, tile.edges) : nullptr;
  T* sums = tile.output(gw, tile.edges);
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
  tile.flush(gw, sums, tile.edges);
}

template <class T>
void pull(const Pullback<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.per_edge, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    const T* g = tile.read(op.g, n);
    T* gx = tile.output(op.gx, n);
    pull_tile(tile, edges, g, gx, tile.stride(), op.gw, op.per_edge, false);
    tile.flush(op.gx, gx, n);
  });
}

template <class T>
void adjoint(const Adjoint<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.per_edge, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    T *c = tile.template take<T>(n), *state = op.state;
    if (op.g) {
      gather<kChunk>(op.g, tile.bases, n, c);
      gather<kChunk>(state, tile.bases, n, c, [](auto& row, auto value) { row -= value; });
    } else {
      gather<kChunk>(state, tile.bases, n, c,
                     [](auto& row, auto value) { row = decltype(value){} - value; });
    }
    pull_tile<T>(tile, edges, c, c, kChunk, op.gw, op.per_edge, true);
    for_places<kChunk, false>(c, tile.bases, n, [&op, state](auto v, auto place) {
      const decltype(v) zero = {}, a = v + place.load(state);
      place.store(op.gx, place.load(op.gx) + a);
      place.store(state, op.swap ? zero - a : zero);
      for (int j = 0; j < op.num_others; ++j)
        place.store(op.others[j], place.load(op.others[j]) - a);
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
