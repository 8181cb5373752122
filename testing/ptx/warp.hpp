// The state of a launch: blocks of warps, whose lanes each have their own program counter.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "memory.hpp"
#include "program.hpp"

namespace ptx {

enum class Order : int { kForward, kReverse, kThreads, kLockstep };

struct Settings {
  Order order = Order::kForward;
  std::uint64_t seed = 1;
  int slice = 8;     // mean instructions between random switches
  int resident = 8;  // blocks that run at once in a random order
  int ulps = 0;      // by which approximate instructions may be off
  bool global_races = false;
  bool counted = false;                               // instructions and traffic, see counts.hpp
  std::uint64_t most_steps = std::uint64_t{1} << 40;  // of a warp in all: more is an endless loop
};

struct Block;
struct Launch;

struct Warp {
  Block* block = nullptr;
  int index = 0;  // in its block
  std::uint8_t* registers = nullptr;
  std::uint32_t pc[kWarp] = {};
  Lanes running = 0, at_warp = 0, at_block = 0;  // disjoint; lanes in none have exited
  Lanes mask[kWarp] = {};                        // of the primitive at which a lane waits
  // Which accesses of the other lanes come before: see Shadow.
  std::uint32_t clock[kWarp] = {}, seen[kWarp][kWarp] = {};

  template <class T>
  T* lanes(Slot slot) {
    return reinterpret_cast<T*>(registers + slot);
  }
  Lanes& predicate(Slot slot) { return *lanes<Lanes>(slot); }
  Lanes live() const { return running | at_warp | at_block; }
  int thread(int lane) const { return index * kWarp + lane; }
};

struct Block {
  Launch* launch = nullptr;
  std::uint32_t id = 0;
  std::uint32_t epoch = 1;  // barriers so far
  std::vector<Warp> warps;
  std::vector<std::uint8_t> registers, local;
  SharedMemory shared;
};

struct Count;

struct Launch {
  const Kernel* kernel;
  std::uint32_t grid, threads;
  std::size_t shared_bytes;
  std::vector<std::uint8_t> parameters;
  const Settings* settings;
  Shadow global;
  Count* count = nullptr;  // where instructions are counted
  std::uint64_t steps = 0;
};

// Throws Error: what is wrong, the thread, the kernel, the line and the instruction.
[[noreturn]] void fail(const Warp& warp, const Instruction& i, int lane, const std::string& what);

// "path:line" of the source that the instruction comes from.
std::string source_of(const Kernel& kernel, const Instruction& i);

// Calls f(lane) for every lane of the set.
template <class F>
inline void each(Lanes lanes, F f) {
  if (lanes == kAllLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < kWarp; ++lane) f(lane);
  } else {
    for (; lanes; lanes &= lanes - 1) f(__builtin_ctz(lanes));
  }
}

// Lanes that are at one instruction wait there for others: of their warp, or of their block.
void arrive(Warp& warp, const Instruction& i, Lanes lanes);
// Lets lanes go on that wait for nobody any more; whether there were any.
bool release_warp(Warp& warp);
bool release_block(Block& block);

// Throws Error where a launch takes more steps than the settings allow; asked at least so often.
constexpr std::int64_t kManySteps = 1 << 20;
void check_steps(const Launch& launch);

// Runs lanes that are at one instruction until they part, wait, exit, are at the instruction `end`
// or beyond, or have executed `steps`.
void run_lanes(Warp& warp, Lanes lanes, std::uint32_t end, std::int64_t steps);
// Runs the running lanes of a warp in lockstep: those furthest behind first, so that lanes which
// parted meet again.
void run_converged(Warp& warp, std::int64_t steps);

// A number of the launch's own random sequence.
std::uint32_t random_number();
void seed_random(std::uint64_t seed);

// Runs all blocks in the order of the settings; throws Error.
void run(Launch& launch, const std::vector<std::uint32_t>& blocks);

}  // namespace ptx
