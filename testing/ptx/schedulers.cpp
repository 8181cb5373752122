// Orders in which the threads of a launch run.
//
// Forward: block after block, warp after warp from barrier to barrier, lanes converged. Reverse:
// all from the last to the first, and lanes one by one. Threads: random slices of random threads of
// several resident blocks, as independent thread scheduling may run them. Lockstep: random slices
// of random warps whose lanes go together as far as they have not parted.
#include <algorithm>
#include <bit>
#include <limits>
#include <memory>

#include "warp.hpp"

namespace ptx {
namespace {

constexpr std::uint32_t kNoEnd = ~0u;
constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();
constexpr std::uint8_t kPoison = 0xcd;  // what registers and memory hold before they are written

template <class T>
void fill_slot(Warp& w, Slot slot, T value) {
  std::fill_n(w.lanes<T>(slot), kWarp, value);
}

void fill_constant(Warp& w, const Constant& c) {
  if (c.width == 8)
    fill_slot(w, c.slot, c.value);
  else if (c.width == 4)
    fill_slot(w, c.slot, std::uint32_t(c.value));
  else
    fill_slot(w, c.slot, std::uint16_t(c.value));
}

std::unique_ptr<Block> made_block(Launch& launch, std::uint32_t id) {
  const Kernel& kernel = *launch.kernel;
  const std::uint32_t warps = (launch.threads + kWarp - 1) / kWarp;
  auto block = std::make_unique<Block>();
  block->launch = &launch;
  block->id = id;
  block->registers.assign(warps * kernel.register_bytes + 64, kPoison);
  block->local.assign(kernel.local_bytes * warps * kWarp, kPoison);
  block->shared.bytes.assign(launch.shared_bytes + kernel.shared_bytes, kPoison);
  block->shared.written.assign(block->shared.bytes.size(), 0);
  block->warps.resize(warps);
  const auto first = (reinterpret_cast<std::uintptr_t>(block->registers.data()) + 63) / 64 * 64;
  for (std::uint32_t k = 0; k < warps; ++k) {
    Warp& w = block->warps[k];
    w.block = block.get();
    w.index = int(k);
    w.registers = reinterpret_cast<std::uint8_t*>(first) + k * kernel.register_bytes;
    const std::uint32_t lanes = std::min(launch.threads - k * kWarp, std::uint32_t(kWarp));
    w.running = lanes == kWarp ? kAllLanes : (Lanes{1} << lanes) - 1;
    for (const Constant& c : kernel.constants) fill_constant(w, c);
    const auto special = [&](Special s) { return kernel.special[std::size_t(s)]; };
    for (std::uint32_t lane = 0; lane < kWarp; ++lane) {
      w.lanes<std::uint32_t>(special(Special::kThread))[lane] = k * kWarp + lane;
      w.lanes<std::uint32_t>(special(Special::kLane))[lane] = lane;
    }
    fill_slot(w, special(Special::kBlock), id);
    fill_slot(w, special(Special::kBlockSize), launch.threads);
    fill_slot(w, special(Special::kGridSize), launch.grid);
  }
  return block;
}

bool finished(const Block& b) {
  return std::none_of(b.warps.begin(), b.warps.end(), [](const Warp& w) { return w.live(); });
}

// Nobody can go on.
[[noreturn]] void stuck(const Block& b) {
  for (const Warp& w : b.warps)
    if (const Lanes waiting = w.at_warp ? w.at_warp : w.at_block) {
      const int lane = std::countr_zero(waiting);
      const Instruction& i = b.launch->kernel->code[w.pc[lane]];
      fail(w, i, lane,
           w.at_warp ? "lanes wait for lanes of their warp that are elsewhere"
                     : "threads wait at a barrier for threads that are elsewhere");
    }
  throw Error("nobody runs, and nobody waits: " + b.launch->kernel->function);
}

// ---- forward and reverse ----

void run_lanes_reversed(Warp& w) {
  do
    for (int lane = kWarp - 1; lane >= 0; --lane)
      while (w.running >> lane & 1) {
        run_lanes(w, Lanes{1} << lane, kNoEnd, kManySteps);
        check_steps(*w.block->launch);
      }
  while (release_warp(w));
}

void run_block(Launch& launch, std::uint32_t id, bool reverse) {
  const std::unique_ptr<Block> block = made_block(launch, id);
  std::vector<Warp>& warps = block->warps;
  while (!finished(*block)) {
    for (std::size_t k = 0; k < warps.size(); ++k)
      if (reverse)
        run_lanes_reversed(warps[warps.size() - 1 - k]);
      else
        run_converged(warps[k], kNoLimit);
    if (!release_block(*block) && !finished(*block)) stuck(*block);
  }
}

// ---- random orders ----

// The blocks that run at once; the others follow as these finish.
class Residents {
 public:
  Residents(Launch& launch, std::vector<std::uint32_t> ids) : launch_(launch), ids_(ids) {
    for (std::size_t k = ids_.size(); k > 1; --k) std::swap(ids_[k - 1], ids_[random_number() % k]);
    admit();
  }
  bool empty() const { return blocks_.empty(); }
  Block& any() { return *blocks_[random_number() % blocks_.size()]; }
  void retire(const Block& block) {
    std::erase_if(blocks_, [&](const auto& b) { return b.get() == &block; });
    admit();
  }

