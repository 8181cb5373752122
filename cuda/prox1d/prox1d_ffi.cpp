// XLA FFI handlers of the 1D prox.
#include "handler.hpp"
#include "prox1d/prox1d.hpp"
#include "scratch.hpp"

namespace jaxtv::cuda {
namespace {

template <class Sample>
Prox<Sample> prox_of(Buffer x, Buffer w, Result y, std::int64_t axis) {
  check_same(*y, x);
  return {.x = in<Sample>(x),
          .w = in<Compute<Sample>>(w),
          .per_edge = check_weights(w, x, axis),
          .y = out<Sample>(y)};
}

template <class Sample>
void run(cudaStream_t stream, Buffer x, const Prox<Sample>& op, Result scratch, std::int64_t axis,
         const Solver& solver) {
  const Shape shape = shape_of(x, axis);
  void* memory = checked_scratch(scratch, prox1d_scratch(shape, solver.method));
  check(prox1d(stream, shape, op, solver, memory));
}

ffi::Error prox(cudaStream_t stream, Buffer x, Buffer w, Result y, Result scratch,
                std::int64_t axis, std::int64_t method, double tol, std::int64_t max_iterations,
                std::int64_t line_search) {
  return with_sample_type(x.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    const Solver solver = solver_of(method, tol, max_iterations, line_search);
    shape_of(x, axis);  // checks the axis first
    run(stream, x, prox_of<Sample>(x, w, y, axis), scratch, axis, solver);
  });
}

ffi::Error prox_info(cudaStream_t stream, Buffer x, Buffer w, Result y, Result gap,
                     Result iterations, Result converged, Result scratch, std::int64_t axis,
                     std::int64_t method, double tol, std::int64_t max_iterations,
                     std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto number) {
    using T = decltype(number);
    const Solver solver = solver_of(method, tol, max_iterations, line_search);
    shape_of(x, axis);
    Prox<T> op = prox_of<T>(x, w, y, axis);
    check_info(gap, iterations, converged, x, axis);
    op.gap = out<T>(gap);
    op.iterations = out<std::int32_t>(iterations);
    op.converged = out<bool>(converged);
    run(stream, x, op, scratch, axis, solver);
  });
}

ffi::Error prox_data_weight(cudaStream_t stream, Buffer x, Buffer mass, Buffer w, Result y,
                            Result scratch, std::int64_t axis) {
  return with_type(x.element_type(), [&](auto number) {
    using T = decltype(number);
    const Shape shape = shape_of(x, axis);
    check_same(mass, x);
    check_same(*y, x);
    const DataWeightProx<T> op{.x = in<T>(x),
                               .mass = in<T>(mass),
                               .w = in<T>(w),
                               .per_edge = check_weights(w, x, axis),
                               .y = out<T>(y)};
    void* memory = checked_scratch(scratch, prox1d_data_weight_scratch(shape));
    check(prox1d_data_weight(stream, shape, op, memory));
  });
}

}  // namespace

JAXTV_HANDLER(
    jaxtv_prox1d, prox,
    with_solver(with_axis(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>())));
JAXTV_HANDLER(jaxtv_prox1d_info, prox_info,
              with_solver(with_axis(bind()
                                        .Arg<Buffer>()
                                        .Arg<Buffer>()
                                        .Ret<Buffer>()
                                        .Ret<Buffer>()
                                        .Ret<Buffer>()
                                        .Ret<Buffer>()
                                        .Ret<Buffer>())));
JAXTV_HANDLER(
    jaxtv_prox1d_data_weight, prox_data_weight,
    with_axis(bind().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>()));

}  // namespace jaxtv::cuda
