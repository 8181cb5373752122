// A call of an FFI handler, made as XLA makes it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "host.hpp"

namespace jaxtv::callframe {

// An operand or a result, row-major.
struct Array {
  XLA_FFI_DataType dtype;
  std::int64_t rank;
  const std::int64_t* dims;
  void* data;
};

using Attribute = std::variant<std::int64_t, double, std::vector<std::int64_t>, std::string>;
using Attributes = std::map<std::string, Attribute>;  // XLA hands them over sorted by name

// Calls the handler; returns when its last task has ended.
Status call(XLA_FFI_Handler* handler, std::span<const Array> operands,
            std::span<const Array> results, const Attributes& attributes);

// Asks a handler for its traits, as XLA does when it is registered: the first call of a handler
// also makes its static state.
XLA_FFI_Handler_Traits traits(XLA_FFI_Handler* handler);

}  // namespace jaxtv::callframe