 private:
  void admit() {
    const auto most = std::size_t(launch_.settings->resident);
    for (; blocks_.size() < most && next_ < ids_.size(); ++next_)
      blocks_.push_back(made_block(launch_, ids_[next_]));
  }
  Launch& launch_;
  std::vector<std::uint32_t> ids_;
  std::size_t next_ = 0;
  std::vector<std::unique_ptr<Block>> blocks_;
};

// Mostly short, some long: a thread may also be left behind.
std::int64_t random_slice(int mean) {
  return random_number() % 16 == 0 ? 64 * mean : 1 + random_number() % unsigned(2 * mean);
}

int any_lane(Lanes lanes) {
  for (unsigned skip = random_number() % unsigned(std::popcount(lanes)); skip > 0; --skip)
    lanes &= lanes - 1;
  return std::countr_zero(lanes);
}

// A warp of which some lane runs, from a random one on; null if there is none.
Warp* any_running(Block& b) {
  const std::size_t count = b.warps.size(), first = random_number() % count;
  for (std::size_t k = 0; k < count; ++k)
    if (Warp& w = b.warps[(first + k) % count]; w.running) return &w;
  return nullptr;
}

bool release(Block& b) {
  bool any = false;
  for (Warp& w : b.warps) any |= w.at_warp && release_warp(w);
  return release_block(b) || any;
}

void run_random(Launch& launch, const std::vector<std::uint32_t>& ids, bool lockstep) {
  for (Residents residents(launch, ids); !residents.empty();) {
    Block& block = residents.any();
    Warp* w = any_running(block);
    if (!w) {
      if (finished(block))
        residents.retire(block);
      else if (!release(block))
        stuck(block);
      continue;
    }
    const std::int64_t steps = random_slice(launch.settings->slice);
    if (lockstep)
      run_converged(*w, steps);
    else
      run_lanes(*w, Lanes{1} << any_lane(w->running), kNoEnd, steps);
    if (w->at_warp) release_warp(*w);
    check_steps(launch);
  }
}

}  // namespace

void run(Launch& launch, const std::vector<std::uint32_t>& ids) {
  switch (launch.settings->order) {
    case Order::kForward:
      for (const std::uint32_t id : ids) run_block(launch, id, false);
      break;
    case Order::kReverse:
      for (std::size_t k = ids.size(); k-- > 0;) run_block(launch, ids[k], true);
      break;
    case Order::kThreads:
      run_random(launch, ids, false);
      break;
    case Order::kLockstep:
      run_random(launch, ids, true);
      break;
  }
}

}  // namespace ptx
