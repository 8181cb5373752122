// Vectors of double and their masks, of the instruction set that a unit is compiled for: JAXTV_ISA
// names it, JAXTV_VECTOR_BYTES is its register width. GCC/Clang vector extensions.
#pragma once

#include <cstdint>
#include <cstring>

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr int kBytes = JAXTV_VECTOR_BYTES;
typedef double Double __attribute__((vector_size(kBytes)));
typedef std::int64_t DoubleMask __attribute__((vector_size(kBytes)));
constexpr int kDoubleLanes = kBytes / 8;

template <class M>
inline bool any(M mask) {
  std::int64_t bits[kBytes / 8], all = 0;
  std::memcpy(bits, &mask, kBytes);
  for (int i = 0; i < kBytes / 8; ++i) all |= bits[i];
  return all != 0;
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
