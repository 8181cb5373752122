// XLA FFI handlers of the 1D prox and its derivatives.
#include "checks.hpp"
#include "data_weight.hpp"
#include "operands.hpp"
#include "prox1d.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

Shape shape_of(Buffer x, std::int64_t axis) {
  const Extents e = extents_of(x, axis);
  return {e.outer, e.n, e.inner};
}

template <class T>
Pass<T> pass_of(Buffer x, Buffer w, Result y, std::int64_t axis) {
  Pass<T> s{};
  s.shape = shape_of(x, axis);
  check_same(*y, x);
  s.x = in<T>(x);
  s.w = weights_of<T>(w, x, axis);
  s.y = out<T>(y);
  return s;
}

ffi::Error prox1d_impl(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, std::int64_t axis,
                       std::int64_t method, double tol, std::int64_t max_iterations,
                       std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    prox1d(pool_of(pool), pass_of<decltype(t)>(x, w, y, axis),
           solver_of(method, tol, max_iterations, line_search));
  });
}

ffi::Error prox1d_info_impl(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Result gap,
                            Result iterations, Result converged, std::int64_t axis,
                            std::int64_t method, double tol, std::int64_t max_iterations,
                            std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    Pass<T> s = pass_of<T>(x, w, y, axis);
    check_info(gap, iterations, converged, x, axis);
    s.gap = out<T>(gap);
    s.iterations = out<std::int32_t>(iterations);
    s.converged = out<bool>(converged);
    prox1d(pool_of(pool), s, solver_of(method, tol, max_iterations, line_search));
  });
}

ffi::Error prox1d_data_weight_impl(ffi::ThreadPool pool, Buffer x, Buffer mass, Buffer w, Result y,
                                   std::int64_t axis) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Shape shape = shape_of(x, axis);
    check_same(mass, x);
    check_same(*y, x);
    prox1d_data_weight<T>(pool_of(pool), {.shape = shape,
                                          .x = in<T>(x),
                                          .mass = in<T>(mass),
                                          .w = weights_of<T>(w, x, axis),
                                          .y = out<T>(y)});
  });
}

template <class T>
Segments<T> segments_of(Buffer y, Buffer w, std::int64_t axis) {
  return {.shape = shape_of(y, axis),
          .y = in<T>(y),
          .w = weights_of<T>(w, y, axis),
          .codes = nullptr,
          .code_shift = 0};
}

ffi::Error segment_jvp_impl(ffi::ThreadPool pool, Buffer y, Buffer w, Buffer tx, Buffer tw,
                            Result ty, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Segments<T> segments = segments_of<T>(y, w, axis);
    check_same(tx, y);
    check_same(*ty, y);
    check_same(tw, w);
    segment_jvp<T>(pool_of(pool), {.segments = segments,
                                   .tx = in<T>(tx),
                                   .tw = weights_of<T>(tw, y, axis),
                                   .ty = out<T>(ty)});
  });
}

ffi::Error segment_vjp_impl(ffi::ThreadPool pool, Buffer y, Buffer w, Buffer g, Result gx,
                            Result gw, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Segments<T> segments = segments_of<T>(y, w, axis);
    check_same(g, y);
    check_same(*gx, y);
    check_same(*gw, w);
    segment_vjp<T>(pool_of(pool), {.segments = segments,
                                   .g = in<T>(g),
                                   .gx = out<T>(gx),
                                   .gw = out<T>(gw),
                                   .per_edge = segments.w.per_edge});
  });
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_prox1d, prox1d_impl,
    with_solver(with_axis(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>())));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxtv_prox1d_info, prox1d_info_impl,
                              with_solver(with_axis(bind()
                                                        .Arg<Buffer>()
                                                        .Arg<Buffer>()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>())));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_prox1d_data_weight, prox1d_data_weight_impl,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_segment_jvp, segment_jvp_impl,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_segment_vjp, segment_vjp_impl,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>()));

}  // namespace jaxtv::cpu
