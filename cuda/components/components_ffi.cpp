// XLA FFI handlers of the derivative of the converged N-D prox.
#include "components/components.hpp"
#include "handler.hpp"
#include "scratch.hpp"

namespace jaxtv::cuda {
namespace {

Grid grid_of(Buffer x, Axes axes, Buffer codes) {
  require(axes.size() >= 2, "two axes at least");
  const std::int64_t lead = first_axis_of(x, axes, 1);
  const Dims d = x.dimensions();
  Grid grid{.batch = 1, .size = 1, .axes = int(axes.size()), .shapes = {}};
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i)
    (i < lead ? grid.batch : grid.size) *= d[i];
  for (int a = 0; a < grid.axes; ++a) {
    const Extents e = extents_of(x, axes[a], lead);
    grid.shapes[a] = {.batch = 1, .outer = e.outer, .n = e.n, .inner = e.inner};
  }
  check_codes(codes, grid.batch * grid.bytes_per_sample() * grid.size);
  return grid;
}

ffi::Error jvp(cudaStream_t stream, Buffer codes, Buffer tx, ffi::RemainingArgs tws, Result ty,
               Result scratch, Axes axes) {
  return with_sample_type(tx.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    const Grid grid = grid_of(tx, axes, codes);
    check_same(*ty, tx);
    require(tws.size() == axes.size(), "one weight operand per axis");
    GridWeights<const Compute<Sample>> tw{};
    for (int a = 0; a < grid.axes; ++a) {
      const Buffer b = tws.get<Buffer>(a).value();
      tw.per_edge[a] = check_weights(b, tx, axes[a]);
      tw.data[a] = in<Compute<Sample>>(b);
    }
    void* memory = checked_scratch(scratch, components_scratch(grid, nullptr));
    check(components_jvp(stream, grid, in<std::uint8_t>(codes), in<Sample>(tx), tw, out<Sample>(ty),
                         memory));
  });
}

ffi::Error vjp(cudaStream_t stream, Buffer codes, Buffer g, Result gx, ffi::RemainingRets rest,
               Axes axes) {
  return with_sample_type(g.element_type(), [&](auto sample_type) {
    using Sample = typename decltype(sample_type)::type;
    const Grid grid = grid_of(g, axes, codes);
    check_same(*gx, g);
    require(rest.size() == axes.size() + 1, "one weight result per axis, and scratch");
    GridWeights<Compute<Sample>> gw{};
    for (int a = 0; a < grid.axes; ++a) {
      Result r = rest.get<Buffer>(a).value();
      gw.per_edge[a] = check_weights(*r, g, axes[a]);
      gw.data[a] = out<Compute<Sample>>(r);
    }
    void* memory = checked_scratch(rest.get<Buffer>(axes.size()).value(),
                                   components_scratch(grid, gw.per_edge));
    check(components_vjp(stream, grid, in<std::uint8_t>(codes), in<Sample>(g), out<Sample>(gx), gw,
                         memory));
  });
}

auto axes_only(auto&& binding) { return std::move(binding).template Attr<Axes>("axes"); }

}  // namespace

JAXTV_HANDLER(
    jaxtv_components_jvp, jvp,
    axes_only(bind().Arg<Buffer>().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Ret<Buffer>()));
JAXTV_HANDLER(jaxtv_components_vjp, vjp,
              axes_only(bind().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().RemainingRets()));

}  // namespace jaxtv::cuda
