// XLA FFI handlers of the segment kernels.
#include "handler.hpp"
#include "scratch.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

template <class T>
SegmentEdges<T> edges_of(Buffer y, Buffer w, std::int64_t axis) {
  return {.y = in<T>(y),
          .weights = in<T>(w),
          .weight_per_edge = check_weights(w, y, axis),
          .codes = nullptr,
          .code_shift = 0,
          .code_stride = 0};
}

ffi::Error jvp(cudaStream_t stream, Buffer y, Buffer w, Buffer tx, Buffer tw, Result ty,
               Result scratch, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto number) {
    using T = decltype(number);
    const Shape shape = shape_of(y, axis);
    const SegmentEdges<T> edges = edges_of<T>(y, w, axis);
    check_same(tx, y);
    check_same(*ty, y);
    check_same(tw, w);
    const SegmentJvp<T> op{.edges = edges,
                           .tx = in<T>(tx),
                           .tw = in<T>(tw),
                           .tw_per_edge = edges.weight_per_edge,
                           .ty = out<T>(ty)};
    check(segment_jvp(stream, shape, op, checked_scratch(scratch, segment_scratch<T>(shape))));
  });
}

ffi::Error vjp(cudaStream_t stream, Buffer y, Buffer w, Buffer g, Result gx, Result gw,
               Result scratch, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto number) {
    using T = decltype(number);
    const Shape shape = shape_of(y, axis);
    const SegmentEdges<T> edges = edges_of<T>(y, w, axis);
    check_same(g, y);
    check_same(*gx, y);
    check_same(*gw, w);
    const SegmentVjp<T> op{.edges = edges,
                           .g = in<T>(g),
                           .gx = out<T>(gx),
                           .gw = out<T>(gw),
                           .gw_per_edge = edges.weight_per_edge,
                           .add_to_gw = false};
    check(segment_vjp(stream, shape, op, checked_scratch(scratch, segment_scratch<T>(shape))));
  });
}

}  // namespace

JAXTV_HANDLER(jaxtv_segment_jvp, jvp,
              with_axis(bind()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_segment_vjp, vjp,
              with_axis(bind()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()));

}  // namespace jaxtv::cuda
