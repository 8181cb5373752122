// XLA FFI handler of the isotropic prox.
#include "checks.hpp"
#include "isotropic/isotropic.hpp"
#include "operands.hpp"
#include "targets.hpp"

namespace jaxtv::cpu {
namespace {

// The axes are those of the channels and the spatial ones: the last of x, in order.
Pixels pixels_of(Buffer x, Axes axes) {
  const Dims d = x.dimensions();
  const std::int64_t first = first_axis_of(x, axes, 1);
  require(axes.size() >= 2, "two axes at least");
  for (std::size_t i = 0; i < axes.size(); ++i)
    require(axes[i] == first + std::int64_t(i), "axes must be in order");
  require(first + axes.size() == d.size(), "axes must be the last ones");
  Pixels pixels{1, d[first], {d.begin() + first + 1, d.end()}};
  for (std::int64_t i = 0; i < first; ++i) pixels.elements *= d[i];
  return pixels;
}

// Weights have one channel, and one value per pixel or one per element.
bool check_pixel_weights(Buffer w, Buffer x, const Pixels& pixels) {
  require(w.element_type() == x.element_type(), "operands differ in dtype");
  const Dims d = w.dimensions(), e = x.dimensions();
  require(d.size() == e.size(), "operands differ in rank");
  const std::size_t channel = d.size() - pixels.sizes.size() - 1;
  bool one = true, all = true;
  for (std::size_t i = 0; i < d.size(); ++i) {
    if (i < channel) require(d[i] == e[i], "operands differ in shape");
    if (i == channel) require(d[i] == 1, "weights have one channel");
    if (i > channel) one &= d[i] == 1, all &= d[i] == e[i];
  }
  require(one || all, "weights are one per pixel or one per element");
  return all;
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
    require(tol >= 0 && max_iterations >= 1 && max_iterations < kMostIterations,
            "bad solver options");
    require(gap->element_type() == x.element_type() &&
                iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED &&
                gap->element_count() == elements && iterations->element_count() == elements &&
                converged->element_count() == elements,
            "wrong info results");
    Isotropic<T> op{};
    op.x = in<T>(x);
    op.w = in<T>(w);
    op.per_pixel = check_pixel_weights(w, x, pixels);
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
