// Edge codes: what a solution says about the edge between two neighbours, in 2 bits. The
// derivatives need nothing else of a solution.
//
// A pass is one 1D prox along one axis; Dykstra's iteration has many. One byte per sample holds the
// codes of four passes: pass p has the bits 2 (p % 4) and 2 (p % 4) + 1 of byte p / 4. An array of
// codes has the shape of the samples, with the bytes of a sample as one more dimension before the
// first axis of the prox. The code of an edge is stored at the sample before the edge; the last
// sample of a signal has kSeparate. jaxtv/_edge_codes.py is the same in Python.
#pragma once

#include <cstdint>

#include "jaxtv/common.hpp"

namespace jaxtv {

enum EdgeCode : std::uint8_t {
  kInside = 0,    // inside a segment: equal neighbours, joined by a weight > 0
  kJumpUp = 1,    // the dual is at +weight
  kJumpDown = 2,  // the dual is at -weight
  kSeparate = 3,  // no jump and not joined: weight 0, no solution (NaN), or no edge
};

constexpr int kCodeBits = 2, kCodeMask = 3, kPassesPerByte = 4;

// Which byte of a sample holds the code of a pass, and its first bit there; the bytes per sample
// that all passes need.
JAXTV_HD constexpr std::int64_t code_byte(std::int64_t pass) { return pass / kPassesPerByte; }
JAXTV_HD constexpr int code_shift(std::int64_t pass) {
  return kCodeBits * int(pass % kPassesPerByte);
}
JAXTV_HD constexpr std::int64_t code_bytes(std::int64_t passes) {
  return (passes + kPassesPerByte - 1) / kPassesPerByte;
}

// The code whose first bit in its byte is `shift`.
JAXTV_HD constexpr EdgeCode code_at(std::uint8_t byte, int shift) {
  return EdgeCode(byte >> shift & kCodeMask);
}

// The code of the edge between the values `here` and `next`; `joins()`: whether its weight is > 0,
// asked only where the values are equal.
template <class T, class Joins>
JAXTV_HD EdgeCode edge_code(T here, T next, Joins joins) {
  if (here < next) return kJumpUp;
  if (here > next) return kJumpDown;
  return here == next && joins() ? kInside : kSeparate;
}

// sign(next - here) of a code: 1, -1 or 0.
template <class T>
JAXTV_HD constexpr T jump_sign(int code) {
  return code == kJumpUp ? T(1) : (code == kJumpDown ? T(-1) : T(0));
}

}  // namespace jaxtv
