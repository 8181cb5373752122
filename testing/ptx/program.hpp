// A kernel of PTX, decoded: instructions over slots in the registers of a warp.
//
// A slot is a byte offset into Warp::registers, where the values of the 32 lanes lie side by side;
// a predicate is one word with a bit per lane. Immediates and special registers are slots too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ptx {

constexpr int kWarp = 32;
using Lanes = std::uint32_t;  // a set of lanes, a bit each
constexpr Lanes kAllLanes = ~Lanes{0};
using Slot = std::uint32_t;
constexpr Slot kNoSlot = ~Slot{0};

struct Error : std::runtime_error {
  using runtime_error::runtime_error;
};

// How an instruction changes who runs next.
enum class Flow : std::uint8_t { kNext, kBranch, kExit, kWarpSync, kBlockSync };

// What an instruction is counted as.
enum class Kind : std::uint8_t {
  kInteger,
  kFloat,
  kDouble,
  kMove,    // mov, cvta: what ptxas removes
  kFolded,  // what it makes a part of other instructions: signs of operands, halves of 64 bits
  kConvert,
  kBranch,
  kParameter,
  kGlobal,
  kShared,
  kLocal,
  kAtomic,
  kWarp,
  kBarrier,
  kCount
};

enum class Space : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParameter };

// Windows of the 64-bit address space in which no host pointer lies.
constexpr std::uint64_t kSharedWindow = 1ull << 56, kLocalWindow = 2ull << 56;
constexpr std::uint64_t kWindows = 255ull << 56;
// So address 0 of shared memory is no null pointer.
constexpr std::uint64_t kSharedBase = 0x100;

enum class WarpOp : std::uint8_t {
  kSync,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kShuffleIndex,
  kBallot,
  kAny,
  kAll,
  kUniform,
  kAdd,
  kMinUnsigned,
  kMaxUnsigned,
  kMinSigned,
  kMaxSigned,
  kAnd,
  kOr,
  kXor
};
enum class BlockOp : std::uint8_t { kSync, kOr, kAnd, kCount };

// How setp combines its comparison with a third operand.
enum class PredicateOp : std::uint8_t { kNone, kAnd, kOr, kXor };

struct Warp;
struct Instruction;
using Execute = void (*)(Warp&, const Instruction&, Lanes);

struct Location {
  std::uint32_t file = 0, line = 0;
};

struct Instruction {
  Execute execute = nullptr;  // null where `flow` says it all
  Flow flow = Flow::kNext;
  Kind kind = Kind::kInteger;
  Space space = Space::kGeneric;
  WarpOp warp_op = WarpOp::kSync;
  BlockOp block_op = BlockOp::kSync;
  PredicateOp predicate_op = PredicateOp::kNone;
  bool strong = false;          // volatile, relaxed or atomic: may be concurrent with its like
  bool guard_negated = false;   // @!p
  bool source_negated = false;  // !p, of the first source of a vote or the last of others
  bool approximate = false;     // within some ulps
  std::uint8_t bytes = 0;       // of one element in memory
  std::uint8_t num_dst = 0, num_src = 0;
  Slot guard = kNoSlot;
  Slot dst[4] = {kNoSlot, kNoSlot, kNoSlot, kNoSlot};
  Slot src[5] = {kNoSlot, kNoSlot, kNoSlot, kNoSlot, kNoSlot};
  std::int64_t offset = 0;   // of an address
  bool wide_address = true;  // in a register of 64 bits
  std::uint32_t target = 0;  // of a branch
  Location location;
  std::string text;
  // Counted: warps that issued it, and lanes that executed it.
  mutable std::uint64_t issued = 0, lanes = 0;
};

struct Parameter {
  std::size_t offset, bytes;
};

// Values that all lanes of all warps share: immediates, addresses of symbols, special registers.
enum class Special : std::uint8_t { kThread, kLane, kBlock, kBlockSize, kGridSize, kCount };
struct Constant {
  Slot slot;
  int width;
  std::uint64_t value;
};

struct Kernel {
  std::string name;      // mangled
  std::string function;  // as the source has it: "prox_group<4>"
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  std::size_t parameter_bytes = 0, local_bytes = 0, shared_bytes = 0;  // static
  unsigned max_threads = 1024;
  std::size_t register_bytes = 0;
  std::vector<Constant> constants;
  Slot special[std::size_t(Special::kCount)];  // of 32 bits
  std::vector<std::string> files;
};

// A defect that is put into kernels as they are read, to see that it is found: in kernels whose
// name starts so, `from` becomes `to` in the statement that is the `at`-th with a `from`; none if
// `at` < 0.
struct Mutation {
  std::string kernel, from, to;
  int at = -1;
  int found = 0;  // statements with a `from` so far
};
Mutation& mutation();

// The kernels of one translation unit.
class Module {
 public:
  // Throws Error for a text that is no PTX; instructions are read at a kernel's first use.
  explicit Module(std::string text);
  // Null for an unknown name; throws Error for an instruction that the interpreter does not know.
  const Kernel* find(std::string_view name);
  // Reads kernels anew at their next use.
  void forget();

 private:
  struct Entry {
    std::size_t begin, end;  // of its text
    std::unique_ptr<Kernel> kernel;
  };
  std::string text_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> files_;
};

// "prox_group<4>" of a mangled name.
std::string demangled(const std::string& name);

}  // namespace ptx
