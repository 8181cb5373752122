#include "memory.hpp"
#include "program.hpp"

namespace ptx {
namespace {

std::string thread_name(std::uint32_t block, int thread) {
  return "thread " + std::to_string(thread) + " of block " + std::to_string(block);
}

}  // namespace

// Whether that access comes before what the actor does now: itself, or a barrier between them.
bool Shadow::ordered(const Actor& actor, std::uint32_t block, int thread, std::uint32_t epoch,
                     std::uint32_t clock) {
  if (block != actor.block) return false;
  if (thread == actor.thread || epoch < actor.epoch) return true;
  return thread / kWarp == actor.thread / kWarp && actor.seen[thread % kWarp] > clock;
}

std::string Shadow::check(const Cell& c, bool write, const Actor& actor) {
  if (c.writer >= 0 && !(c.writer_strong && actor.strong) &&
      !ordered(actor, c.writer_block, c.writer, c.writer_epoch, c.writer_clock))
    return std::string(write ? "written" : "read") + " after a write by " +
           thread_name(c.writer_block, c.writer);
  if (!write || c.readers == Readers::kNone || (c.readers_strong && actor.strong)) return "";
  if (c.readers == Readers::kBlocks || c.reader_block != actor.block)
    return "written after a read by other blocks";
  if (c.reader_epoch < actor.epoch) return "";
  if (c.readers == Readers::kOneBlock) return "written after a read by other warps";
  for (Lanes left = c.reader_lanes; left; left &= left - 1) {
    const int reader = c.reader_warp * kWarp + __builtin_ctz(left);
    if (!ordered(actor, c.reader_block, reader, c.reader_epoch, c.reader_clock))
      return "written after a read by " + thread_name(c.reader_block, reader);
  }
  return "";
}

void Shadow::record(Cell& c, bool write, const Actor& actor) {
  const int warp = actor.thread / kWarp, lane = actor.thread % kWarp;
  if (write) {
    c = Cell{};
    c.writer = actor.thread;
    c.writer_block = actor.block;
    c.writer_epoch = actor.epoch;
    c.writer_clock = actor.clock;
    c.writer_strong = actor.strong;
    return;
  }
  const bool same_block = c.readers != Readers::kNone && c.reader_block == actor.block;
  if (c.readers != Readers::kNone && !same_block) {
    c.readers = Readers::kBlocks;
    c.readers_strong &= actor.strong;
    return;
  }
  if (c.readers == Readers::kBlocks) return;
  // Who waits for this reader waits for those before it.
  bool met_all = c.readers == Readers::kNone || c.reader_epoch < actor.epoch;
  if (!met_all && c.readers == Readers::kOneWarp && c.reader_warp == warp) {
    met_all = true;
    for (Lanes left = c.reader_lanes; left; left &= left - 1)
      met_all &= actor.seen[__builtin_ctz(left)] > c.reader_clock;
  }
  if (met_all) {
    c.readers = Readers::kOneWarp;
    c.readers_strong = true;
    c.reader_lanes = c.reader_clock = 0;
  } else if (c.readers == Readers::kOneWarp && c.reader_warp != warp) {
    c.readers = Readers::kOneBlock;
  }
  c.reader_block = actor.block;
  c.reader_epoch = actor.epoch;
  c.reader_warp = warp;
  c.reader_lanes |= Lanes{1} << lane;
  c.reader_clock = std::max(c.reader_clock, actor.clock);
  c.readers_strong &= actor.strong;
}

Shadow::Page& Shadow::page(std::uint64_t number) {
  if (number != last_number_ || !last_) {
    std::unique_ptr<Page>& page = pages_[number];
    if (!page) page = std::make_unique<Page>();
    last_ = page.get();
    last_number_ = number;
  }
  return *last_;
}

std::string Shadow::touch(std::uint64_t at, std::size_t bytes, bool write, const Actor& actor) {
  for (std::uint64_t word = at / kWord * kWord; word < at + bytes; word += kWord) {
    Page& p = page(word / kPage);
    Cell* cells = p.cells + word % kPage;
    bool& split = p.split[word % kPage / kWord];
    const std::uint64_t from = std::max(at, word), to = std::min(at + bytes, word + kWord);
    if (to - from < kWord && !split) {
      split = true;
      for (std::uint64_t k = 1; k < kWord; ++k) cells[k] = cells[0];
    }
    for (std::uint64_t k = from - word; k < (split ? to - word : from - word + 1); ++k) {
      if (std::string wrong = check(cells[k], write, actor); !wrong.empty())
        return std::to_string(word + k) + ": " + wrong;
      record(cells[k], write, actor);
    }
  }
  return "";
}

}  // namespace ptx
