#include "counts.hpp"

#include <algorithm>

namespace ptx {

std::map<std::string, Count>& counts() {
  static std::map<std::string, Count> all;
  return all;
}

void reset_counts() { counts().clear(); }

void add_counts(const Launch& launch) {
  Count& c = *launch.count;
  ++c.launches;
  c.blocks += launch.grid;
  c.warps += std::uint64_t(launch.grid) * ((launch.threads + kWarp - 1) / kWarp);
  for (const Instruction& i : launch.kernel->code) {
    c.issued[std::size_t(i.kind)] += i.issued;
    c.lanes += i.lanes;
    if (i.text.find("div.") != std::string::npos) c.divisions += i.issued;
    const bool free =
        i.kind == Kind::kMove || i.kind == Kind::kFolded || i.kind == Kind::kParameter;
    if (i.issued && !free) c.lines[source_of(*launch.kernel, i)] += i.issued;
    i.issued = i.lanes = 0;
  }
  const Buffers::Sectors sectors = Buffers::here().sectors();
  c.sectors_read += sectors.read;
  c.sectors_written += sectors.written;
}

Addresses::Addresses(const Warp& warp, const Instruction& i, std::size_t bytes)
    : on_(warp.block->launch->settings->counted),
      i_(i),
      count_(warp.block->launch->count),
      bytes_(bytes) {}

namespace {

// Different values of address / unit.
template <class It>
std::uint64_t different(It begin, It end) {
  std::sort(begin, end);
  return std::uint64_t(std::unique(begin, end) - begin);
}

}  // namespace

Addresses::~Addresses() {
  if (!on_ || size_ == 0) return;
  if (i_.kind == Kind::kShared) {
    // A bank serves one word at a time: 32 banks of 4 bytes; wide accesses go part by part.
    const int parts = int(std::max<std::size_t>(bytes_ / 4, 1)), lanes_at_once = kWarp / parts;
    for (int first = 0; first < size_; first += lanes_at_once) {
      std::uint64_t words[kWarp];
      int n = 0;
      for (int k = first; k < std::min(size_, first + lanes_at_once); ++k)
        for (int part = 0; part < parts; ++part) words[n++] = address_[k] / 4 + std::uint64_t(part);
      std::sort(words, words + n);
      const auto end = std::unique(words, words + n);
      std::uint64_t per_bank[32] = {};
      for (auto word = words; word != end; ++word) ++per_bank[*word % 32];
      count_->wavefronts += *std::max_element(per_bank, per_bank + 32);
    }
  } else if (i_.kind == Kind::kGlobal || i_.kind == Kind::kAtomic) {
    std::uint64_t sectors[2 * kWarp];
    int n = 0;
    for (int k = 0; k < size_; ++k) {
      sectors[n++] = address_[k] / Buffers::kSector;
      sectors[n++] = (address_[k] + bytes_ - 1) / Buffers::kSector;
    }
    count_->sectors += different(sectors, sectors + n);
  }
}

}  // namespace ptx
