// Calls of the handlers as XLA would make them, drawn from the bytes of a fuzzer.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "frame.hpp"

namespace jaxtv::fuzz {

// The input of one run; zeros when it is used up.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  std::uint8_t byte() { return left_ == 0 ? 0 : (--left_, *data_++); }
  std::int64_t below(std::int64_t n) { return (byte() | byte() << 8) % n; }
  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[below(std::int64_t(values.size()))];
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

// Thrown where a valid call would take too long.
struct TooLarge {};

// An operand or result. Its memory has exactly the bytes of its shape.
struct OwnedArray {
  XLA_FFI_DataType dtype;
  std::vector<std::int64_t> dims;
  std::vector<char> data;

  std::int64_t count() const;  // -1 where it is beyond what is allocated here
  void allocate(char fill);
};

using callframe::Attribute;
using callframe::Status;

struct Call {
  XLA_FFI_Handler* handler;
  const char* name;
  std::vector<OwnedArray> ins, outs;
  callframe::Attributes attributes;
  bool valid = true;  // as the library itself would call
  bool tame = true;   // finite samples of moderate size and weights that have a solution

  // Allocates the results anew. The allocation number `allocations` of the handler fails, if any.
  Status run(std::int64_t allocations = -1);
};

// Once, before any call.
void register_handlers();
// A valid call, of any target.
Call draw(Bytes& bytes);
// The same with one thing wrong, or by chance only different; `only`: nothing else will be.
void spoil(Bytes& bytes, Call& call, bool only);

}  // namespace jaxtv::fuzz
