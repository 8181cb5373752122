// The call frame as a shared library, for ctypes (testing/callframe/__init__.py).
#include <string>

#include "frame.hpp"

using jaxtv::callframe::Array;

namespace {

// An attribute of `count` int64, or with count -1 of one scalar: int64 or double by its dtype.
struct PlainAttribute {
  const char* name;
  XLA_FFI_DataType dtype;
  std::int64_t count;
  const void* data;
};

jaxtv::callframe::Attribute value_of(const PlainAttribute& a) {
  if (a.dtype == XLA_FFI_DataType_F64) return *static_cast<const double*>(a.data);
  const auto* first = static_cast<const std::int64_t*>(a.data);
  if (a.count < 0) return *first;
  return std::vector<std::int64_t>(first, first + a.count);
}

}  // namespace

#define JAXTV_EXPORT extern "C" __attribute__((visibility("default")))

// The code of the handler's error, 0 for none. Its message stays valid until this thread calls
// again.
JAXTV_EXPORT int callframe_call(XLA_FFI_Handler* handler, std::int32_t device,
                                const Array* operands, std::int64_t num_operands,
                                const Array* results, std::int64_t num_results,
                                const PlainAttribute* attributes, std::int64_t num_attributes,
                                const char** message) {
  static thread_local std::string last_message;
  jaxtv::callframe::Attributes values;
  for (std::int64_t i = 0; i < num_attributes; ++i)
    values[attributes[i].name] = value_of(attributes[i]);
  jaxtv::callframe::set_device(device);
  const jaxtv::callframe::Status status = jaxtv::callframe::call(
      handler, {operands, std::size_t(num_operands)}, {results, std::size_t(num_results)}, values);
  last_message = status.message;
  *message = last_message.c_str();
  return status.code;
}

JAXTV_EXPORT void callframe_set_threads(std::int64_t threads) {
  jaxtv::callframe::set_threads(threads);
}

// Whether XLA may record the handler into a command buffer, by what the handler says of itself.
JAXTV_EXPORT bool callframe_recordable(XLA_FFI_Handler* handler) {
  return jaxtv::callframe::traits(handler) & XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE;
}
