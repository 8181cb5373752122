// The derivatives of the 1D prox, and of one pass of Dykstra's iteration, by segment means on
// tiles.
#pragma once

#include <cstdint>

#include "pass.hpp"
#include "simd/tile.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// ty = P(tx - D^T(s tw)): reads tx, tw and the segments, writes ty.
template <class T>
void jvp(const SegmentJvp<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.tw.per_edge, begin, end, scratch,
            [&](Tile<T>& tile, const auto& edges) {
              const std::int64_t stride = tile.stride(), w_stride = op.tw.per_edge ? stride : 0;
              const T* tx = tile.read(op.tx, n);
              const T* tw = tile.read(op.tw.data, tile.weight_rows);
              T* ty = tile.output(op.ty, n);
              const auto dual_tangent = [&](std::int64_t e, int l) {  // s_e tw_e
                return edges(e, l).sign * load_wide(tw + e * w_stride + l);
              };
              segment_means<T>(
                  n, stride, edges,
                  [&](std::int64_t k, int l) {
                    Double v = load_wide(tx + k * stride + l);
                    if (k + 1 < n) v += dual_tangent(k, l);
                    if (k > 0) v -= dual_tangent(k - 1, l);
                    return v;
                  },
                  ty, [](auto...) {});
              tile.flush(op.ty, ty, n);
            });
}

// The VJP on a tile: out = P g, and gw as in SegmentVjp (pass.hpp), which is added to gw if
// `accumulate`, else overwrites it. Row k of g and out is at k * stride; they may be one array.
template <class T, class Edges>
void vjp_of_tile(Tile<T>& tile, const Edges& edges, const T* g, T* out, std::int64_t stride, T* gw,
                 bool per_edge, bool accumulate) {
  const std::int64_t n = tile.shape.n, w_stride = tile.stride();
  const T* before = accumulate ? tile.read(gw, tile.weight_rows) : nullptr;
  T* sums = tile.output(gw, tile.weight_rows);
  const auto save = [=](std::int64_t at, Double v) {
    if (before) v += load_wide(before + at);
    store_half(sums + at, narrow<T>(v));
  };
  Double total[kMeanVectors] = {};
  segment_means<T>(
      n, stride, edges, [=](std::int64_t k, int l) { return load_wide(g + k * stride + l); }, out,
      [&](std::int64_t e, int l, const Edge& edge, Double left, Double right) {
        const Double term = edge.sign * (left - right);
        if (per_edge)
          save(e * w_stride + l, term);
        else
          total[l / kDoubleLanes] += term;
      });
  if (!per_edge)
    for (int i = 0; i < kMeanVectors; ++i) save(i * kDoubleLanes, total[i]);
  tile.flush(gw, sums, tile.weight_rows);
}

// gx = P g, and the cotangent gw of the weights: reads g and the segments, writes gx and gw.
template <class T>
void vjp(const SegmentVjp<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.per_edge, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    const T* g = tile.read(op.g, n);
    T* gx = tile.output(op.gx, n);
    vjp_of_tile(tile, edges, g, gx, tile.stride(), op.gw, op.per_edge, false);
    tile.flush(op.gx, gx, n);
  });
}

// One pass of Dykstra's VJP (DykstraVjpPass in pass.hpp): reads g and the segments; updates the
// states, gx and gw.
template <class T>
void dykstra_vjp(const DykstraVjpPass<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  const std::int64_t n = op.segments.shape.n;
  for_tiles(op.segments, op.per_edge, begin, end, scratch, [&](Tile<T>& tile, const auto& edges) {
    T *c = tile.template take<T>(n), *state = op.state;
    if (op.g) {
      gather<kTileSignals>(op.g, tile.offsets, n, c);
      gather<kTileSignals>(state, tile.offsets, n, c, [](auto& row, auto value) { row -= value; });
    } else {
      gather<kTileSignals>(state, tile.offsets, n, c,
                           [](auto& row, auto value) { row = decltype(value){} - value; });
    }
    vjp_of_tile<T>(tile, edges, c, c, kTileSignals, op.gw, op.per_edge, true);
    for_locations<kTileSignals, false>(c, tile.offsets, n, [&op, state](auto v, auto location) {
      const decltype(v) zero = {}, b = v + location.load(state);
      location.store(op.gx, location.load(op.gx) + b);
      location.store(state, op.one_state ? zero - b : zero);
      for (int j = 0; j < op.num_other_states; ++j)
        location.store(op.other_states[j], location.load(op.other_states[j]) - b);
    });
  });
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
