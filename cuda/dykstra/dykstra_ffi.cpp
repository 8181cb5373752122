// XLA FFI handlers of Dykstra's iteration and its derivatives.
#include "dykstra/image_tiling.hpp"
#include "handler.hpp"
#include "scratch.hpp"

namespace jaxtv::cuda {
namespace {

Iteration iteration_of(Buffer x, Axes axes, std::int64_t iterations) {
  Iteration it{
      .batch = 1, .size = 1, .iterations = iterations, .axes = int(axes.size()), .shapes = {}};
  std::int64_t lead = first_axis_of(x, axes, iterations);
  // Along a single axis, with one byte of codes per sample, all signals are one element: a tile
  // then has many of them.
  if (it.axes == 1 && it.bytes_per_sample() == 1) lead = 0;
  const Dims d = x.dimensions();
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) (i < lead ? it.batch : it.size) *= d[i];
  for (int a = 0; a < it.axes; ++a) {
    const Extents e = extents_of(x, axes[a], lead);
    it.shapes[a] = {.batch = it.batch, .outer = e.outer, .n = e.n, .inner = e.inner};
  }
  return it;
}
std::int64_t codes_size(const Iteration& it) { return it.batch * it.bytes_per_sample() * it.size; }

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

// codes: null for the iteration alone.
ffi::Error run(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y, Result* codes,
               Result scratch, Axes axes, std::int64_t iterations, std::int64_t method, double tol,
               std::int64_t max_iterations, std::int64_t line_search) {
  return with_sample_type(x.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    const Iteration it = iteration_of(x, axes, iterations);
    const Solver inner = solver_of(method, tol, max_iterations, line_search);
    check_same(*y, x);
    if (codes) check_codes(**codes, codes_size(it));
    const PerAxis<const Compute<Sample>> w = weights_of<Compute<Sample>>(ws, x, axes);
    const bool with_codes = codes != nullptr;
    void* memory = checked_scratch(
        scratch, dykstra_scratch<Sample>(it, inner.method, with_codes, max_shared()));
    check(dykstra(stream, it, inner, in<Sample>(x), w, out<Sample>(y),
                  with_codes ? out<std::uint8_t>(*codes) : nullptr, memory));
  });
}

ffi::Error without_codes(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y,
                         Result scratch, Axes axes, std::int64_t iterations, std::int64_t method,
                         double tol, std::int64_t max_iterations, std::int64_t line_search) {
  return run(stream, x, ws, y, nullptr, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error with_codes(cudaStream_t stream, Buffer x, ffi::RemainingArgs ws, Result y, Result codes,
                      Result scratch, Axes axes, std::int64_t iterations, std::int64_t method,
                      double tol, std::int64_t max_iterations, std::int64_t line_search) {
  return run(stream, x, ws, y, &codes, scratch, axes, iterations, method, tol, max_iterations,
             line_search);
}

ffi::Error jvp(cudaStream_t stream, Buffer codes, Buffer tx, ffi::RemainingArgs tws, Result ty,
               Result scratch, Axes axes, std::int64_t iterations) {
  return with_sample_type(tx.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    using T = Compute<Sample>;
    const Iteration it = iteration_of(tx, axes, iterations);
    check_codes(codes, codes_size(it));
    check_same(*ty, tx);
    const PerAxis<const T> tw = weights_of<T>(tws, tx, axes);
    void* memory = checked_scratch(scratch, dykstra_derivative_scratch<Sample>(it, max_shared()));
    check(dykstra_jvp(stream, it, in<std::uint8_t>(codes), in<Sample>(tx), tw, out<Sample>(ty),
                      memory));
  });
}

ffi::Error vjp(cudaStream_t stream, Buffer codes, Buffer g, Result gx, ffi::RemainingRets rest,
               Axes axes, std::int64_t iterations) {
  return with_sample_type(g.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    using T = Compute<Sample>;
    const Iteration it = iteration_of(g, axes, iterations);
    check_codes(codes, codes_size(it));
    check_same(*gx, g);
    require(rest.size() == axes.size() + 1, "one weight result per axis, and scratch");
    PerAxis<T> gw{};
    for (std::size_t a = 0; a < axes.size(); ++a) {
      Result r = rest.get<Buffer>(a).value();
      gw.data[a] = out<T>(r);
      gw.per_edge[a] = check_weights(*r, g, axes[a]);
    }
    void* memory = checked_scratch(rest.get<Buffer>(axes.size()).value(),
                                   dykstra_derivative_scratch<Sample>(it, max_shared()));
    check(dykstra_vjp(stream, it, in<std::uint8_t>(codes), in<Sample>(g), out<Sample>(gx), gw,
                      memory));
  });
}

}  // namespace

JAXTV_HANDLER(
    jaxtv_dykstra, without_codes,
    with_solver(with_axes(bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>())));
JAXTV_HANDLER(jaxtv_dykstra_with_codes, with_codes,
              with_solver(with_axes(
                  bind().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>().Ret<Buffer>())));
JAXTV_HANDLER(
    jaxtv_dykstra_jvp, jvp,
    with_axes(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_dykstra_vjp, vjp,
              with_axes(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cuda
