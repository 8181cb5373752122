// Where signals lie in an array, and how they are copied into rows and back.
//
// Rows are the arrays that kernels work on: row k holds sample k of kSignals signals, and
// rows[k * kSignals + l] belongs to signal l. So a vector holds samples of different signals.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "layout.hpp"
#include "simd/transpose.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// The offsets of the signals [begin, end) in an array of a shape (with `length` in place of n). A
// range is a maximal run of signals that lie side by side in memory: signals of one outer index
// where inner > 1, else a single signal. If there are fewer than `width` signals, the last one is
// repeated up to `width`.
struct SignalOffsets {
  static constexpr int kMostSignals = 512;  // more than a group or a tile has
  std::int64_t at[kMostSignals];            // of the first sample of each signal
  std::int64_t stride;                      // from one sample of a signal to the next
  int count, num_ranges = 0;
  std::int16_t range[kMostSignals + 1];  // range r is the signals range[r] to range[r + 1]
  bool by_rows;                          // ranges are long enough to copy row by row
  SignalOffsets(const Shape& s, std::int64_t length, std::int64_t begin, std::int64_t end,
                int width)
      : stride(s.inner), count(int(end - begin)) {
    std::int64_t next = s.offset(begin, length);
    if (s.inner == 1) {
      // No other member of `range` is read, for ranges of one signal are not copied row by row.
      num_ranges = length == 1 ? 1 : count;
      range[0] = 0;
      range[num_ranges] = std::int16_t(count);
      by_rows = length == 1;
      for (int l = 0; l < width; ++l) at[l] = next + (l < count ? l : count - 1) * length;
      return;
    }
    const auto add = [&](int l) {
      if (l == 0 || next != at[l - 1] + 1) range[num_ranges++] = std::int16_t(l);
      at[l] = next;
    };
    std::int64_t left = s.inner - begin % s.inner;
    for (int l = 0; l < count; ++l, ++next) {  // no division per signal
      add(l);
      if (--left > 0) continue;
      left = s.inner;
      next += (length - 1) * s.inner;
    }
    range[num_ranges] = std::int16_t(count);
    by_rows = count >= 8 * num_ranges;
    for (int l = count; l < width; ++l) at[l] = at[count - 1];
  }
  bool contiguous() const { return num_ranges == 1; }
};

constexpr int kBlock = 16;  // rows that are copied together, so that they stay in L1

// A vector of kQuads quads, each of another signal: quad j is the kQuadSamples samples from p +
// at[j * kQuadSamples] on. Take kQuadSamples such vectors, with `at` moved on by one signal each:
// transpose_quads turns them into kQuadSamples rows (of kLanes signals), and back.
template <class T>
struct Quads {
  using V = typename Vectors<T>::V;
  typedef T Q __attribute__((vector_size(16)));
  static Q load_quad(const T* p) {
    Q q;
    std::memcpy(&q, p, sizeof q);
    return q;
  }
  template <class I>
  static auto load_pair(const T* p, const I* at) {
    return join(load_quad(p + at[0]), load_quad(p + at[kQuadSamples<T>]));
  }
  template <class I>
  static V load(const T* p, const I* at) {
    if constexpr (kQuads == 1)
      return load_quad(p + at[0]);
    else if constexpr (kQuads == 2)
      return load_pair(p, at);
    else
      return join(load_pair(p, at), load_pair(p, at + 2 * kQuadSamples<T>));
  }
  static void store(T* p, const std::int64_t* at, V v) {
    for (int j = 0; j < kQuads; ++j)
      std::memcpy(p + at[j * kQuadSamples<T>], reinterpret_cast<const char*>(&v) + 16 * j, 16);
  }
};

// A count that the compiler knows. Where it does not, the count is an int.
template <int I>
using Count = std::integral_constant<int, I>;

// Calls f(l) for all l < count. The calls touch different memory.
template <class N, class F>
JAXTV_INLINE void each(N count, F f) {
  if constexpr (std::is_same_v<N, int>) {
    JAXTV_INDEPENDENT for (int l = 0; l < count; ++l) f(l);
  } else {
    for (int l = 0; l < count; ++l) f(l);
  }
}

