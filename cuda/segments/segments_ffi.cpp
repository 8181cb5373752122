// XLA FFI handlers of the segment kernels.
#include "handler.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

template <class T>
Edges<T> edges_of(Buffer y, Buffer w, std::int64_t axis) {
  return {in<T>(y), in<T>(w), check_weights(w, y, axis), nullptr, 0, 0};
}

ffi::Error segment_jvp(cudaStream_t stream, Buffer y, Buffer w, Buffer tx, Buffer tw, Result ty,
                       Result scratch, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Shape shape = shape_of(y, axis);
    const Edges<T> edges = edges_of<T>(y, w, axis);
    check_same(tx, y);
    check_same(*ty, y);
    check_same(tw, w);
    void* space = workspace(scratch, segment_workspace<T>(shape));
    check(segment_push<T>(stream, shape, {edges, in<T>(tx), in<T>(tw), edges.per_edge, out<T>(ty)},
                          space));
  });
}

ffi::Error segment_vjp(cudaStream_t stream, Buffer y, Buffer w, Buffer g, Result gx, Result gw,
                       Result scratch, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Shape shape = shape_of(y, axis);
    const Edges<T> edges = edges_of<T>(y, w, axis);
    check_same(g, y);
    check_same(*gx, y);
    check_same(*gw, w);
    void* space = workspace(scratch, segment_workspace<T>(shape));
    check(segment_pull<T>(stream, shape,
                          {edges, in<T>(g), out<T>(gx), out<T>(gw), edges.per_edge, false}, space));
  });
}

}  // namespace

JAXTV_HANDLER(jaxtv_segment_jvp, segment_jvp,
              with_axis(bind()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_segment_vjp, segment_vjp,
              with_axis(bind()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Arg<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()
                            .Ret<Buffer>()));

}  // namespace jaxtv::cuda
