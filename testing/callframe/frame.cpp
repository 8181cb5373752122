#include "frame.hpp"

namespace jaxtv::callframe {
namespace {

struct Buffers {
  std::vector<XLA_FFI_Buffer> buffers;
  std::vector<void*> pointers;
  explicit Buffers(std::span<const Array> arrays) {
    for (const Array& a : arrays)
      buffers.push_back({XLA_FFI_Buffer_STRUCT_SIZE, nullptr, a.dtype, a.data, a.rank,
                         const_cast<std::int64_t*>(a.dims)});
    for (XLA_FFI_Buffer& b : buffers) pointers.push_back(&b);
  }
};

// The C structures of attributes. They point into the map.
struct AttributeStructures {
  std::vector<XLA_FFI_AttrType> types;
  std::vector<XLA_FFI_ByteSpan> names;
  std::vector<std::variant<XLA_FFI_Scalar, XLA_FFI_Array, XLA_FFI_ByteSpan>> values;
  std::vector<XLA_FFI_ByteSpan*> name_pointers;
  std::vector<void*> value_pointers;

  explicit AttributeStructures(const Attributes& attributes) {
    for (const auto& [name, value] : attributes) {
      names.push_back({name.data(), name.size()});
      std::visit([&](const auto& v) { add(v); }, value);
    }
    for (auto& name : names) name_pointers.push_back(&name);
    for (auto& value : values)
      value_pointers.push_back(std::visit([](auto& v) { return static_cast<void*>(&v); }, value));
  }
  void add(const std::int64_t& v) { scalar(XLA_FFI_DataType_S64, &v); }
  void add(const double& v) { scalar(XLA_FFI_DataType_F64, &v); }
  void scalar(XLA_FFI_DataType type, const void* value) {
    types.push_back(XLA_FFI_AttrType_SCALAR);
    values.push_back(XLA_FFI_Scalar{type, const_cast<void*>(value)});
  }
  void add(const std::vector<std::int64_t>& v) {
    types.push_back(XLA_FFI_AttrType_ARRAY);
    values.push_back(
        XLA_FFI_Array{XLA_FFI_DataType_S64, v.size(), const_cast<std::int64_t*>(v.data())});
  }
  void add(const std::string& v) {
    types.push_back(XLA_FFI_AttrType_STRING);
    values.push_back(XLA_FFI_ByteSpan{v.data(), v.size()});
  }
};

XLA_FFI_Error* run(XLA_FFI_Handler* handler, XLA_FFI_CallFrame& frame) {
  const Scope scope(true);
  return handler(&frame);
}

}  // namespace

Status call(XLA_FFI_Handler* handler, std::span<const Array> operands,
            std::span<const Array> results, const Attributes& attributes) {
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &host_api();
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  Buffers ins(operands), outs(results);
  std::vector<XLA_FFI_ArgType> operand_types(operands.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> result_types(results.size(), XLA_FFI_RetType_BUFFER);
  AttributeStructures attrs(attributes);
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, std::int64_t(operands.size()),
                operand_types.data(), ins.pointers.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, std::int64_t(results.size()),
                result_types.data(), outs.pointers.data()};
  frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE,        nullptr,
                 std::int64_t(attrs.types.size()), attrs.types.data(),
                 attrs.name_pointers.data(),       attrs.value_pointers.data()};
  XLA_FFI_Error* error = run(handler, frame);
  drain();
  return take(error);
}

XLA_FFI_Handler_Traits traits(XLA_FFI_Handler* handler) {
  XLA_FFI_Metadata metadata{};
  metadata.struct_size = XLA_FFI_Metadata_STRUCT_SIZE;
  XLA_FFI_Metadata_Extension extension{
      {XLA_FFI_Metadata_Extension_STRUCT_SIZE, XLA_FFI_Extension_Metadata, nullptr}, &metadata};
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.extension_start = &extension.extension_base;
  frame.api = &host_api();
  take(handler(&frame));
  return metadata.traits;
}

}  // namespace jaxtv::callframe