// Calls f(i, offset, count) so as to cover the samples [first, n) of all signals: `count` samples
// lie side by side both in the rows, from rows[i] on, and in the array, from `offset` on. The count
// of whole rows and of single samples is a Count.
template <int kSignals, class F>
JAXTV_INLINE void for_ranges(const SignalOffsets& offsets, std::int64_t first, std::int64_t n,
                             F f) {
  const std::int64_t stride = offsets.stride;  // a copy: for all the compiler knows f writes it
  if (offsets.contiguous() && offsets.count == kSignals) {
    std::int64_t at = offsets.at[0] + first * stride;
    for (std::int64_t k = first; k < n; ++k, at += stride) f(k * kSignals, at, Count<kSignals>{});
    return;
  }
  for (std::int64_t k0 = first; k0 < n; k0 += kBlock) {
    const std::int64_t k1 = k0 + kBlock < n ? k0 + kBlock : n;
    if (offsets.by_rows) {
      for (int r = 0, ranges = offsets.num_ranges; r < ranges; ++r) {
        const int l = offsets.range[r], count = offsets.range[r + 1] - l;
        std::int64_t at = offsets.at[l] + k0 * stride;
        for (std::int64_t k = k0; k < k1; ++k, at += stride) f(k * kSignals + l, at, count);
      }
    } else {
      for (int l = 0, count = offsets.count; l < count; ++l) {
        std::int64_t at = offsets.at[l] + k0 * stride;
        for (std::int64_t k = k0; k < k1; ++k, at += stride) f(k * kSignals + l, at, Count<1>{});
      }
    }
  }
}

// Calls f(k, l) for the parts of rows that quads can move, where signals are contiguous in memory:
// the samples [k, k + kQuadSamples) of the signals [l, l + kLanes). Returns how many samples of
// each signal these calls cover.
template <int kSignals, class T, class F>
JAXTV_INLINE std::int64_t for_quads(const SignalOffsets& offsets, std::int64_t n, F f) {
  if (offsets.stride != 1 || offsets.by_rows) return 0;
  constexpr std::int64_t kQuad = kQuadSamples<T>, kLine = 64 / sizeof(T);
  const std::int64_t end = n / kQuad * kQuad;
  for (std::int64_t k0 = 0; k0 < end; k0 += kLine)  // a cache line of each signal, before the next
    for (int l = 0; l < kSignals; l += kLanes<T>)
      for (std::int64_t k = k0; k < end && k < k0 + kLine; k += kQuad) f(k, l);
  return end;
}

// Fills the lanes beyond the last signal with that signal, in the rows from `first` on.
template <int kSignals, class T>
void repeat_last(const SignalOffsets& offsets, std::int64_t first, std::int64_t n, T* rows) {
  for (std::int64_t k = first; k < n && offsets.count < kSignals; ++k)
    for (int l = offsets.count; l < kSignals; ++l)
      rows[k * kSignals + l] = rows[k * kSignals + offsets.count - 1];
}

// What gather reads: an array, or the difference of two.
template <class T>
struct Values {
  const T* x;
  T operator[](std::int64_t i) const { return x[i]; }
  auto quads(std::int64_t k, const std::int64_t* at) const { return Quads<T>::load(x + k, at); }
};
template <class T>
struct Difference {
  const T *x, *minus;
  T operator[](std::int64_t i) const { return x[i] - minus[i]; }
  auto quads(std::int64_t k, const std::int64_t* at) const {
    return Quads<T>::load(x + k, at) - Quads<T>::load(minus + k, at);
  }
};
constexpr auto kSet = [](auto& row, auto value) { row = value; };

// Fetches what short signals need next, while those at hand are solved: the hardware begins anew at
// each page, which is only a few of them away. `next` may be an address behind the array.
inline void prefetch(std::uintptr_t next, std::int64_t bytes) {
  constexpr std::int64_t kPage = 4096, kLine = 64;
  if (bytes > kPage) return;
  for (std::int64_t i = 0; i < bytes; i += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(next + i));
}

