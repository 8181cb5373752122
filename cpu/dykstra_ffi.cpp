// XLA FFI handlers of Dykstra's iteration and its derivatives.
#include <optional>

#include "checks.hpp"
#include "dykstra.hpp"
#include "operands.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

Iteration iteration_of(Buffer x, Axes axes, std::int64_t iterations) {
  const std::int64_t lead = first_axis_of(x, axes, iterations);
  const Dims d = x.dimensions();
  Iteration it{.batch = 1, .dims = {d.begin() + lead, d.end()}, .axes = {}, .sweeps = iterations};
  for (std::int64_t i = 0; i < lead; ++i) it.batch *= d[i];
  for (std::int64_t a : axes) it.axes.push_back(a - lead);
  return it;
}
std::int64_t codes_size(const Iteration& it) { return it.batch * it.code_arrays() * it.size(); }

ffi::Error dykstra_any(ffi::ThreadPool& pool, Buffer x, ffi::RemainingArgs ws, Result y,
                       std::optional<Result> codes, Axes axes, std::int64_t iterations,
                       const auto& solver) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(x, axes, iterations);
    check_same(*y, x);
    std::uint8_t* code_data = nullptr;
    if (codes) {
      check_codes(**codes, codes_size(it));
      code_data = out<std::uint8_t>(*codes);
    }
    dykstra<T>(pool_of(pool), it, solver(), in<T>(x), all_weights<T>(ws, x, axes), out<T>(y),
               code_data);
  });
}

ffi::Error dykstra_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y, Axes axes,
                        std::int64_t iterations, std::int64_t method, double tol,
                        std::int64_t max_iterations, std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, std::nullopt, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_with_codes_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y,
                                   Result codes, Axes axes, std::int64_t iterations,
                                   std::int64_t method, double tol, std::int64_t max_iterations,
                                   std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, codes, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_jvp_impl(ffi::ThreadPool pool, Buffer codes, Buffer tx, ffi::RemainingArgs tws,
                            Result ty, Axes axes, std::int64_t iterations) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(tx, axes, iterations);
    check_codes(codes, codes_size(it));
    check_same(*ty, tx);
    dykstra_jvp<T>(pool_of(pool), it, in<std::uint8_t>(codes), in<T>(tx),
                   all_weights<T>(tws, tx, axes), out<T>(ty));
  });
}

ffi::Error dykstra_vjp_impl(ffi::ThreadPool pool, Buffer codes, Buffer g, Result gx,
                            ffi::RemainingRets gws, Axes axes, std::int64_t iterations) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(g, axes, iterations);
    check_codes(codes, codes_size(it));
    check_same(*gx, g);
    const auto [gw, per_edge] = all_weight_results<T>(gws, g, axes);
    dykstra_vjp<T>(pool_of(pool), it, in<std::uint8_t>(codes), in<T>(g), out<T>(gx), gw, per_edge);
  });
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

}  // namespace

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
