// Tiles: kTileSignals signals side by side, for the derivatives (segment_means.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "pass.hpp"
#include "simd/edge_codes.hpp"
#include "simd/segment_means.hpp"
#include "simd/signals.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr std::size_t kAlignment = 64;

// The signals [begin, end) of a shape, kTileSignals at most, in all arrays that a derivative reads
// and writes. If they lie side by side, kernels work in the arrays themselves (`direct`). Else (the
// axis is contiguous, there are few channels, or these are the last signals), or if `copy`, they
// work on copies: rows in scratch. Arguments `rows` tell an array of samples (n) from one of
// weights (weight_rows).
template <class T>
struct Tile {
  const Shape& shape;
  const std::int64_t first;        // signal
  const std::int64_t weight_rows;  // weights per signal: n - 1 or 1
  const SignalOffsets offsets;
  const bool direct;
  const SignalOffsets weight_offsets;  // of no signals if direct
  T* free_scratch;                     // what `take` has not handed out
  Tile(const Shape& shape, bool per_edge, bool copy, std::int64_t begin, std::int64_t end,
       void* scratch)
      : shape(shape),
        first(begin),
        weight_rows(per_edge ? shape.n - 1 : 1),
        offsets(shape, shape.n, begin, end, kTileSignals),
        direct(offsets.contiguous() && offsets.count == kTileSignals && !copy),
        weight_offsets(shape, weight_rows, begin, direct ? begin : end, direct ? 0 : kTileSignals),
        free_scratch(static_cast<T*>(scratch)) {}
  // Elements from one row to the next, in what `read` and `output` return.
  std::int64_t stride() const { return direct ? shape.inner : kTileSignals; }
  // Takes rows from scratch, aligned for vectors; they are never given back.
  template <class U>
  U* take(std::int64_t rows) {
    U* here = reinterpret_cast<U*>(free_scratch);
    const std::size_t bytes = rows * kTileSignals * sizeof(U);
    free_scratch += (bytes + kAlignment - 1) / kAlignment * (kAlignment / sizeof(T));
    return here;
  }
  // The rows of an array, to read.
  template <class U>
  const U* read(const U* source, std::int64_t rows) {
    if (direct) return source + offset(rows);
    U* copy = take<U>(rows);
    gather<kTileSignals>(source, offsets_of(rows), rows, copy);
    return copy;
  }
  // Rows to write, which `flush` then brings to the array.
  T* output(T* target, std::int64_t rows) { return direct ? target + offset(rows) : take<T>(rows); }
  void flush(T* target, const T* written, std::int64_t rows) {
    if (direct) return;
    scatter<kTileSignals>(written, offsets_of(rows), rows, target);
  }

 private:
  // Signals of one sample have no edges: no rows of weights, and perhaps a null pointer.
  std::int64_t offset(std::int64_t rows) const { return rows ? shape.offset(first, rows) : 0; }
  const SignalOffsets& offsets_of(std::int64_t rows) const {
    return rows == shape.n ? offsets : weight_offsets;
  }
};

template <class T>
std::size_t derivative_scratch_bytes(std::int64_t n) {
  constexpr std::size_t kMostTakes = 6;  // of n rows at most
  return kMostTakes * (n * kTileSignals * sizeof(T) + kAlignment);
}

// Whether the samples of a signal share few sets of the first-level cache, so that they push each
// other out of it. To copy them once is 1.7 times as fast as to work in several such arrays.
template <class T>
bool crowded(const Shape& shape) {
  constexpr std::int64_t kSetsOfL1 = 4096;  // bytes, of 64 sets
  return shape.inner * sizeof(T) % kSetsOfL1 == 0;
}

// Calls f(tile) for every tile of the signals [begin, end). per_edge: whether tangents or
// cotangents of weights are per edge.
template <class T, class F>
void for_tiles(const Shape& shape, bool per_edge, bool copy, std::int64_t begin, std::int64_t end,
               void* scratch, F f) {
  for (std::int64_t first = begin; first < end; first += kTileSignals) {
    const std::int64_t last = first + kTileSignals < end ? first + kTileSignals : end;
    Tile<T> tile(shape, per_edge, copy, first, last, scratch);
    f(tile);
  }
}

// What gives the edges of a tile (an Edge, segment_means.hpp).
template <class T>
EdgesFromCodes<T> edges_from_codes(Tile<T>& tile, const Segments<T>& s) {
  return {tile.read(s.codes, s.shape.n), tile.stride(), s.code_shift};
}
// Calls f(edges), from the codes or from the solution.
template <class T, class F>
void with_edges(Tile<T>& tile, const Segments<T>& s, F f) {
  if (!s.y) return f(edges_from_codes(tile, s));
  const T *y = tile.read(s.y, s.shape.n), *w = tile.read(s.w.data, tile.weight_rows);
  if (s.w.per_edge)
    f(EdgesFromValues<T, true>{y, w, tile.stride()});
  else
    f(EdgesFromValues<T, false>{y, w, tile.stride()});
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
