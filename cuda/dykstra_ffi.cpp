// XLA FFI handlers of Dykstra's iteration and its derivatives.
#include "checks.hpp"
#include "dykstra.hpp"
#include "handlers.hpp"

namespace jaxtv::cuda {
namespace {

using Axes = ffi::Span<const std::int64_t>;

// Dims before the first axis are the batch.
Iteration iteration_of(Buffer x, Axes axes, std::int64_t iterations) {
  const Dims d = x.dimensions();
  require(axes.size() >= 1 && axes.size() <= std::size_t(kMaxAxes), "bad number of axes");
  require(iterations >= 1, "iterations must be positive");
  Iteration it{1, 1, iterations, int(axes.size()), {}};
  std::int64_t lead = std::int64_t(d.size());
  std::uint64_t seen = 0;
  for (int a = 0; a < it.axes; ++a) {
    it.shapes[a] = shape_of(x, axes[a]);
    require(axes[a] < 64 && (seen >> axes[a] & 1) == 0, "axes must differ");
    seen |= std::uint64_t(1) << axes[a];
    lead = std::min(lead, axes[a]);
  }
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) (i < lead ? it.batch : it.size) *= d[i];
  for (int a = 0; a < it.axes; ++a) {
    Shape& s = it.shapes[a];
    s.batch = it.batch;
    s.outer = 1;
    for (std::int64_t i = lead; i < axes[a]; ++i) s.outer *= d[i];
  }
  return it;
}

void check_masks(Buffer masks, const Iteration& it) {
  require(masks.element_type() == ffi::DataType::U8, "masks must be uint8");
  require(std::int64_t(masks.element_count()) == it.batch * it.planes() * it.size,
          "wrong mask shape");
}

template <class T>
PerAxis<const T> weights_of(ffi::RemainingArgs ws, Buffer x, Axes axes) {
  require(ws.size() == axes.size(), "one weight operand per axis");
  PerAxis<const T> w{};
  for (std::size_t a = 0; a < axes.size(); ++a) {
    const Buffer b = ws.get<Buffer>(a).value();
    w.data[a] = in<T>(b);
    w.per_edge[a] = per_edge(b, x, axes[a]);
  }
  return w;
}

Solver solver_of(std::int64_t method, double tol, std::int64_t max_iterations,
                 std::int64_t line_search) {
  require(method >= 0 && method <= 3, "unknown method");
  require(line_search == 0 || line_search == 1, "unknown line search");
  require(tol >= 0 && max_iterations >= 1, "bad solver options");
  return {Method(method), tol, max_iterations, int(line_search)};
}

// masks: null for the iteration alone.
ffi::Error run(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y, Result* masks,
               Result scratch, Axes axes, std::int64_t iterations, std::int64_t method, double tol,
               std::int64_t max_iterations, std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(x, axes, iterations);
    const Solver inner = solver_of(method, tol, max_iterations, line_search);
    check_same(*y, x);
    if (masks) check_masks(**masks, it);
    const PerAxis<const T> w = weights_of<T>(ws, x, axes);
    void* space = workspace(scratch, dykstra_workspace<T>(it, inner));
    std::uint8_t* codes = masks ? out<std::uint8_t>(*masks) : nullptr;
    return dykstra<T>(stream, it, inner, in<T>(x), w, out<T>(y), codes, space);
  });
}

ffi::Error dykstra_forward(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y,
                           Result scratch, Axes axes, std::int64_t iterations, std::int64_t method,
                           double tol, std::int64_t max_iterations, std::int64_t line_search) {
  return run(stream, x, ws, y, nullptr, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error dykstra_masked(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y,
                          Result masks, Result scratch, Axes axes, std::int64_t iterations,
                          std::int64_t method, double tol, std::int64_t max_iterations,
                          std::int64_t line_search) {
  return run(stream, x, ws, y, &masks, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error dykstra_jvp(cudaStream_t stream, Buffer masks, Buffer tx, ffi::RemainingArgs tws,
                       Result ty, Result scratch, Axes axes, std::int64_t iterations) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(tx, axes, iterations);
    check_masks(masks, it);
    check_same(*ty, tx);
    const PerAxis<const T> tw = weights_of<T>(tws, tx, axes);
    void* space = workspace(scratch, dykstra_derivative_workspace<T>(it));
    return dykstra_push<T>(stream, it, in<std::uint8_t>(masks), in<T>(tx), tw, out<T>(ty), space);
  });
}

ffi::Error dykstra_vjp(cudaStream_t stream, Buffer masks, Buffer g, Result gx,
                       ffi::RemainingRets rest, Axes axes, std::int64_t iterations) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(g, axes, iterations);
    check_masks(masks, it);
    check_same(*gx, g);
    require(rest.size() == axes.size() + 1, "one weight result per axis, and a workspace");
    PerAxis<T> gw{};
    for (std::size_t a = 0; a < axes.size(); ++a) {
      Result r = rest.get<Buffer>(a).value();
      gw.data[a] = out<T>(r);
      gw.per_edge[a] = per_edge(*r, g, axes[a]);
    }
    void* space =
        workspace(rest.get<Buffer>(axes.size()).value(), dykstra_derivative_workspace<T>(it));
    return dykstra_pull<T>(stream, it, in<std::uint8_t>(masks), in<T>(g), out<T>(gx), gw, space);
  });
}

auto iteration_attributes(auto&& binding) {
  return std::move(binding).template Attr<Axes>("axes").template Attr<std::int64_t>("iterations");
}
auto solver_attributes(auto&& binding) {
  return iteration_attributes(std::move(binding))
      .template Attr<std::int64_t>("method")
      .template Attr<double>("tol")
      .template Attr<std::int64_t>("max_iterations")
      .template Attr<std::int64_t>("line_search");
}

}  // namespace
}  // namespace jaxtv::cuda

using jaxtv::cuda::bind;
using jaxtv::cuda::Buffer;

JAXTV_HANDLER(jaxtv_dykstra, jaxtv::cuda::dykstra_forward,
              jaxtv::cuda::solver_attributes(
                  bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_dykstra_masked, jaxtv::cuda::dykstra_masked,
              jaxtv::cuda::solver_attributes(
                  bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_dykstra_jvp, jaxtv::cuda::dykstra_jvp,
              jaxtv::cuda::iteration_attributes(
                  bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_dykstra_vjp, jaxtv::cuda::dykstra_vjp,
              jaxtv::cuda::iteration_attributes(
                  bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));
