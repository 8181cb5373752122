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
  using V = typename Vectors<T>::V;
  const Shape& shape = op.segments.shape;
  const std::int64_t n = shape.n;
  for_tiles<T>(shape, op.tw.per_edge, crowded<T>(shape), begin, end, scratch, [&](Tile<T>& tile) {
    const std::int64_t stride = tile.stride(), w_stride = op.tw.per_edge ? stride : 0;
    const T *tx = tile.read(op.tx, n), *tw = tile.read(op.tw.data, tile.weight_rows);
    T* ty = tile.output(op.ty, n);
    with_edges(tile, op.segments, [&](const auto& edges) {
      const auto dual_tangent = [&](std::int64_t e, int l) {  // s_e tw_e
        return edges(e, l).sign * load_vector(tw + e * w_stride + l);
      };
      segment_means(
          n, edges,
          [&](std::int64_t k, int l, Sum<T>& sum) {
            sum.add(load_vector(tx + k * stride + l));
            if (k + 1 < n) sum.add(dual_tangent(k, l));
            if (k > 0) sum.add(-dual_tangent(k - 1, l));
          },
          ty, stride,
          [=](std::int64_t k, int l, V mean, const Edge<T>&) {
            store_vector(ty + k * stride + l, mean);
          });
    });
    tile.flush(op.ty, ty, n);
  });
}

// The VJP on a tile: calls write(k, l, mean) for P g, with g and `means` as in segment_means. gw is
// as in SegmentVjp (pass.hpp); it is added to what gw holds if add_to_gw. The sum over a signal's
// edges is computed as sum_k mean_k (s_k - s_{k-1}), whose terms are exact.
template <class T, class Edges, class AddValue, class Write>
void vjp_of_tile(Tile<T>& tile, const Edges& edges, AddValue add_value, T* means,
                 std::int64_t stride, T* gw, bool per_edge, bool add_to_gw, Write write) {
  using V = typename Vectors<T>::V;
  const std::int64_t n = tile.shape.n, w_stride = tile.stride();
  const T* before = add_to_gw ? tile.read(gw, tile.weight_rows) : nullptr;
  T* sums = tile.output(gw, tile.weight_rows);
  const auto save = [=](std::int64_t at, V v) {
    store_vector(sums + at, before ? v + load_vector(before + at) : v);
  };
  V sign[kTileVectors<T>] = {};  // of the edge before the sample
  if (per_edge) {
    V left[kTileVectors<T>] = {};
    segment_means(n, edges, add_value, means, stride,
                  [&](std::int64_t k, int l, V mean, const Edge<T>& edge) {
                    const int g = l / kLanes<T>;
                    if (k > 0) save((k - 1) * w_stride + l, sign[g] * (left[g] - mean));
                    left[g] = mean;
                    sign[g] = edge.sign;
                    write(k, l, mean);
                  });
  } else {
    Sum<T> total[kTileVectors<T>];
    segment_means(n, edges, add_value, means, stride,
                  [&](std::int64_t k, int l, V mean, const Edge<T>& edge) {
                    const int g = l / kLanes<T>;
                    total[g].add(mean * (edge.sign - sign[g]));
                    sign[g] = edge.sign;
                    write(k, l, mean);
                  });
    for (int g = 0; g < kTileVectors<T>; ++g) save(g * kLanes<T>, total[g].total());
  }
  tile.flush(gw, sums, tile.weight_rows);
}

// gx = P g, and the cotangent gw of the weights: reads g and the segments, writes gx and gw.
template <class T>
void vjp(const SegmentVjp<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  using V = typename Vectors<T>::V;
  const Shape& shape = op.segments.shape;
  for_tiles<T>(shape, op.per_edge, crowded<T>(shape), begin, end, scratch, [&](Tile<T>& tile) {
    const std::int64_t stride = tile.stride();
    const T* g = tile.read(op.g, shape.n);
    T* gx = tile.output(op.gx, shape.n);
    with_edges(tile, op.segments, [&](const auto& edges) {
      vjp_of_tile(
          tile, edges,
          [=](std::int64_t k, int l, Sum<T>& sum) { sum.add(load_vector(g + k * stride + l)); }, gx,
          stride, op.gw, op.per_edge, false,
          [=](std::int64_t k, int l, V mean) { store_vector(gx + k * stride + l, mean); });
    });
    tile.flush(op.gx, gx, shape.n);
  });
}

// One pass of Dykstra's VJP: update(location, c) with c = P h, for h from the array `h`, negated if
// kNegated.
template <bool kNegated, class T, class Update>
void dykstra_vjp_pass(const DykstraVjpPass<T>& op, const T* h, std::int64_t begin, std::int64_t end,
                      void* scratch, Update update) {
  using V = typename Vectors<T>::V;
  const Shape& shape = op.segments.shape;
  const auto signed_h = [](auto v) { return kNegated ? -v : v; };
  for_tiles<T>(shape, op.per_edge, false, begin, end, scratch, [&](Tile<T>& tile) {
    const auto edges = edges_from_codes(tile, op.segments);
    T* rows = tile.template take<T>(shape.n);
    const auto vjp = [&](const T* h, std::int64_t stride, auto write) {
      vjp_of_tile(
          tile, edges,
          [=](std::int64_t k, int l, Sum<T>& sum) {
            sum.add(signed_h(load_vector(h + k * stride + l)));
          },
          rows, kTileSignals, op.gw, op.per_edge, op.add_to_gw, write);
    };
    if (tile.direct) {
      const std::int64_t first = tile.offsets.at[0], stride = tile.stride();
      vjp(h + first, stride, [=](std::int64_t k, int l, V mean) {
        update(Location<T, V>{first + k * stride + l}, mean);
      });
    } else {
      gather<kTileSignals>(h, tile.offsets, shape.n, rows);
      vjp(rows, kTileSignals,
          [=](std::int64_t k, int l, V mean) { store_vector(rows + k * kTileSignals + l, mean); });
      for_locations<kTileSignals, false>(rows, tile.offsets, shape.n,
                                         [=](auto mean, auto location) { update(location, mean); });
    }
  });
}

// Reads g or the states, and the segments; updates the states, gx and gw (pass.hpp).
template <class T>
void dykstra_vjp(const DykstraVjpPass<T>& op, std::int64_t begin, std::int64_t end, void* scratch) {
  T *state = op.state, *gx = op.gx;
  if (op.g) {
    dykstra_vjp_pass<false>(op, op.g, begin, end, scratch, [=, &op](auto location, auto c) {
      if (gx) location.store(gx, c);
      location.store(state, op.two_axes ? c : decltype(c){});
      for (int j = 0; j < op.num_other_states; ++j) location.store(op.other_states[j], -c);
    });
  } else if (op.two_axes) {
    const bool add = op.add_to_gx;
    dykstra_vjp_pass<false>(op, state, begin, end, scratch, [=](auto location, auto c) {
      if (gx) location.store(gx, add ? location.load(gx) + c : c);
      location.store(state, c - location.load(state));
    });
  } else {
    dykstra_vjp_pass<true>(op, state, begin, end, scratch, [=, &op](auto location, auto c) {
      const auto b = c + location.load(state);
      location.store(gx, location.load(gx) + b);
      location.store(state, decltype(c){});
      for (int j = 0; j < op.num_other_states; ++j)
        location.store(op.other_states[j], location.load(op.other_states[j]) - b);
    });
  }
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
