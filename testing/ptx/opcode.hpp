// What the parser hands to the decoders: the parts of an opcode and its operands.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "program.hpp"

namespace ptx {

// "cvt.rn.f32.f64": its name and its modifiers, each of which must be asked for by somebody.
class Opcode {
 public:
  explicit Opcode(std::string_view text);
  const std::string& name() const { return parts_[0]; }
  const std::string& type() const { return parts_.back(); }  // the last part
  // Whether the modifier is there.
  bool take(std::string_view modifier);
  // The modifier at this position; "" beyond the end.
  const std::string& part(std::size_t i) const;
  // Marks the modifier at this position as understood.
  const std::string& take_part(std::size_t i);
  std::size_t size() const { return parts_.size(); }
  // Throws Error if a modifier is left.
  void finish() const;

 private:
  std::vector<std::string> parts_;
  std::set<std::size_t> left_;
};

// Bytes of a type: 4 for "f32", 0 for "pred".
int bytes_of(std::string_view type);

class Scope;  // registers and symbols of a kernel

class Operands {
 public:
  Operands(Scope& scope, std::vector<std::string> texts) : scope_(scope), texts_(texts) {}

  std::size_t size() const { return texts_.size(); }
  // The elements of operand i: of a vector {a, b}, of a pair a|b, or itself.
  std::vector<std::string> elements(std::size_t i) const;
  bool is_vector(std::size_t i) const { return texts_.at(i).starts_with('{'); }

  // Slots; kNoSlot for "_". A source may be an immediate or a symbol, of `type`.
  Slot destination(const std::string& text);
  Slot source(const std::string& text, std::string_view type);
  // Bytes of a register, 0 of a predicate.
  int width(const std::string& reg) const;
  // Bytes of what source() has per lane: an immediate is as wide as its type, if not 8 bits.
  int width_of_source(const std::string& text, std::string_view type) const;

  // Every element of operand `to` as a destination of `out`; operand i as its next source.
  void destinations(std::size_t to, Instruction& out);
  void add_source(std::size_t i, std::string_view type, Instruction& out);
  // Operands 0: destination, others: sources of one type.
  void simple(std::string_view type, Instruction& out);
  // [register or symbol + offset]
  void address(std::size_t i, Instruction& out);
  // A predicate that may be negated, as the next source.
  void predicate(std::size_t i, Instruction& out);
  const std::string& text(std::size_t i) const { return texts_.at(i); }

 private:
  Scope& scope_;
  std::vector<std::string> texts_;
};

// Each knows some opcodes and answers whether this is one of them; `out` is then complete.
bool decode_arithmetic(Opcode& opcode, Operands& operands, Instruction& out);
bool decode_float(Opcode& opcode, Operands& operands, Instruction& out);
bool decode_conversion(Opcode& opcode, Operands& operands, Instruction& out);
bool decode_memory(Opcode& opcode, Operands& operands, Instruction& out);
bool decode_collective(Opcode& opcode, Operands& operands, Instruction& out);

}  // namespace ptx
