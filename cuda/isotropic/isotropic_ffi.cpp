// XLA FFI handler of the steps of the isotropic prox.
#include "handler.hpp"
#include "isotropic/isotropic.hpp"
#include "scratch.hpp"

namespace jaxtv::cuda {
namespace {

Pixels pixels_of(Buffer x, Axes axes) {
  const Dims d = x.dimensions();
  const std::int64_t first = check_pixel_axes(x, axes);
  Pixels pixels{.elements = 1, .channels = d[first], .axes = int(axes.size()) - 1, .sizes = {}};
  for (std::int64_t i = 0; i < first; ++i) pixels.elements *= d[i];
  for (int a = 0; a < pixels.axes; ++a) pixels.sizes[a] = d[first + 1 + a];
  return pixels;
}

// The memory of an array of `count` numbers that the call updates: XLA hands it over as an operand
// and as a result.
template <class T>
T* updated(Buffer from, Result to, ffi::DataType type, std::int64_t count) {
  require(from.element_type() == type && to->element_type() == type &&
              std::int64_t(from.element_count()) == count &&
              std::int64_t(to->element_count()) == count,
          "wrong state");
  require(from.untyped_data() == to->untyped_data(), "the state must be updated in place");
  return out<T>(to);
}

ffi::Error steps(cudaStream_t stream, Buffer x, Buffer w, Buffer duals, Buffer counts, Buffer reals,
                 Result new_duals, Result new_counts, Result new_reals, Result scratch, Axes axes,
                 double tol, std::int64_t max_iterations) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Pixels pixels = pixels_of(x, axes);
    check_stop_rule(tol, max_iterations);
    const ffi::DataType type = x.element_type();
    const std::int64_t samples = pixels.elements * pixels.channels * pixels.count();
    const IsotropicSteps<T> op{
        .x = in<T>(x),
        .w = in<T>(w),
        .per_pixel = check_pixel_weights(w, x, axes[0]),
        .state = {.duals = updated<T>(duals, new_duals, type, kDualBuffers * pixels.axes * samples),
                  .counts = updated<int>(counts, new_counts, ffi::DataType::S32,
                                         kCounts * pixels.elements),
                  .reals = updated<T>(reals, new_reals, type, kReals * pixels.elements)},
        .tol = tol,
        .max_iterations = int(max_iterations)};
    void* memory = checked_scratch(scratch, isotropic_scratch(pixels));
    check(isotropic_steps(stream, pixels, op, memory));
  });
}

}  // namespace

JAXTV_HANDLER(jaxtv_isotropic_steps, steps,
              bind()
                  .Arg<Buffer>()
                  .Arg<Buffer>()
                  .Arg<Buffer>()
                  .Arg<Buffer>()
                  .Arg<Buffer>()
                  .Ret<Buffer>()
                  .Ret<Buffer>()
                  .Ret<Buffer>()
                  .Ret<Buffer>()
                  .Attr<Axes>("axes")
                  .Attr<double>("tol")
                  .Attr<std::int64_t>("max_iterations"));

}  // namespace jaxtv::cuda
