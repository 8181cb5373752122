// XLA FFI handlers of the 1D prox, Dykstra's iteration and their derivatives.
#include <optional>

#include "checks.hpp"
#include "large.hpp"
#include "prox.hpp"
#include "targets.hpp"
#include "views.hpp"

namespace jaxtv::cpu {
namespace {

Shape shape_of(Buffer x, std::int64_t axis) {
  const Extents e = extents_of(x, axis);
  return {e.outer, e.n, e.inner};
}

// ---- 1D ----

template <class T>
Sweep<T> sweep_of(Buffer x, Buffer w, Result y, std::int64_t axis) {
  Sweep<T> s{};
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
    prox1d(pool_of(pool), sweep_of<decltype(t)>(x, w, y, axis),
           solver_of(method, tol, max_iterations, line_search));
  });
}

ffi::Error prox1d_info_impl(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Result gap,
                            Result iterations, Result converged, std::int64_t axis,
                            std::int64_t method, double tol, std::int64_t max_iterations,
                            std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    Sweep<T> s = sweep_of<T>(x, w, y, axis);
    check_info(gap, iterations, converged, x, axis);
    s.gap = out<T>(gap);
    s.iterations = out<std::int32_t>(iterations);
    s.converged = out<bool>(converged);
    prox1d(pool_of(pool), s, solver_of(method, tol, max_iterations, line_search));
  });
}

template <class T>
Segments<T> segments_of(Buffer y, Buffer w, std::int64_t axis) {
  return {shape_of(y, axis), in<T>(y), weights_of<T>(w, y, axis), nullptr, 0};
}

ffi::Error segment_jvp_impl(ffi::ThreadPool pool, Buffer y, Buffer w, Buffer tx, Buffer tw,
                            Result ty, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Segments<T> segments = segments_of<T>(y, w, axis);
    check_same(tx, y);
    check_same(*ty, y);
    check_same(tw, w);
    segment_push<T>(pool_of(pool), {segments, in<T>(tx), weights_of<T>(tw, y, axis), out<T>(ty)});
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
    segment_pull<T>(pool_of(pool),
                    {segments, in<T>(g), out<T>(gx), out<T>(gw), segments.w.per_edge});
  });
}

// ---- Dykstra ----

Iteration iteration_of(Buffer x, Axes axes, std::int64_t iterations) {
  const std::int64_t lead = lead_of(x, axes, iterations);
  const Dims d = x.dimensions();
  Iteration it{1, {d.begin() + lead, d.end()}, {}, iterations};
  for (std::int64_t i = 0; i < lead; ++i) it.batch *= d[i];
  for (std::int64_t a : axes) it.axes.push_back(a - lead);
  return it;
}
std::int64_t mask_size(const Iteration& it) { return it.batch * it.planes() * it.core_size(); }

ffi::Error dykstra_any(ffi::ThreadPool& pool, Buffer x, ffi::RemainingArgs ws, Result y,
                       std::optional<Result> masks, Axes axes, std::int64_t iterations,
                       const auto& solver) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(x, axes, iterations);
    check_same(*y, x);
    std::uint8_t* mask = nullptr;
    if (masks) {
      check_masks(**masks, mask_size(it));
      mask = out<std::uint8_t>(*masks);
    }
    dykstra_of_any_size<T>(pool_of(pool), it, solver(), in<T>(x), all_weights<T>(ws, x, axes),
                           out<T>(y), mask);
  });
}

ffi::Error dykstra_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y, Axes axes,
                        std::int64_t iterations, std::int64_t method, double tol,
                        std::int64_t max_iterations, std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, std::nullopt, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_with_codes_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y,
                                   Result masks, Axes axes, std::int64_t iterations,
                                   std::int64_t method, double tol, std::int64_t max_iterations,
                                   std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, masks, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_jvp_impl(ffi::ThreadPool pool, Buffer masks, Buffer tx, ffi::RemainingArgs tws,
                            Result ty, Axes axes, std::int64_t iterations) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(tx, axes, iterations);
    check_masks(masks, mask_size(it));
    check_same(*ty, tx);
    dykstra_push<T>(pool_of(pool), it, in<std::uint8_t>(masks), in<T>(tx),
                    all_weights<T>(tws, tx, axes), out<T>(ty));
  });
}

ffi::Error dykstra_vjp_impl(ffi::ThreadPool pool, Buffer masks, Buffer g, Result gx,
                            ffi::RemainingRets gws, Axes axes, std::int64_t iterations) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(g, axes, iterations);
    check_masks(masks, mask_size(it));
    check_same(*gx, g);
    const auto [gw, per_edge] = all_weight_results<T>(gws, g, axes);
    dykstra_pull<T>(pool_of(pool), it, in<std::uint8_t>(masks), in<T>(g), out<T>(gx), gw, per_edge);
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
    jaxtv_segment_jvp, segment_jvp_impl,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_segment_vjp, segment_vjp_impl,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_dykstra, dykstra_impl,
    with_solver(with_axes(bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>())));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_dykstra_with_codes, dykstra_with_codes_impl,
    with_solver(with_axes(bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>())));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_dykstra_jvp, dykstra_jvp_impl,
    with_axes(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_dykstra_vjp, dykstra_vjp_impl,
    with_axes(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cpu
