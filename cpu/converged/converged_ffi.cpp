// XLA FFI handlers of the converged N-D prox.
#include "checks.hpp"
#include "converged/converged.hpp"
#include "operands.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

ffi::Error converged_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs args, Result y,
                          Result gap, Result iterations, Result converged, ffi::RemainingRets rest,
                          Axes axes, double gap_tol, std::int64_t sweeps, std::int64_t method,
                          double tol, std::int64_t max_iterations, std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Elements elements = elements_of(x, axes);
    const std::size_t d = axes.size();
    require(args.size() == 2 * d - 1 && rest.size() == d, "wrong number of operands");
    require(gap_tol >= 0 && sweeps >= 1 && sweeps < kMostIterations, "bad solver options");
    const std::size_t count = elements.count();
    require(gap->element_type() == x.element_type() &&
                iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED && gap->element_count() == count &&
                iterations->element_count() == count && converged->element_count() == count,
            "wrong info results");
    Converged<T> op{};
    op.x = in<T>(x);
    op.y = shaped_as<T>(x, y);
    op.gap = out<T>(gap);
    op.iterations = out<std::int32_t>(iterations);
    op.converged = out<bool>(converged);
    for (std::size_t a = 0; a + 1 < d; ++a) {
      const Buffer start = args.get<Buffer>(a).value();
      check_same(start, x);
      op.start_duals.push_back(in<T>(start));
      op.duals.push_back(shaped_as<T>(x, rest.get<Buffer>(a).value()));
    }
    Result codes = rest.get<Buffer>(d - 1).value();
    check_codes(*codes, count * elements.size() * elements.code_arrays());
    op.codes = out<std::uint8_t>(codes);
    for (std::size_t a = 0; a < d; ++a)
      op.w.push_back(weights_of<T>(args.get<Buffer>(d - 1 + a).value(), x, axes[a]));
    jaxtv::cpu::converged(pool_of(pool), elements, {.tol = gap_tol, .max_iterations = sweeps},
                          solver_of(method, tol, max_iterations, line_search), op);
  });
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }
auto axes_only(auto&& binding) { return std::move(binding).template Attr<Axes>("axes"); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxtv_converged, converged_impl,
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

}  // namespace jaxtv::cpu
