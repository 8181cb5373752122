// What every handler does before it launches: checks that turn a wrong call into an error of XLA,
// and views of XLA's buffers.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

#include "shape.hpp"
#include "xla/ffi/api/ffi.h"

namespace jaxtv::cuda {

namespace ffi = xla::ffi;

// The stream that XLA runs on; decoded as cudaStream_t. The SIMT build is a CPU target and has
// none.
struct Stream {};

using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<Buffer>;
using Dims = ffi::AnyBuffer::Dimensions;

// Thrown by the checks below, returned to XLA as an InvalidArgument error.
struct Invalid {
  std::string message;
};
inline void require(bool ok, const char* message) {
  if (!ok) throw Invalid{std::string("jaxtv: ") + message};
}

// Calls f(T{}) for the type; f returns a Status.
template <class F>
ffi::Error with_type(ffi::DataType type, F f) {
  try {
    require(type == ffi::DataType::F32 || type == ffi::DataType::F64,
            "dtype must be float32 or float64");
    const Status bad = type == ffi::DataType::F32 ? f(float{}) : f(double{});
    return bad ? ffi::Error::Internal(std::string("jaxtv: ") + bad) : ffi::Error::Success();
  } catch (const Invalid& e) {
    return ffi::Error::InvalidArgument(e.message);
  }
}

// Checks that `b` is shaped as `like`, except that the axis may have any size in `sizes`.
inline void check_like(Buffer b, Buffer like, std::int64_t axis,
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
inline void check_same(Buffer b, Buffer like) { check_like(b, like, -1, {}); }

inline Shape shape_of(Buffer x, std::int64_t axis) {
  const Dims d = x.dimensions();
  require(axis >= 0 && axis < std::int64_t(d.size()), "axis out of range");
  Shape s{1, 1, d[axis], 1};
  for (std::int64_t i = 0; i < std::int64_t(d.size()); ++i) {
    if (i < axis) s.outer *= d[i];
    if (i > axis) s.inner *= d[i];
  }
  return s;
}

template <class T>
T* out(Result r) {
  return static_cast<T*>(r->untyped_data());
}
template <class T>
const T* in(Buffer b) {
  return static_cast<const T*>(b.untyped_data());
}

// Weights have one value (λ per signal) or n - 1 (per edge) along the axis. Returns whether per
// edge.
inline bool per_edge(Buffer w, Buffer like, std::int64_t axis) {
  check_like(w, like, axis, {1, like.dimensions()[axis] - 1});
  return w.dimensions()[axis] != 1;
}

// The workspace is the last result: uint8, batch dims and then bytes (jaxtv/_ffi.py).
inline void* workspace(Result r, std::int64_t bytes) {
  require(r->element_type() == ffi::DataType::U8, "the workspace must be uint8");
  require(std::int64_t(r->element_count()) >= bytes, "the workspace is too small");
  return r->untyped_data();
}

}  // namespace jaxtv::cuda

template <>
struct xla::ffi::CtxDecoding<jaxtv::cuda::Stream> {
  using Type = cudaStream_t;
  static std::optional<Type> Decode(const XLA_FFI_Api* api, XLA_FFI_ExecutionContext* ctx,
                                    DiagnosticEngine& diagnostic) {
#if defined(JAXTV_SIMT)
    return cudaStream_t(nullptr);
#else
    return CtxDecoding<PlatformStream<cudaStream_t> >::Decode(api, ctx, diagnostic);
#endif
  }
};

namespace jaxtv::cuda {
// Every binding starts here: bind().Arg<Buffer>()...
inline auto bind() { return ffi::Ffi::Bind().Ctx<Stream>(); }
}  // namespace jaxtv::cuda

// Defines the handler `name` outside of any namespace: no allocation, no host synchronisation and
// launches that depend on shapes only, so XLA may record it into a command buffer (CUDA graph).
#define JAXTV_HANDLER(name, impl, ...) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, impl, __VA_ARGS__, {xla::ffi::Traits::kCmdBufferCompatible})
