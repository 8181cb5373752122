// The memories of a launch, and the checks of every access: bounds, alignment, what was written
// before it is read, who may write, races.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace ptx {

enum class Access : std::uint8_t { kRead, kWrite, kAtomic };

// Who accesses, and when: the barriers of its block so far, and its own __syncwarp.
struct Actor {
  std::uint32_t block;
  int thread;
  std::uint32_t epoch, clock;
  const std::uint32_t* seen;  // of the 32 lanes of its warp: their clocks as it last met them
  bool strong;                // volatile or atomic
};

// Who touched each byte since the launch began; finds accesses of one byte, one of them a write,
// that no barrier orders.
class Shadow {
 public:
  // What is wrong, or "".
  std::string touch(std::uint64_t at, std::size_t bytes, bool write, const Actor& actor);
  void clear() { pages_.clear(); }

 private:
  enum class Readers : std::uint8_t { kNone, kOneWarp, kOneBlock, kBlocks };
  struct Cell {
    int writer = -1;
    std::uint32_t writer_block = 0, writer_epoch = 0, writer_clock = 0;
    bool writer_strong = false, readers_strong = true;
    Readers readers = Readers::kNone;
    std::uint32_t reader_block = 0, reader_epoch = 0, reader_clock = 0, reader_lanes = 0;
    int reader_warp = 0;
  };
  // Cells of words until somebody touches a part of one: from then on a cell per byte.
  static constexpr std::uint64_t kPage = 1024, kWord = 4;
  struct Page {
    Cell cells[kPage];
    bool split[kPage / kWord] = {};
  };

  static bool ordered(const Actor& actor, std::uint32_t block, int thread, std::uint32_t epoch,
                      std::uint32_t clock);
  static std::string check(const Cell& cell, bool write, const Actor& actor);
  static void record(Cell& cell, bool write, const Actor& actor);
  Page& page(std::uint64_t number);

  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::uint64_t last_number_ = ~0ull;
  Page* last_ = nullptr;
};

// Shared memory of a block.
struct SharedMemory {
  std::vector<std::uint8_t> bytes, written;  // written: 1 or 0, per byte
  Shadow shadow;
};

// An array in global memory: an operand or a result of the call. Device memory is host memory.
struct Buffer {
  std::uint64_t begin, end;
  bool writable;
  std::vector<std::uint8_t> written;  // 1 or 0, per byte; empty where all of it is
  // Per sector: 1 read, 2 written, 3 both, since the last Buffers::forget_sectors().
  std::vector<std::uint8_t> sectors;
};
class Buffers {
 public:
  static constexpr std::uint64_t kSector = 32;
  // A writable buffer holds nothing yet, unless `filled`.
  void add(void* data, std::size_t bytes, bool writable, bool filled = false);
  void clear() { buffers_.clear(); }
  bool empty() const { return buffers_.empty(); }
  // Null where no buffer holds all of these bytes.
  Buffer* find(std::uint64_t address, std::size_t bytes);
  void forget_sectors();
  void touch_sectors(Buffer& buffer, std::uint64_t address, std::size_t bytes, bool write);
  // Sectors that were read, and that were written, since then.
  struct Sectors {
    std::uint64_t read = 0, written = 0;
  };
  Sectors sectors() const;

  // Of the call that this host thread runs.
  static Buffers& here();

 private:
  std::vector<Buffer> buffers_;
  std::size_t last_ = 0;
};

}  // namespace ptx
