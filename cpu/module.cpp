// XLA FFI handlers of the CPU kernels, and the Python module that hands them to JAX.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>

#include "prox.hpp"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace jaxtv::cpu {
namespace {

using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<Buffer>;
using Dims = ffi::AnyBuffer::Dimensions;

// Thrown by the checks below, returned to XLA as an InvalidArgument error.
struct Invalid {
  std::string message;
};
void require(bool ok, const char* message) {
  if (!ok) throw Invalid{std::string("jaxtv: ") + message};
}

template <class F>
ffi::Error guarded(F f) {
  try {
    f();
    return ffi::Error::Success();
  } catch (const Invalid& e) {
    return ffi::Error::InvalidArgument(e.message);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxtv: out of memory for scratch");
  } catch (const std::exception& e) {
    return ffi::Error::Internal(std::string("jaxtv: ") + e.what());
  }
}

template <class F>
ffi::Error with_type(ffi::DataType type, F f) {
  return guarded([&] {
    if (type == ffi::DataType::F32)
      f(float{});
    else if (type == ffi::DataType::F64)
      f(double{});
    else
      require(false, "dtype must be float32 or float64");
  });
}

Pool pool_of(ffi::ThreadPool& pool) {
  return {pool.num_threads(), [&pool](std::function<void()> task) {
            pool.Schedule([task = std::move(task)] { task(); });
          }};
}

// Checks that `b` is shaped as `like`, except that the axis may have any size in `sizes`.
void check_like(Buffer b, Buffer like, std::int64_t axis,
                std::initializer_list<std::int64_t> sizes) {
  require(b.element_type() == like.element_type(), "operands differ in dtype");
  const Dims d = b.dimensions(), e = like.dimensions();
  require(d.size() == e.size(), "operands differ in rank");
  for (std::size_t i = 0; i < d.size(); ++i)
    if (std::int64_t(i) != axis) require(d[i] == e[i], "operands differ in shape");
  if (axis < 0) return;
  bool ok = false;
  for (std::int64_t size : sizes) ok |= d[axis] == size;
  require(ok, "wrong size along the prox axis");
}
void check_same(Buffer b, Buffer like) { check_like(b, like, -1, {}); }

Shape shape_of(Buffer x, std::int64_t axis) {
  const Dims d = x.dimensions();
  require(axis >= 0 && axis < std::int64_t(d.size()), "axis out of range");
  Shape s{1, d[axis], 1};
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) {
    if (i < axis) s.outer *= d[i];
    if (i > axis) s.inner *= d[i];
  }
  return s;
}

template <class T>
Weights<T> weights_of(Buffer w, Buffer like, std::int64_t axis) {
  const std::int64_t n = like.dimensions()[axis];
  check_like(w, like, axis, {1, n - 1});
  return {static_cast<const T*>(w.untyped_data()), w.dimensions()[axis] != 1};
}

Solver solver_of(std::int64_t method, double tol, std::int64_t max_iterations,
                 std::int64_t line_search) {
  require(method >= 0 && method <= 3, "unknown method");
  require(line_search == 0 || line_search == 1, "unknown line search");
  require(tol >= 0 && max_iterations >= 1, "bad solver options");
  return {Method(method), tol, max_iterations, int(line_search)};
}

template <class T>
T* out(Result r) {
  return static_cast<T*>(r->untyped_data());
}
template <class T>
const T* in(Buffer b) {
  return static_cast<const T*>(b.untyped_data());
}

// ---- 1D ----

template <class T>
Sweep<T> sweep_of(Buffer x, Buffer w, Result y, std::int64_t axis) {
  Sweep<T> s{};
  s.shape = shape_of(x, axis);
  check_same(*y, x);
  s.x = in<T>(x);
  s.w = weights_of<T>(w, x, axis);
  s.y = out<T>(y);
  return s;
}

ffi::Error prox1d_impl(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, std::int64_t axis,
                       std::int64_t method, double tol, std::int64_t max_iterations,
                       std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    prox1d(pool_of(pool), sweep_of<decltype(t)>(x, w, y, axis),
           solver_of(method, tol, max_iterations, line_search));
  });
}

ffi::Error prox1d_info_impl(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Result gap,
                            Result iterations, Result converged, std::int64_t axis,
                            std::int64_t method, double tol, std::int64_t max_iterations,
                            std::int64_t line_search) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    Sweep<T> s = sweep_of<T>(x, w, y, axis);
    check_like(*gap, x, axis, {1});
    require(iterations->element_type() == ffi::DataType::S32 &&
                converged->element_type() == ffi::DataType::PRED &&
                iterations->element_count() == gap->element_count() &&
                converged->element_count() == gap->element_count(),
            "wrong info results");
    s.gap = out<T>(gap);
    s.iterations = out<std::int32_t>(iterations);
    s.converged = out<bool>(converged);
    prox1d(pool_of(pool), s, solver_of(method, tol, max_iterations, line_search));
  });
}

