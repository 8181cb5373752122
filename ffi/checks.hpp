// What the FFI handlers of both native modules (cpu/, cuda/) share: the checks of operands and
// attributes, which turn a wrong call into an error of XLA, and access to XLA's buffers. Every
// operand and result of a handler passes one of these checks before its memory is touched.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "jaxtv/solver.hpp"
#include "xla/ffi/api/ffi.h"

namespace jaxtv {

namespace ffi = xla::ffi;

using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<Buffer>;
using Dims = ffi::AnyBuffer::Dimensions;
using Axes = ffi::Span<const std::int64_t>;

constexpr std::int64_t kMostIterations = std::int64_t(1) << 31;  // results count them in int32

// Thrown by the checks below, returned to XLA as an InvalidArgument error.
struct Invalid {
  std::string message;
};
inline void require(bool ok, const char* message) {
  if (!ok) throw Invalid{std::string("jaxtv: ") + message};
}

// Calls f and turns what it throws into an error.
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

// Calls f(T{}) for the C++ type T of `type`, and turns what it throws into an error.
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

// The memory of a result and of an operand.
template <class T>
T* out(Result r) {
  return static_cast<T*>(r->untyped_data());
}
template <class T>
const T* in(Buffer b) {
  return static_cast<const T*>(b.untyped_data());
}

// ---- shapes ----

// Checks that `b` is shaped as `like`, except that it has one of `sizes` along the axis (-1: none).
inline void check_shape(Buffer b, Buffer like, std::int64_t axis,
                        std::initializer_list<std::int64_t> sizes) {
  const Dims d = b.dimensions(), e = like.dimensions();
  require(d.size() == e.size(), "operands differ in rank");
  for (std::size_t i = 0; i < d.size(); ++i)
    if (std::int64_t(i) != axis) require(d[i] == e[i], "operands differ in shape");
  if (axis < 0) return;
  require(std::find(sizes.begin(), sizes.end(), d[axis]) != sizes.end(),
          "wrong size along the prox axis");
}
// Checks that `b` has the shape and type of `like`.
inline void check_same(Buffer b, Buffer like) {
  require(b.element_type() == like.element_type(), "operands differ in dtype");
  check_shape(b, like, -1, {});
}

// The product of the dims from `first` to the axis, the size of the axis, the product of the dims
// after it.
struct Extents {
  std::int64_t outer, n, inner;
};
inline Extents extents_of(Buffer x, std::int64_t axis, std::int64_t first = 0) {
  const Dims d = x.dimensions();
  require(axis >= 0 && axis < std::int64_t(d.size()), "axis out of range");
  require(d[axis] >= 1, "the prox axis is empty");
  Extents e{1, d[axis], 1};
  for (std::int64_t i = first; i < std::int64_t(d.size()); ++i) {
    if (i < axis) e.outer *= d[i];
    if (i > axis) e.inner *= d[i];
  }
  return e;
}

// Checks weights for samples shaped as `like`: they have one value (λ per signal) or n - 1 (per
// edge) along the axis. Those of half types are float32. Returns whether there is one per edge.
inline bool check_weights(Buffer w, Buffer like, std::int64_t axis) {
  const ffi::DataType type = like.element_type();
  const bool half = type == ffi::DataType::BF16 || type == ffi::DataType::F16;
  require(w.element_type() == (half ? ffi::DataType::F32 : type), "operands differ in dtype");
  check_shape(w, like, axis, {1, like.dimensions()[axis] - 1});
  return w.dimensions()[axis] != 1;
}

// Checks the results that return_info adds: one value per signal.
inline void check_info(Result gap, Result iterations, Result converged, Buffer x,
                       std::int64_t axis) {
  require(gap->element_type() == x.element_type(), "operands differ in dtype");
  for (Result r : {gap, iterations, converged}) check_shape(*r, x, axis, {1});
  require(iterations->element_type() == ffi::DataType::S32 &&
              converged->element_type() == ffi::DataType::PRED,
          "wrong info results");
}

// ---- Dykstra ----

// Checks the axes of an iteration. Returns the first of them in memory: all dims before it belong
// to the batch.
inline std::int64_t first_axis_of(Buffer x, Axes axes, std::int64_t iterations) {
  const std::int64_t rank = x.dimensions().size();
  require(axes.size() >= 1 && axes.size() <= std::size_t(kMaxAxes), "bad number of axes");
  require(iterations >= 1 && iterations < kMostIterations, "bad number of iterations");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    require(axes[i] >= 0 && axes[i] < rank, "axis out of range");
    require(std::find(axes.begin(), axes.begin() + i, axes[i]) == axes.begin() + i,
            "axes must differ");
    require(x.dimensions()[axes[i]] >= 1, "a prox axis is empty");
  }
  return *std::min_element(axes.begin(), axes.end());
}

// Edge codes (jaxtv/edge_code.hpp) of `size` bytes.
inline void check_codes(Buffer codes, std::int64_t size) {
  require(codes.element_type() == ffi::DataType::U8, "edge codes must be uint8");
  require(std::int64_t(codes.element_count()) == size, "wrong shape of edge codes");
}

// ---- isotropic ----

// Checks the axes of the channels and of the pixels: the last ones of x, in order. Returns the
// first of them.
inline std::int64_t check_pixel_axes(Buffer x, Axes axes) {
  const std::int64_t first = first_axis_of(x, axes, 1);
  require(axes.size() >= 2, "two axes at least");
  for (std::size_t i = 0; i < axes.size(); ++i)
    require(axes[i] == first + std::int64_t(i), "axes must be in order");
  require(first + axes.size() == x.dimensions().size(), "axes must be the last ones");
  return first;
}

// Checks weights of one channel. Returns whether there is one per pixel, not one per element.
inline bool check_pixel_weights(Buffer w, Buffer x, std::size_t channel_axis) {
  require(w.element_type() == x.element_type(), "operands differ in dtype");
  const Dims d = w.dimensions(), e = x.dimensions();
  require(d.size() == e.size(), "operands differ in rank");
  bool one = true, all = true;
  for (std::size_t i = 0; i < d.size(); ++i) {
    if (i < channel_axis) require(d[i] == e[i], "operands differ in shape");
    if (i == channel_axis) require(d[i] == 1, "weights have one channel");
    if (i > channel_axis) one &= d[i] == 1, all &= d[i] == e[i];
  }
  require(one || all, "weights are one per pixel or one per element");
  return all;
}

inline void check_stop_rule(double tol, std::int64_t max_iterations) {
  require(tol >= 0 && max_iterations >= 1 && max_iterations < kMostIterations,
          "bad solver options");
}

// ---- attributes ----

inline Solver solver_of(std::int64_t method, double tol, std::int64_t max_iterations,
                        std::int64_t line_search) {
  require(method >= 0 && method <= 3, "unknown method");
  require(line_search == 0 || line_search == 1, "unknown line search");
  check_stop_rule(tol, max_iterations);
  return {.method = Method(method),
          .tol = tol,
          .max_iterations = max_iterations,
          .line_search = int(line_search)};
}

auto with_solver(auto&& binding) {
  return std::move(binding)
      .template Attr<std::int64_t>("method")
      .template Attr<double>("tol")
      .template Attr<std::int64_t>("max_iterations")
      .template Attr<std::int64_t>("line_search");
}
auto with_axis(auto&& binding) { return std::move(binding).template Attr<std::int64_t>("axis"); }
auto with_axes(auto&& binding) {
  return std::move(binding).template Attr<Axes>("axes").template Attr<std::int64_t>("iterations");
}

}  // namespace jaxtv
