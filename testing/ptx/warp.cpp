#include "warp.hpp"

#include <algorithm>
#include <bit>

namespace ptx {

std::string source_of(const Kernel& kernel, const Instruction& i) {
  const bool known = i.location.file < kernel.files.size();
  return (known ? kernel.files[i.location.file] : "?") + ":" + std::to_string(i.location.line);
}

void fail(const Warp& w, const Instruction& i, int lane, const std::string& what) {
  const Kernel& kernel = *w.block->launch->kernel;
  throw Error(what + " (thread " + std::to_string(w.thread(lane)) + " of block " +
              std::to_string(w.block->id) + ", " + kernel.function + ", " + source_of(kernel, i) +
              ": " + i.text + ")");
}

namespace {

std::uint64_t random_state = 1;

void set_pc(Warp& w, Lanes lanes, std::uint32_t pc) {
  each(lanes, [&](int lane) { w.pc[lane] = pc; });
}

// Lanes for which the guard holds.
Lanes guarded(Warp& w, const Instruction& i, Lanes lanes) {
  if (i.guard == kNoSlot) return lanes;
  const Lanes p = w.predicate(i.guard);
  return lanes & (i.guard_negated ? ~p : p);
}

}  // namespace

std::uint32_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return std::uint32_t(random_state >> 16);
}
void seed_random(std::uint64_t seed) { random_state = seed * 0x9e3779b97f4a7c15ull | 1; }

void run_lanes(Warp& w, Lanes lanes, std::uint32_t end, std::int64_t steps) {
  Launch& launch = *w.block->launch;
  const Instruction* code = launch.kernel->code.data();
  const bool counted = launch.settings->counted;
  std::uint32_t pc = w.pc[std::countr_zero(lanes)];
  const std::int64_t all = steps;
  for (; steps > 0 && pc < end; --steps) {
    const Instruction& i = code[pc];
    const Lanes active = guarded(w, i, lanes);
    if (counted) {
      ++i.issued;
      i.lanes += std::uint64_t(std::popcount(active));
    }
    if (!active) {
      ++pc;
      continue;
    }
    if (i.flow == Flow::kNext) {
      i.execute(w, i, active);
      ++pc;
      continue;
    }
    if (i.flow == Flow::kBranch && active == lanes) {
      pc = i.target;
      continue;
    }
    // From here on the lanes part, or some leave.
    set_pc(w, lanes & ~active, pc + 1);
    set_pc(w, active, i.flow == Flow::kBranch ? i.target : pc);
    if (i.flow == Flow::kExit)
      w.running &= ~active;
    else if (i.flow != Flow::kBranch)
      arrive(w, i, active);
    launch.steps += std::uint64_t(all - steps + 1);
    return;
  }
  set_pc(w, lanes, pc);
  launch.steps += std::uint64_t(all - steps);
}

void check_steps(const Launch& launch) {
  if (launch.steps > launch.settings->most_steps)
    throw Error("an endless loop, or more steps than allowed: " + launch.kernel->function);
}

void run_converged(Warp& w, std::int64_t steps) {
  const Launch& launch = *w.block->launch;
  while (steps > 0) {
    check_steps(launch);
    if (w.at_warp) release_warp(w);
    if (!w.running) return;
    std::uint32_t pc = ~0u, next = ~0u;
    each(w.running, [&](int lane) { pc = std::min(pc, w.pc[lane]); });
    Lanes behind = 0;
    each(w.running, [&](int lane) {
      if (w.pc[lane] == pc)
        behind |= Lanes{1} << lane;
      else
        next = std::min(next, w.pc[lane]);
    });
    const std::uint64_t before = launch.steps;
    run_lanes(w, behind, next, std::min(steps, kManySteps));
    steps -= std::int64_t(launch.steps - before);
  }
}

}  // namespace ptx
