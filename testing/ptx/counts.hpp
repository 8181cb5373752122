// What kernels did, counted as they ran with Settings::counted, converged and in order.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "warp.hpp"

namespace ptx {

// Of all launches of one kernel.
struct Count {
  std::uint64_t launches = 0, blocks = 0, warps = 0;
  // Warp instructions by Kind, a diverged one as often as it is issued; and of lanes, in all.
  std::array<std::uint64_t, std::size_t(Kind::kCount)> issued{};
  std::uint64_t lanes = 0;
  // Instructions that take more than one slot of their unit: divisions and products of 64 bits.
  std::uint64_t divisions = 0;
  // 32-byte sectors that warps ask of global memory, and those that a launch touches at all.
  std::uint64_t sectors = 0, sectors_read = 0, sectors_written = 0;
  // Rows of 32 banks that shared memory serves one after the other.
  std::uint64_t wavefronts = 0;
  // Warp instructions by the line of the source, "path:line", without moves and reads of
  // parameters.
  std::map<std::string, std::uint64_t> lines;
};

// By the name of the kernel, since reset_counts().
std::map<std::string, Count>& counts();
// Forgets all counts, those of the kernel's instructions too.
void reset_counts();
// Adds what the instructions of a launch counted.
void add_counts(const Launch& launch);

// The addresses of one access of a warp.
class Addresses {
 public:
  Addresses(const Warp& warp, const Instruction& i, std::size_t bytes);
  void add(std::uint64_t address) {
    if (on_) address_[size_++] = address;
  }
  ~Addresses();

 private:
  bool on_;
  const Instruction& i_;
  Count* count_;
  std::size_t bytes_;
  int size_ = 0;
  std::uint64_t address_[kWarp];
};

}  // namespace ptx
