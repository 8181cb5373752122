// XLA FFI handler of the isotropic prox.
#include "checks.hpp"
#include "isotropic/isotropic.hpp"
#include "operands.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

Pixels pixels_of(Buffer x, Axes axes) {
  const Dims d = x.dimensions();
  const std::int64_t first = check_pixel_axes(x, axes);
  Pixels pixels{1, d[first], {d.begin() + first + 1, d.end()}};
  for (std::int64_t i = 0; i < first; ++i) pixels.elements *= d[i];
  return pixels;
}

ffi::Error isotropic_impl(ffi::ThreadPool pool, Buffer x, Buffer w, ffi::RemainingArgs start,
                          Result y, Result gap, Result iterations, Result converged,
                          ffi::RemainingRets rest, Axes axes, double tol,
                          std::int64_t max_iterations) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Pixels pixels = pixels_of(x, axes);
    const std::size_t d = pixels.sizes.size(), elements = pixels.elements;
    require(start.size() == d && rest.size() == d + 1, "wrong number of operands");
    check_stop_rule(tol, max_iterations);
    require(gap->element_type() == x.element_type() &&
                iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED &&
                gap->element_count() == elements && iterations->element_count() == elements &&
                converged->element_count() == elements,
            "wrong info results");
    Isotropic<T> op{};
    op.x = in<T>(x);
    op.w = in<T>(w);
    op.per_pixel = check_pixel_weights(w, x, axes[0]);
    op.y = shaped_as<T>(x, y);
    op.gap = out<T>(gap);
    op.iterations = out<std::int32_t>(iterations);
    op.converged = out<bool>(converged);
    for (std::size_t a = 0; a < d; ++a) {
      const Buffer from = start.get<Buffer>(a).value();
      check_same(from, x);
      op.start.push_back(in<T>(from));
      op.dual.push_back(shaped_as<T>(x, rest.get<Buffer>(a).value()));
    }
    Result joined = rest.get<Buffer>(d).value();
    require(joined->element_type() == ffi::DataType::U8 &&
                std::int64_t(joined->element_count()) == pixels.elements * pixels.count(),
            "wrong marks of joined pixels");
    op.joined = out<std::uint8_t>(joined);
    isotropic(pool_of(pool), pixels, {.tol = tol, .max_iterations = max_iterations}, op);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxtv_isotropic, isotropic_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .RemainingArgs()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>()
                                  .RemainingRets()
                                  .Attr<Axes>("axes")
                                  .Attr<double>("tol")
                                  .Attr<std::int64_t>("max_iterations"));

}  // namespace jaxtv::cpu
