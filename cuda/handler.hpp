// What every CUDA handler does before it launches, beyond ffi/checks.hpp: stream, shape, scratch.
#pragma once

#include <optional>
#include <type_traits>

#include "checks.hpp"
#include "shape.hpp"
#if defined(JAXTV_EMULATED)
#include "machine.hpp"
#endif

namespace jaxtv::cuda {

// The stream that XLA runs on; decoded as cudaStream_t. Its device is the current one: XLA makes it
// so once per execution (GpuExecutable::ExecuteAsyncOnStreamImpl: "always bound to a single
// GpuContext during its execution, so we activate it once"), and CUDA refuses a launch on the
// stream of another device. Where tests run the kernels without a GPU, the handler is a CPU target
// and has no stream: a device of the CPU stands for one of CUDA (testing/machine/machine.hpp).
struct Stream {};

// A launch that went wrong becomes an Internal error of XLA.
inline void check(Status bad) {
  if (bad) throw std::runtime_error(bad);
}

// Calls f(std::type_identity<Sample>{}) for the type of the samples; as with_type, but half types
// too.
template <class F>
ffi::Error with_sample_type(ffi::DataType type, F f) {
#if !defined(JAXTV_NO_HALF_TYPES)
  if (type == ffi::DataType::BF16) return guarded([&] { f(std::type_identity<BFloat16>{}); });
  if (type == ffi::DataType::F16) return guarded([&] { f(std::type_identity<Float16>{}); });
#endif
  return with_type(type, [&](auto t) { f(std::type_identity<decltype(t)>{}); });
}

inline Shape shape_of(Buffer x, std::int64_t axis) {
  const Extents e = extents_of(x, axis);
  return {.batch = 1, .outer = e.outer, .n = e.n, .inner = e.inner};
}

// The scratch is the last result: uint8, batch dims and then bytes (scratch.hpp).
inline void* checked_scratch(Result r, std::int64_t bytes) {
  require(r->element_type() == ffi::DataType::U8, "the scratch must be uint8");
  require(std::int64_t(r->element_count()) >= bytes, "the scratch is too small");
  return r->untyped_data();
}

}  // namespace jaxtv::cuda

template <>
struct xla::ffi::CtxDecoding<jaxtv::cuda::Stream> {
  using Type = cudaStream_t;
  static std::optional<Type> Decode(const XLA_FFI_Api* api, XLA_FFI_ExecutionContext* ctx,
                                    DiagnosticEngine& diagnostic) {
#if defined(JAXTV_EMULATED)
    const auto device = CtxDecoding<DeviceOrdinal>::Decode(api, ctx, diagnostic);
    if (!device) return std::nullopt;
    return static_cast<cudaStream_t>(::machine::stream_on(*device));
#else
    return CtxDecoding<PlatformStream<cudaStream_t> >::Decode(api, ctx, diagnostic);
#endif
  }
};

namespace jaxtv::cuda {
// Every binding starts here: bind().Arg<Buffer>()...
inline auto bind() { return ffi::Ffi::Bind().Ctx<Stream>(); }
}  // namespace jaxtv::cuda

// Defines the handler `name`: no allocation, no host synchronisation and launches that depend on
// shapes only, so XLA may record it into a command buffer (CUDA graph).
#define JAXTV_HANDLER(name, impl, ...) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, impl, __VA_ARGS__, {xla::ffi::Traits::kCmdBufferCompatible})
