// XLA FFI handlers of Dykstra's iteration and its derivatives.
#include "dykstra/dykstra.hpp"
#include "handler.hpp"

namespace jaxtv::cuda {
namespace {

Iteration iteration_of(Buffer x, Axes axes, std::int64_t iterations) {
  Iteration it{1, 1, iterations, int(axes.size()), {}};
  std::int64_t lead = first_axis_of(x, axes, iterations);
  // All signals of a single axis are one element where their masks are one: a tile has many then.
  if (it.axes == 1 && it.planes() == 1) lead = 0;
  const Dims d = x.dimensions();
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) (i < lead ? it.batch : it.size) *= d[i];
  for (int a = 0; a < it.axes; ++a) {
    const Extents e = extents_of(x, axes[a], lead);
    it.shapes[a] = {it.batch, e.outer, e.n, e.inner};
  }
  return it;
}
std::int64_t mask_size(const Iteration& it) { return it.batch * it.planes() * it.size; }

template <class T>
PerAxis<const T> weights_of(ffi::RemainingArgs ws, Buffer x, Axes axes) {
  require(ws.size() == axes.size(), "one weight operand per axis");
  PerAxis<const T> w{};
  for (std::size_t a = 0; a < axes.size(); ++a) {
    const Buffer b = ws.get<Buffer>(a).value();
    w.data[a] = in<T>(b);
    w.per_edge[a] = check_weights(b, x, axes[a]);
  }
  return w;
}

// masks: null for the iteration alone.
ffi::Error run(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y, Result* masks,
               Result scratch, Axes axes, std::int64_t iterations, std::int64_t method, double tol,
               std::int64_t max_iterations, std::int64_t line_search) {
  return with_data(x.element_type(), [&](auto t) {
    using D = typename decltype(t)::type;
    using T = Compute<D>;
    const Iteration it = iteration_of(x, axes, iterations);
    const Solver inner = solver_of(method, tol, max_iterations, line_search);
    check_same(*y, x);
    if (masks) check_codes(**masks, mask_size(it));
    const PerAxis<const T> w = weights_of<T>(ws, x, axes);
    void* space = workspace(scratch, dykstra_workspace<D>(it, inner, masks != nullptr));
    std::uint8_t* codes = masks ? out<std::uint8_t>(*masks) : nullptr;
    check(dykstra(stream, it, inner, in<D>(x), w, out<D>(y), codes, space));
  });
}

ffi::Error dykstra_forward(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y,
                           Result scratch, Axes axes, std::int64_t iterations, std::int64_t method,
                           double tol, std::int64_t max_iterations, std::int64_t line_search) {
  return run(stream, x, ws, y, nullptr, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error dykstra_with_codes(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y,
                              Result masks, Result scratch, Axes axes, std::int64_t iterations,
                              std::int64_t method, double tol, std::int64_t max_iterations,
                              std::int64_t line_search) {
  return run(stream, x, ws, y, &masks, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error dykstra_jvp(cudaStream_t stream, Buffer masks, Buffer tx, ffi::RemainingArgs tws,
                       Result ty, Result scratch, Axes axes, std::int64_t iterations) {
  return with_data(tx.element_type(), [&](auto t) {
    using D = typename decltype(t)::type;
    using T = Compute<D>;
    const Iteration it = iteration_of(tx, axes, iterations);
    check_codes(masks, mask_size(it));
    check_same(*ty, tx);
    const PerAxis<const T> tw = weights_of<T>(tws, tx, axes);
    void* space = workspace(scratch, dykstra_derivative_workspace<D>(it));
    check(dykstra_push(stream, it, in<std::uint8_t>(masks), in<D>(tx), tw, out<D>(ty), space));
  });
}

ffi::Error dykstra_vjp(cudaStream_t stream, Buffer masks, Buffer g, Result gx,
                       ffi::RemainingRets rest, Axes axes, std::int64_t iterations) {
  return with_data(g.element_type(), [&](auto t) {
    using D = typename decltype(t)::type;
    using T = Compute<D>;
    const Iteration it = iteration_of(g, axes, iterations);
    check_codes(masks, mask_size(it));
    check_same(*gx, g);
    require(rest.size() == axes.size() + 1, "one weight result per axis, and a workspace");
    PerAxis<T> gw{};
    for (std::size_t a = 0; a < axes.size(); ++a) {
      Result r = rest.get<Buffer>(a).value();
      gw.data[a] = out<T>(r);
      gw.per_edge[a] = check_weights(*r, g, axes[a]);
    }
    void* space =
        workspace(rest.get<Buffer>(axes.size()).value(), dykstra_derivative_workspace<D>(it));
    check(dykstra_pull(stream, it, in<std::uint8_t>(masks), in<D>(g), out<D>(gx), gw, space));
  });
}

}  // namespace

JAXTV_HANDLER(
    jaxtv_dykstra, dykstra_forward,
    with_solver(with_axes(bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>())));
JAXTV_HANDLER(jaxtv_dykstra_with_codes, dykstra_with_codes,
              with_solver(with_axes(
                  bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>().Ret<Buffer>())));
JAXTV_HANDLER(
    jaxtv_dykstra_jvp, dykstra_jvp,
    with_axes(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_dykstra_vjp, dykstra_vjp,
              with_axes(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cuda
