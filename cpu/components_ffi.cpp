// XLA FFI handlers of the derivatives of the converged N-D prox.
#include "checks.hpp"
#include "components.hpp"
#include "operands.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

void check_codes_of(Buffer codes, const Elements& elements) {
  check_codes(codes, elements.count() * elements.size() * elements.code_arrays());
}

ffi::Error components_jvp_impl(ffi::ThreadPool pool, Buffer codes, Buffer tx,
                               ffi::RemainingArgs tws, Result ty, Axes axes) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(tx, axes);
    check_codes_of(codes, elements);
    components_jvp<T>(pool_of(pool), elements, in<std::uint8_t>(codes), in<T>(tx),
                      all_weights<T>(tws, tx, axes), shaped_as<T>(tx, ty));
  });
}

ffi::Error components_vjp_impl(ffi::ThreadPool pool, Buffer codes, Buffer g, Result gx,
                               ffi::RemainingRets gws, Axes axes) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(g, axes);
    check_codes_of(codes, elements);
    const auto [gw, per_edge] = all_weight_results<T>(gws, g, axes);
    components_vjp<T>(pool_of(pool), elements, in<std::uint8_t>(codes), in<T>(g),
                      shaped_as<T>(g, gx), gw, per_edge);
  });
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }
auto axes_only(auto&& binding) { return std::move(binding).template Attr<Axes>("axes"); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_components_jvp, components_jvp_impl,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_components_vjp, components_vjp_impl,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cpu