template <class T>
Segments<T> segments_of(Buffer y, Buffer w, std::int64_t axis) {
  return {shape_of(y, axis), in<T>(y), weights_of<T>(w, y, axis), nullptr, 0};
}

ffi::Error segment_jvp_impl(ffi::ThreadPool pool, Buffer y, Buffer w, Buffer tx, Buffer tw,
                            Result ty, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Segments<T> segments = segments_of<T>(y, w, axis);
    check_same(tx, y);
    check_same(*ty, y);
    check_same(tw, w);
    segment_push<T>(pool_of(pool), {segments, in<T>(tx), weights_of<T>(tw, y, axis), out<T>(ty)});
  });
}

ffi::Error segment_vjp_impl(ffi::ThreadPool pool, Buffer y, Buffer w, Buffer g, Result gx,
                            Result gw, std::int64_t axis) {
  return with_type(y.element_type(), [&](auto t) {
    using T = decltype(t);
    const Segments<T> segments = segments_of<T>(y, w, axis);
    check_same(g, y);
    check_same(*gx, y);
    check_same(*gw, w);
    segment_pull<T>(pool_of(pool),
                    {segments, in<T>(g), out<T>(gx), out<T>(gw), segments.w.per_edge, false});
  });
}

// ---- Dykstra ----

Iteration iteration_of(Buffer x, ffi::Span<const std::int64_t> axes, std::int64_t iterations) {
  const Dims d = x.dimensions();
  require(axes.size() >= 1 && axes.size() <= std::size_t(kMaxAxes), "bad number of axes");
  require(iterations >= 1, "iterations must be positive");
  std::int64_t lead = std::int64_t(d.size());
  std::uint64_t seen = 0;
  for (std::int64_t a : axes) {
    require(a >= 0 && a < std::int64_t(d.size()) && a < 64, "axis out of range");
    require((seen >> a & 1) == 0, "axes must differ");
    seen |= std::uint64_t(1) << a;
    lead = std::min(lead, a);
  }
  Iteration it{1, {}, {}, iterations};
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) {
    if (i < lead)
      it.batch *= d[i];
    else
      it.core.push_back(d[i]);
  }
  for (std::int64_t a : axes) it.axes.push_back(a - lead);
  return it;
}

void check_masks(Buffer masks, Buffer x, const Iteration& it) {
  require(masks.element_type() == ffi::DataType::U8, "masks must be uint8");
  require(std::int64_t(masks.element_count()) == it.batch * it.planes() * it.core_size(),
          "wrong mask shape");
  (void)x;
}

template <class T>
std::vector<Weights<T>> all_weights(ffi::RemainingArgs args, Buffer x,
                                    ffi::Span<const std::int64_t> axes) {
  require(args.size() == axes.size(), "one weight operand per axis");
  std::vector<Weights<T>> w;
  for (std::size_t a = 0; a < axes.size(); ++a)
    w.push_back(weights_of<T>(args.get<Buffer>(a).value(), x, axes[a]));
  return w;
}

ffi::Error dykstra_any(ffi::ThreadPool& pool, Buffer x, ffi::RemainingArgs ws, Result y,
                       std::optional<Result> masks, ffi::Span<const std::int64_t> axes,
                       std::int64_t iterations, const auto& solver) {
  return with_type(x.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(x, axes, iterations);
    check_same(*y, x);
    std::uint8_t* mask = nullptr;
    if (masks) {
      check_masks(**masks, x, it);
      mask = out<std::uint8_t>(*masks);
    }
    dykstra<T>(pool_of(pool), it, solver(), in<T>(x), all_weights<T>(ws, x, axes), out<T>(y), mask);
  });
}

ffi::Error dykstra_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y,
                        ffi::Span<const std::int64_t> axes, std::int64_t iterations,
                        std::int64_t method, double tol, std::int64_t max_iterations,
                        std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, std::nullopt, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_masked_impl(ffi::ThreadPool pool, Buffer x, ffi::RemainingArgs ws, Result y,
                               Result masks, ffi::Span<const std::int64_t> axes,
                               std::int64_t iterations, std::int64_t method, double tol,
                               std::int64_t max_iterations, std::int64_t line_search) {
  return dykstra_any(pool, x, ws, y, masks, axes, iterations,
                     [&] { return solver_of(method, tol, max_iterations, line_search); });
}

ffi::Error dykstra_jvp_impl(ffi::ThreadPool pool, Buffer masks, Buffer tx, ffi::RemainingArgs tws,
                            Result ty, ffi::Span<const std::int64_t> axes,
                            std::int64_t iterations) {
  return with_type(tx.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(tx, axes, iterations);
    check_masks(masks, tx, it);
    check_same(*ty, tx);
    dykstra_push<T>(pool_of(pool), it, in<std::uint8_t>(masks), in<T>(tx),
                    all_weights<T>(tws, tx, axes), out<T>(ty));
  });
}

