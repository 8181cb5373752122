// Division of indices by sizes that a launch fixes.
#pragma once

#include <cstdint>

#include "jaxtv/common.hpp"

namespace jaxtv::cuda {

constexpr std::int64_t ceil_div(std::int64_t dividend, std::int64_t divisor) {
  return (dividend + divisor - 1) / divisor;
}

// i / divisor by a multiplication, for 0 <= i < 2^31 (Granlund & Montgomery 1994).
struct Divider {
  std::uint32_t divisor = 1, magic = 1, shift = 0;
  Divider() = default;
  explicit Divider(std::int64_t d) : divisor(std::uint32_t(d)) {
    while ((std::uint64_t(1) << shift) < std::uint64_t(d)) ++shift;
    magic = std::uint32_t((((std::uint64_t(1) << shift) - d) << 32) / d + 1);
  }
  JAXTV_HD std::uint32_t div(std::uint32_t i) const {
    return (std::uint32_t((std::uint64_t(i) * magic) >> 32) + i) >> shift;
  }
};

}  // namespace jaxtv::cuda
