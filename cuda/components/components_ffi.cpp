// XLA FFI handlers of the derivative of the converged N-D prox.
#include "components/components.hpp"
#include "handler.hpp"

namespace jaxtv::cuda {
namespace {

Grid grid_of(Buffer x, Axes axes, Buffer masks) {
  require(axes.size() >= 2, "two axes at least");
  const std::int64_t lead = first_axis_of(x, axes, 1);
  const Dims d = x.dimensions();
  Grid grid{1, 1, int(axes.size()), {}};
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i)
    (i < lead ? grid.batch : grid.size) *= d[i];
  for (int a = 0; a < grid.axes; ++a) {
    const Extents e = extents_of(x, axes[a], lead);
    grid.along[a] = {1, e.outer, e.n, e.inner};
  }
  check_codes(masks, grid.batch * grid.planes() * grid.size);
  return grid;
}

ffi::Error components_jvp(cudaStream_t stream, Buffer masks, Buffer tx, ffi::RemainingArgs tws,
                          Result ty, Result scratch, Axes axes) {
  return with_data(tx.element_type(), [&](auto t) {
    using D = typename decltype(t)::type;
    const Grid grid = grid_of(tx, axes, masks);
    check_same(*ty, tx);
    require(tws.size() == axes.size(), "one weight operand per axis");
    GridWeights<const Compute<D>> tw{};
    for (int a = 0; a < grid.axes; ++a) {
      const Buffer b = tws.get<Buffer>(a).value();
      tw.per_edge[a] = check_weights(b, tx, axes[a]);
      tw.data[a] = in<Compute<D>>(b);
    }
    void* space = workspace(scratch, components_workspace(grid, nullptr));
    check(components_push(stream, grid, in<std::uint8_t>(masks), in<D>(tx), tw, out<D>(ty), space));
  });
}

ffi::Error components_vjp(cudaStream_t stream, Buffer masks, Buffer g, Result gx,
                          ffi::RemainingRets rest, Axes axes) {
  return with_data(g.element_type(), [&](auto t) {
    using D = typename decltype(t)::type;
    const Grid grid = grid_of(g, axes, masks);
    check_same(*gx, g);
    require(rest.size() == axes.size() + 1, "one weight result per axis, and a workspace");
    GridWeights<Compute<D>> gw{};
    for (int a = 0; a < grid.axes; ++a) {
      Result r = rest.get<Buffer>(a).value();
      gw.per_edge[a] = check_weights(*r, g, axes[a]);
      gw.data[a] = out<Compute<D>>(r);
    }
    void* space =
        workspace(rest.get<Buffer>(axes.size()).value(), components_workspace(grid, gw.per_edge));
    check(components_pull(stream, grid, in<std::uint8_t>(masks), in<D>(g), out<D>(gx), gw, space));
  });
}

auto axes_only(auto&& binding) { return std::move(binding).template Attr<Axes>("axes"); }

}  // namespace

JAXTV_HANDLER(
    jaxtv_components_jvp, components_jvp,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_components_vjp, components_vjp,
              axes_only(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cuda