ffi::Error dykstra_vjp_impl(ffi::ThreadPool pool, Buffer masks, Buffer g, Result gx,
                            ffi::RemainingRets gws, ffi::Span<const std::int64_t> axes,
                            std::int64_t iterations) {
  return with_type(g.element_type(), [&](auto t) {
    using T = decltype(t);
    const Iteration it = iteration_of(g, axes, iterations);
    check_masks(masks, g, it);
    check_same(*gx, g);
    require(gws.size() == axes.size(), "one weight result per axis");
    std::vector<T*> gw;
    std::vector<bool> per_edge;
    for (std::size_t a = 0; a < axes.size(); ++a) {
      Result r = gws.get<Buffer>(a).value();
      per_edge.push_back(weights_of<T>(*r, g, axes[a]).per_edge);
      gw.push_back(out<T>(r));
    }
    dykstra_pull<T>(pool_of(pool), it, in<std::uint8_t>(masks), in<T>(g), out<T>(gx), gw, per_edge);
  });
}

// ---- bindings ----

using Axes = ffi::Span<const std::int64_t>;

template <class B>
auto with_solver(B&& binding) {
  return std::forward<B>(binding)
      .template Attr<std::int64_t>("method")
      .template Attr<double>("tol")
      .template Attr<std::int64_t>("max_iterations")
      .template Attr<std::int64_t>("line_search");
}

auto binding() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

XLA_FFI_DEFINE_HANDLER(
    prox1d_handler, prox1d_impl,
    with_solver(binding().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Attr<std::int64_t>("axis")));
XLA_FFI_DEFINE_HANDLER(prox1d_info_handler, prox1d_info_impl,
                       with_solver(binding()
                                       .Arg<Buffer>()
                                       .Arg<Buffer>()
                                       .Ret<Buffer>()
                                       .Ret<Buffer>()
                                       .Ret<Buffer>()
                                       .Ret<Buffer>()
                                       .Attr<std::int64_t>("axis")));
XLA_FFI_DEFINE_HANDLER(segment_jvp_handler, segment_jvp_impl,
                       binding()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Ret<Buffer>()
                           .Attr<std::int64_t>("axis"));
XLA_FFI_DEFINE_HANDLER(segment_vjp_handler, segment_vjp_impl,
                       binding()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Ret<Buffer>()
                           .Ret<Buffer>()
                           .Attr<std::int64_t>("axis"));
XLA_FFI_DEFINE_HANDLER(
    dykstra_handler, dykstra_impl,
    with_solver(
        binding().Arg<Buffer>().RemainingArgs().Ret<Buffer>().Attr<Axes>("axes").Attr<std::int64_t>(
            "iterations")));
XLA_FFI_DEFINE_HANDLER(dykstra_masked_handler, dykstra_masked_impl,
                       with_solver(binding()
                                       .Arg<Buffer>()
                                       .RemainingArgs()
                                       .Ret<Buffer>()
                                       .Ret<Buffer>()
                                       .Attr<Axes>("axes")
                                       .Attr<std::int64_t>("iterations")));
XLA_FFI_DEFINE_HANDLER(dykstra_jvp_handler, dykstra_jvp_impl,
                       binding()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .RemainingArgs()
                           .Ret<Buffer>()
                           .Attr<Axes>("axes")
                           .Attr<std::int64_t>("iterations"));
XLA_FFI_DEFINE_HANDLER(dykstra_vjp_handler, dykstra_vjp_impl,
                       binding()
                           .Arg<Buffer>()
                           .Arg<Buffer>()
                           .Ret<Buffer>()
                           .RemainingRets()
                           .Attr<Axes>("axes")
                           .Attr<std::int64_t>("iterations"));

nb::dict targets() {
  nb::dict d;
  const auto add = [&](const char* name, auto* handler) {
    d[name] = nb::capsule(reinterpret_cast<void*>(handler));
  };
  add("jaxtv_prox1d", prox1d_handler);
  add("jaxtv_prox1d_info", prox1d_info_handler);
  add("jaxtv_segment_jvp", segment_jvp_handler);
  add("jaxtv_segment_vjp", segment_vjp_handler);
  add("jaxtv_dykstra", dykstra_handler);
  add("jaxtv_dykstra_masked", dykstra_masked_handler);
  add("jaxtv_dykstra_jvp", dykstra_jvp_handler);
  add("jaxtv_dykstra_vjp", dykstra_vjp_handler);
  return d;
}

}  // namespace
}  // namespace jaxtv::cpu

NB_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of jaxtv as XLA FFI handlers.";
  m.def("targets", &jaxtv::cpu::targets, "Target name -> handler capsule.");
  m.def(
      "isa", [] { return std::string(jaxtv::cpu::isa().name); }, "Vector instruction set in use.");
  m.attr("ffi_api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
}
