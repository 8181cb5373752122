// XLA FFI handlers of the 1D prox.
#include "checks.hpp"
#include "handlers.hpp"
#include "prox1d.hpp"

namespace jaxtv::cuda {
namespace {

Solver solver_of(std::int64_t method, double tol, std::int64_t max_iterations,
                 std::int64_t line_search) {
  require(method >= 0 && method <= 3, "unknown method");
  require(line_search == 0 || line_search == 1, "unknown line search");
  require(tol >= 0 && max_iterations >= 1, "bad solver options");
  return {Method(method), tol, max_iterations, int(line_search)};
}

template <class T>
Prox<T> prox_of(Buffer x, Buffer w, Result y, std::int64_t axis) {
  check_same(*y, x);
  return {in<T>(x), in<T>(w), per_edge(w, x, axis), out<T>(y), nullptr, nullptr, nullptr};
}

template <class T>
Status run(cudaStream_t stream, Buffer x, const Prox<T>& op, Result scratch, std::int64_t axis,
           const Solver& solver) {
  const Shape shape = shape_of(x, axis);
  void* space = workspace(scratch, prox_workspace(shape, solver.method));
  return prox1d<T>(stream, shape, op, solver, space);
}

ffi::Error prox(cudaStream_t stream, Buffer x, Buffer w, Result y, Result scratch,
                std::int64_t axis, std::int64_t method, double tol, std::int64_t max_iterations,
                std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    const Solver solver = solver_of(method, tol, max_iterations, line_search);
    shape_of(x, axis);  // checks the axis first
    return run(stream, x, prox_of<decltype(t)>(x, w, y, axis), scratch, axis, solver);
  });
}

ffi::Error prox_info(cudaStream_t stream, Buffer x, Buffer w, Result y, Result gap,
                     Result iterations, Result converged, Result scratch, std::int64_t axis,
                     std::int64_t method, double tol, std::int64_t max_iterations,
                     std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Solver solver = solver_of(method, tol, max_iterations, line_search);
    shape_of(x, axis);
    Prox<T> op = prox_of<T>(x, w, y, axis);
    check_like(*gap, x, axis, {1});
    require(iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED &&
                iterations->element_count() == gap->element_count() &&
                converged->element_count() == gap->element_count(),
            "wrong info results");
    op.gap = out<T>(gap);
    op.iterations = out<std::int32_t>(iterations);
    op.converged = out<bool>(converged);
    return run(stream, x, op, scratch, axis, solver);
  });
}

auto solver_attributes(auto binding) {
  return std::move(binding)
      .template Attr<std::int64_t>("axis")
      .template Attr<std::int64_t>("method")
      .template Attr<double>("tol")
      .template Attr<std::int64_t>("max_iterations")
      .template Attr<std::int64_t>("line_search");
}

}  // namespace
}  // namespace jaxtv::cuda

using jaxtv::cuda::bind;
using jaxtv::cuda::Buffer;

JAXTV_HANDLER(
    jaxtv_prox1d, jaxtv::cuda::prox,
    jaxtv::cuda::solver_attributes(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_prox1d_info, jaxtv::cuda::prox_info,
              jaxtv::cuda::solver_attributes(bind()
                                                 .Arg<Buffer>()
                                                 .Arg<Buffer>()
                                                 .Ret<Buffer>()
                                                 .Ret<Buffer>()
                                                 .Ret<Buffer>()
                                                 .Ret<Buffer>()
                                                 .Ret<Buffer>()));
