// What the semantics of instructions are written with: a function of values, for every lane.
#pragma once

#include "opcode.hpp"
#include "warp.hpp"

namespace ptx {

// dst[lane] = f(sources[lane]...). Registers do not overlap, or are the same.
template <class D, class F, class... S>
inline void map(Warp& w, const Instruction& i, Lanes lanes, F f, const S*... sources) {
  D* to = w.lanes<D>(i.dst[0]);
  each(lanes, [&](int lane) { to[lane] = D(f(sources[lane]...)); });
}

inline void set_predicate(Warp& w, Slot slot, Lanes lanes, Lanes value) {
  if (slot == kNoSlot) return;
  Lanes& p = w.predicate(slot);
  p = (p & ~lanes) | (value & lanes);
}

// setp: p|q = f(a, b), and then combined with a third operand; q starts from the negation.
template <class T, auto f>
void compare(Warp& w, const Instruction& i, Lanes lanes) {
  const T *a = w.lanes<T>(i.src[0]), *b = w.lanes<T>(i.src[1]);
  Lanes holds = 0;
  each(lanes, [&](int lane) { holds |= Lanes(f(a[lane], b[lane])) << lane; });
  Lanes fails = ~holds;
  if (i.predicate_op != PredicateOp::kNone) {
    const Lanes c = i.source_negated ? ~w.predicate(i.src[2]) : w.predicate(i.src[2]);
    const auto combined = [&](Lanes p) {
      return i.predicate_op == PredicateOp::kAnd  ? p & c
             : i.predicate_op == PredicateOp::kOr ? p | c
                                                  : p ^ c;
    };
    holds = combined(holds);
    fails = combined(fails);
  }
  set_predicate(w, i.dst[0], lanes, holds);
  if (i.num_dst > 1) set_predicate(w, i.dst[1], lanes, fails);
}

// Operands of setp; the caller sets what compares.
void decode_set_predicate(Opcode& opcode, Operands& operands, const std::string& type,
                          Instruction& out);

}  // namespace ptx
