// XLA FFI handlers of the converged N-D prox and its derivative.
#include <limits>

#include "checks.hpp"
#include "components.hpp"
#include "targets.hpp"
#include "views.hpp"

namespace jaxtv::cpu {
namespace {

Elements elements_of(Buffer x, Axes axes) {
  require(axes.size() >= 2, "two axes at least");
  lead_of(x, axes, 1);
  const Dims d = x.dimensions();
  Elements elements{{d.begin(), d.end()}, {axes.begin(), axes.end()}};
  require(elements.size() <= std::numeric_limits<std::int32_t>::max(),  // labels are int32
          "more than 2^31 - 1 samples along the prox axes");
  return elements;
}

void check_mask_shape(Buffer masks, const Elements& elements) {
  check_masks(masks, elements.count() * elements.size() * elements.planes());
}

template <class T>
T* shaped_as(Buffer x, Result r) {
  check_same(*r, x);
  return out<T>(r);
}

ffi::Error accelerated_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs args, Result y,
                            Result gap, Result iterations, Result converged,
                            ffi::RemainingRets duals, Axes axes, double gap_tol,
                            std::int64_t sweeps, std::int64_t method, double tol,
                            std::int64_t max_iterations, std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(x, axes);
    const std::size_t d = axes.size();
    require(args.size() == 2 * d - 1 && duals.size() == d - 1, "wrong number of operands");
    require(gap_tol >= 0 && sweeps >= 1 && sweeps < kMostIterations, "bad solver options");
    const std::size_t count = elements.count();
    require(gap->element_type() == x.element_type() &&
                iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED && gap->element_count() == count &&
                iterations->element_count() == count && converged->element_count() == count,
            "wrong info results");
    Accelerated<T> op{};
    op.x = in<T>(x);
    op.y = shaped_as<T>(x, y);
    op.gap = out<T>(gap);
    op.iterations = out<std::int32_t>(iterations);
    op.converged = out<bool>(converged);
    for (std::size_t a = 0; a + 1 < d; ++a) {
      const Buffer start = args.get<Buffer>(a).value();
      check_same(start, x);
      op.start.push_back(in<T>(start));
      op.dual.push_back(shaped_as<T>(x, duals.get<Buffer>(a).value()));
    }
    for (std::size_t a = 0; a < d; ++a)
      op.w.push_back(weights_of<T>(args.get<Buffer>(d - 1 + a).value(), x, axes[a]));
    accelerated(pool_of(pool), elements, {gap_tol, sweeps},
                solver_of(method, tol, max_iterations, line_search), op);
  });
}

ffi::Error components_jvp_impl(ffi::ThreadPool pool, Buffer masks, Buffer tx,
                               ffi::RemainingArgs tws, Result ty, Axes axes) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(tx, axes);
    check_mask_shape(masks, elements);
    components_push<T>(pool_of(pool), elements, in<std::uint8_t>(masks), in<T>(tx),
                       all_weights<T>(tws, tx, axes), shaped_as<T>(tx, ty));
  });
}

ffi::Error components_vjp_impl(ffi::ThreadPool pool, Buffer masks, Buffer g, Result gx,
                               ffi::RemainingRets gws, Axes axes) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(g, axes);
    check_mask_shape(masks, elements);
    const auto [gw, per_edge] = all_weight_results<T>(gws, g, axes);
    components_pull<T>(pool_of(pool), elements, in<std::uint8_t>(masks), in<T>(g),
                       shaped_as<T>(g, gx), gw, per_edge);
  });
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }
auto axes_only(auto&& binding) { return std::move(binding).template Attr<Axes>("axes"); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxtv_converged, accelerated_impl,
                              with_solver(axes_only(bind()
                                                        .Arg<Buffer>()
                                                        .RemainingArgs()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>()
                                                        .Ret<Buffer>()
                                                        .RemainingRets())
                                              .Attr<double>("gap_tol")
                                              .Attr<std::int64_t>("sweeps")));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_components_jvp, components_jvp_impl,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxtv_components_vjp, components_vjp_impl,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cpu