// From arrays into rows: op(row, value) for each sample or vector of samples, with `row` a
// reference to it in `rows`, and `value` read from `source`.
template <int kSignals, class T, class Source, class Op>
void gather(const Source& source, const SignalOffsets& offsets, std::int64_t n, T* rows, Op op) {
  using V = typename Vectors<T>::V;
  const std::int64_t done = for_quads<kSignals, T>(offsets, n, [&](std::int64_t k, int l) {
    V v[kQuadSamples<T>];
    for (int i = 0; i < kQuadSamples<T>; ++i) v[i] = source.quads(k, offsets.at + l + i);
    transpose_quads(v);
    for (int i = 0; i < kQuadSamples<T>; ++i)
      op(*reinterpret_cast<V*>(rows + (k + i) * kSignals + l), v[i]);
  });
  for_ranges<kSignals>(offsets, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    each(count, [=](int l) { op(rows[row + l], source[at + l]); });
  });
  repeat_last<kSignals>(offsets, done, n, rows);
}
template <int kSignals, class T>
void gather(const T* source, const SignalOffsets& offsets, std::int64_t n, T* rows) {
  gather<kSignals>(Values<T>{source}, offsets, n, rows, kSet);
  if (offsets.stride != 1) return;
  const std::uintptr_t end = (offsets.at[kSignals - 1] + n) * sizeof(T);
  prefetch(reinterpret_cast<std::uintptr_t>(source) + end, kSignals * n * sizeof(T));
}

// Where a vector of quads (Quads) of the samples from k on lies in an array.
template <class T>
struct QuadLocation {
  std::int64_t k;
  const std::int64_t* at;
  auto load(const T* p) const { return Quads<T>::load(p + k, at); }
  void store(T* p, typename Vectors<T>::V v) const { Quads<T>::store(p + k, at, v); }
};
// Where V, one sample or a vector of samples side by side, lies in an array.
template <class T, class V>
struct Location {
  std::int64_t at;
  V load(const T* p) const {
    V v;
    std::memcpy(&v, p + at, sizeof v);
    return v;
  }
  void store(T* p, V v) const { std::memcpy(p + at, &v, sizeof v); }
};

// From rows to an array: f(value, location) for each sample or vector of samples. With kRepeats it
// may also call f for the copies of the last signal, whose locations then come more than once.
template <int kSignals, bool kRepeats, class T, class F>
void for_locations(const T* rows, const SignalOffsets& offsets, std::int64_t n, F f) {
  using V = typename Vectors<T>::V;
  const std::int64_t by_quads = kRepeats || offsets.count == kSignals ? n : 0;
  const std::int64_t done = for_quads<kSignals, T>(offsets, by_quads, [&](std::int64_t k, int l) {
    V v[kQuadSamples<T>];
    for (int i = 0; i < kQuadSamples<T>; ++i)
      v[i] = *reinterpret_cast<const V*>(rows + (k + i) * kSignals + l);
    transpose_quads(v);
    for (int i = 0; i < kQuadSamples<T>; ++i) f(v[i], QuadLocation<T>{k, offsets.at + l + i});
  });
  for_ranges<kSignals>(offsets, done, n, [=](std::int64_t row, std::int64_t at, auto count) {
    if constexpr (std::is_same_v<decltype(count), Count<kSignals>>)
      for (int l = 0; l < kSignals; l += kLanes<T>)
        f(*reinterpret_cast<const V*>(rows + row + l), Location<T, V>{at + l});
    else
      each(count, [=](int l) { f(rows[row + l], Location<T, T>{at + l}); });
  });
}

// The inverse of gather.
template <int kSignals, class T>
void scatter(const T* rows, const SignalOffsets& offsets, std::int64_t n, T* target) {
  for_locations<kSignals, true>(rows, offsets, n,
                                [=](auto value, auto location) { location.store(target, value); });
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
