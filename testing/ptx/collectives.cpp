// Barriers, shuffles, votes and reductions: lanes wait until all that they wait for have come.
#include <algorithm>
#include <bit>

#include "lanewise.hpp"
#include "opcode.hpp"

namespace ptx {
namespace {

const Instruction& at(const Warp& w, int lane) { return w.block->launch->kernel->code[w.pc[lane]]; }

// ---- within a warp ----

// The lane that is read from, and whether it lies in the segment: see shfl.sync in the PTX manual.
struct Source {
  int lane;
  bool inside;
};
Source source_of(WarpOp op, int lane, std::uint32_t distance, std::uint32_t clamp) {
  const int segment = int(clamp >> 8 & 31), bound = int(clamp & 31), b = int(distance & 31);
  const int last = (lane & segment) | (bound & ~segment), first = lane & segment;
  int from = 0;
  switch (op) {
    case WarpOp::kShuffleUp:
      from = lane - b;
      return from >= last ? Source{from, true} : Source{lane, false};
    case WarpOp::kShuffleDown:
      from = lane + b;
      break;
    case WarpOp::kShuffleXor:
      from = lane ^ b;
      break;
    default:
      from = first | (b & ~segment);
  }
  return from <= last ? Source{from, true} : Source{lane, false};
}

void shuffle(Warp& w, Lanes lanes) {
  std::uint32_t values[kWarp], results[kWarp];
  Lanes inside = 0;
  each(lanes, [&](int lane) { values[lane] = w.lanes<std::uint32_t>(at(w, lane).src[0])[lane]; });
  for (Lanes left = lanes; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    const Instruction& i = at(w, lane);
    const Source from = source_of(i.warp_op, lane, w.lanes<std::uint32_t>(i.src[1])[lane],
                                  w.lanes<std::uint32_t>(i.src[2])[lane]);
    if (!(lanes >> from.lane & 1))
      fail(w, i, lane, "a shuffle from lane " + std::to_string(from.lane) + ", which is not there");
    results[lane] = values[from.lane];
    inside |= Lanes(from.inside) << lane;
  }
  for (Lanes left = lanes; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    const Instruction& i = at(w, lane);
    if (i.dst[0] != kNoSlot) w.lanes<std::uint32_t>(i.dst[0])[lane] = results[lane];
    if (i.num_dst > 1) set_predicate(w, i.dst[1], Lanes{1} << lane, inside);
  }
}

void vote(Warp& w, Lanes lanes) {
  Lanes ayes = 0;
  for (Lanes left = lanes; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    const Instruction& i = at(w, lane);
    const Lanes p = w.predicate(i.src[0]);
    ayes |= (i.source_negated ? ~p : p) & Lanes{1} << lane;
  }
  for (Lanes left = lanes; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    const Instruction& i = at(w, lane);
    if (i.warp_op == WarpOp::kBallot) {
      w.lanes<std::uint32_t>(i.dst[0])[lane] = ayes;
      continue;
    }
    const bool result = i.warp_op == WarpOp::kAny   ? ayes != 0
                        : i.warp_op == WarpOp::kAll ? ayes == lanes
                                                    : ayes == 0 || ayes == lanes;
    set_predicate(w, i.dst[0], Lanes{1} << lane, result ? kAllLanes : 0);
  }
}

std::uint32_t reduced(WarpOp op, std::uint32_t a, std::uint32_t b) {
  const auto s = [](std::uint32_t v) { return std::int32_t(v); };
  switch (op) {
    case WarpOp::kAdd:
      return a + b;
    case WarpOp::kMinUnsigned:
      return std::min(a, b);
    case WarpOp::kMaxUnsigned:
      return std::max(a, b);
    case WarpOp::kMinSigned:
      return s(a) < s(b) ? a : b;
    case WarpOp::kMaxSigned:
      return s(a) < s(b) ? b : a;
    case WarpOp::kAnd:
      return a & b;
    case WarpOp::kOr:
      return a | b;
    default:
      return a ^ b;
  }
}
void reduce(Warp& w, Lanes lanes) {
  const auto value = [&](int lane) { return w.lanes<std::uint32_t>(at(w, lane).src[0])[lane]; };
  const int first = std::countr_zero(lanes);
  std::uint32_t all = value(first);
  each(lanes & (lanes - 1),
       [&](int lane) { all = reduced(at(w, first).warp_op, all, value(lane)); });
  each(lanes, [&](int lane) { w.lanes<std::uint32_t>(at(w, lane).dst[0])[lane] = all; });
}

// All of these lanes have met: what each accessed before comes before what any does from now on.
void meet(Warp& w, Lanes lanes) {
  each(lanes, [&](int lane) { ++w.clock[lane]; });
  each(lanes,
       [&](int lane) { each(lanes, [&](int other) { w.seen[lane][other] = w.clock[other]; }); });
}

void complete(Warp& w, Lanes lanes) {
  switch (at(w, std::countr_zero(lanes)).warp_op) {
    case WarpOp::kSync:
      meet(w, lanes);
      break;
    case WarpOp::kShuffleUp:
    case WarpOp::kShuffleDown:
    case WarpOp::kShuffleXor:
    case WarpOp::kShuffleIndex:
      shuffle(w, lanes);
      break;
    case WarpOp::kBallot:
    case WarpOp::kAny:
    case WarpOp::kAll:
    case WarpOp::kUniform:
      vote(w, lanes);
      break;
    default:
      reduce(w, lanes);
  }
  each(lanes, [&](int lane) { ++w.pc[lane]; });
  w.at_warp &= ~lanes;
  w.running |= lanes;
}

// Whether the lane waits at the same primitive, with the same mask, as the other.
bool joins(const Warp& w, int lane, int other) {
  return w.mask[lane] == w.mask[other] && at(w, lane).warp_op == at(w, other).warp_op;
}

void set_votes(Block& b, const Instruction& i) {
  std::uint32_t count = 0, all = 0;
  for (Warp& w : b.warps) {
    const Lanes p = w.predicate(i.src[0]);
    count += std::uint32_t(std::popcount((i.source_negated ? ~p : p) & w.at_block));
    all += std::uint32_t(std::popcount(w.at_block));
  }
  for (Warp& w : b.warps) {
    if (i.block_op == BlockOp::kCount)
      each(w.at_block, [&](int lane) { w.lanes<std::uint32_t>(i.dst[0])[lane] = count; });
    else
      set_predicate(w, i.dst[0], w.at_block,
                    (i.block_op == BlockOp::kOr ? count > 0 : count == all) ? kAllLanes : 0);
  }
}

}  // namespace

void arrive(Warp& w, const Instruction& i, Lanes lanes) {
  w.running &= ~lanes;
  if (i.flow == Flow::kBlockSync) {
    w.at_block |= lanes;
    return;
  }
  w.at_warp |= lanes;
  const std::uint32_t* masks = w.lanes<std::uint32_t>(i.src[i.num_src - 1]);
  each(lanes, [&](int lane) {
    w.mask[lane] = masks[lane];
    if (!(masks[lane] >> lane & 1))
      fail(w, i, lane, "a lane calls a warp primitive with a mask without itself");
  });
}

bool release_warp(Warp& w) {
  bool any = false;
  for (Lanes left = w.at_warp; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    if (!(w.at_warp >> lane & 1)) continue;  // released with an earlier one
    const Lanes awaited = w.mask[lane] & w.live();
    if (awaited & ~w.at_warp) continue;
    bool all = true;
    each(awaited, [&](int other) { all &= joins(w, lane, other); });
    if (!all) continue;
    complete(w, awaited);
    any = true;
  }
  return any;
}

bool release_block(Block& b) {
  const Instruction* first = nullptr;
  for (Warp& w : b.warps) {
    if (w.running | w.at_warp) return false;
    for (Lanes left = w.at_block; left; left &= left - 1) {
      const int lane = std::countr_zero(left);
      const Instruction& i = at(w, lane);
      if (!first) first = &i;
      if (&i != first && (i.block_op != first->block_op || i.block_op != BlockOp::kSync))
        fail(w, i, lane, "threads wait at different barriers, another at " + first->text);
    }
  }
  if (!first) return false;
  if (first->block_op != BlockOp::kSync) set_votes(b, *first);
  for (Warp& w : b.warps) {
    each(w.at_block, [&](int lane) { ++w.pc[lane]; });
    w.running |= w.at_block;
    w.at_block = 0;
  }
  ++b.epoch;
  return true;
}

// ---- decoding ----

namespace {

bool decode_barrier(Opcode& opcode, Operands& operands, Instruction& out) {
  out.kind = Kind::kBarrier;
  if (opcode.take("warp")) {
    opcode.take("sync");
    out.flow = Flow::kWarpSync;
    operands.add_source(0, "u32", out);
    return true;
  }
  out.flow = Flow::kBlockSync;
  opcode.take("cta");
  if (opcode.take("red")) {
    out.block_op = opcode.take("or")    ? BlockOp::kOr
                   : opcode.take("and") ? BlockOp::kAnd
                                        : BlockOp::kCount;
    if (out.block_op == BlockOp::kCount && !opcode.take("popc")) return false;
    operands.destinations(0, out);
    operands.predicate(2, out);
    return operands.size() == 3 && operands.text(1) == "0";
  }
  // Barrier 0 of all threads is what __syncthreads() is.
  return opcode.take("sync") && operands.size() == 1 && operands.text(0) == "0";
}

bool decode_warp_op(Opcode& opcode, Instruction& out) {
  using enum WarpOp;
  static const std::map<std::string, WarpOp> shuffles{
      {"up", kShuffleUp}, {"down", kShuffleDown}, {"bfly", kShuffleXor}, {"idx", kShuffleIndex}};
  static const std::map<std::string, WarpOp> votes{
      {"ballot", kBallot}, {"any", kAny}, {"all", kAll}, {"uni", kUniform}};
  static const std::map<std::string, WarpOp> reductions{
      {"add.u32", kAdd},         {"add.s32", kAdd},       {"min.u32", kMinUnsigned},
      {"max.u32", kMaxUnsigned}, {"min.s32", kMinSigned}, {"max.s32", kMaxSigned},
      {"and.b32", kAnd},         {"or.b32", kOr},         {"xor.b32", kXor}};
  const bool redux = opcode.name() == "redux";
  const auto& known = opcode.name() == "shfl" ? shuffles : redux ? reductions : votes;
  const std::string mode = opcode.take_part(2);
  const auto it = known.find(redux ? mode + "." + opcode.type() : mode);
  if (it == known.end()) return false;
  out.warp_op = it->second;
  return true;
}

}  // namespace

bool decode_collective(Opcode& opcode, Operands& operands, Instruction& out) {
  const std::string& name = opcode.name();
  if (name == "bar" || name == "barrier") return decode_barrier(opcode, operands, out);
  if (name != "shfl" && name != "vote" && name != "redux") return false;
  out.flow = Flow::kWarpSync;
  out.kind = Kind::kWarp;
  if (!opcode.take("sync") || !decode_warp_op(opcode, out)) return false;
  operands.destinations(0, out);
  if (name == "vote")
    operands.predicate(1, out);
  else
    operands.add_source(1, "u32", out);
  for (std::size_t i = 2; i < operands.size(); ++i) operands.add_source(i, "u32", out);
  return true;
}

}  // namespace ptx
