#include "memory.hpp"

#include <algorithm>
#include <cstring>

#include "counts.hpp"
#include "lanewise.hpp"
#include "opcode.hpp"

namespace ptx {

// ---- buffers in global memory ----

Buffers& Buffers::here() {
  static thread_local Buffers buffers;
  return buffers;
}
void Buffers::add(void* data, std::size_t bytes, bool writable, bool filled) {
  if (bytes == 0) return;
  const auto begin = reinterpret_cast<std::uint64_t>(data);
  Buffer b{begin, begin + bytes, writable, {}, {}};
  if (writable && !filled) b.written.resize(bytes);
  buffers_.push_back(std::move(b));
}
void Buffers::forget_sectors() {
  for (Buffer& b : buffers_) b.sectors.assign((b.end - b.begin) / kSector + 2, 0);
}
void Buffers::touch_sectors(Buffer& b, std::uint64_t address, std::size_t bytes, bool write) {
  const std::uint64_t first = b.begin / kSector;
  for (std::uint64_t s = address / kSector; s <= (address + bytes - 1) / kSector; ++s)
    b.sectors[s - first] |= write ? 2 : 1;
}
Buffers::Sectors Buffers::sectors() const {
  Sectors all;
  for (const Buffer& b : buffers_)
    for (const std::uint8_t touched : b.sectors) {
      all.read += touched & 1;
      all.written += touched >> 1;
    }
  return all;
}
Buffer* Buffers::find(std::uint64_t address, std::size_t bytes) {
  const auto holds = [&](const Buffer& b) {
    return address >= b.begin && address + bytes <= b.end;
  };
  if (last_ < buffers_.size() && holds(buffers_[last_])) return &buffers_[last_];
  for (last_ = 0; last_ < buffers_.size(); ++last_)
    if (holds(buffers_[last_])) return &buffers_[last_];
  return nullptr;
}

// ---- local and shared memory, and which one an address is in ----

namespace {

std::string bytes_at(std::uint64_t at, std::size_t bytes) {
  return std::to_string(bytes) + " bytes at " + std::to_string(at);
}

// One access by one lane.
struct Lane {
  Warp& warp;
  const Instruction& i;
  int lane;
  Access access;
  const void* value;  // that is stored; null for loads and atomics

  [[noreturn]] void wrong(const std::string& what) const { fail(warp, i, lane, what); }
  bool writes() const { return access != Access::kRead; }
  Block& block() const { return *warp.block; }
  Actor actor() const {
    return {.block = block().id,
            .thread = warp.thread(lane),
            .epoch = block().epoch,
            .clock = warp.clock[lane],
            .seen = warp.seen[lane],
            .strong = i.strong};
  }
};

// Marks bytes as written, or finds one that is not.
void check_written(std::vector<std::uint8_t>& written, std::size_t at, std::size_t bytes,
                   const Lane& lane, const char* memory) {
  std::uint8_t* const first = written.data() + at;
  if (lane.access != Access::kWrite && std::memchr(first, 0, bytes))
    lane.wrong(std::string(memory) +
               " memory is read before it is written: " + bytes_at(at, bytes));
  if (lane.writes()) std::memset(first, 1, bytes);
}

std::uint8_t* shared(const Lane& lane, std::uint64_t address, std::size_t bytes) {
  SharedMemory& memory = lane.block().shared;
  const std::uint64_t at = address - kSharedBase, size = memory.bytes.size();
  if (address < kSharedBase || at + bytes > size)
    lane.wrong("shared memory out of bounds: " + bytes_at(at, bytes) + " of " +
               std::to_string(size));
  if (!lane.block().launch->settings->counted)
    if (const std::string race = memory.shadow.touch(at, bytes, lane.writes(), lane.actor());
        !race.empty())
      lane.wrong("race on shared memory byte " + race);
  check_written(memory.written, at, bytes, lane, "shared");
  return memory.bytes.data() + at;
}

std::uint8_t* local(const Lane& lane, std::uint64_t at, std::size_t bytes) {
  const std::size_t size = lane.block().launch->kernel->local_bytes;
  if (at + bytes > size) lane.wrong("local memory out of bounds: " + bytes_at(at, bytes));
  return lane.block().local.data() + std::size_t(lane.warp.thread(lane.lane)) * size + at;
}

std::uint8_t* global(const Lane& lane, std::uint64_t address, std::size_t bytes) {
  Buffer* buffer = Buffers::here().find(address, bytes);
  if (!buffer) lane.wrong("global memory out of bounds: " + bytes_at(address, bytes));
  if (lane.writes() && !buffer->writable) lane.wrong("an operand is written");
  auto* data = reinterpret_cast<std::uint8_t*>(address);
  Launch& launch = *lane.block().launch;
  // To store what is there already harms nobody.
  const bool same = lane.value && std::memcmp(data, lane.value, bytes) == 0;
  if (launch.settings->global_races && !same)
    if (const std::string race = launch.global.touch(address, bytes, lane.writes(), lane.actor());
        !race.empty())
      lane.wrong("race on global memory byte " + race);
  if (!buffer->written.empty())
    check_written(buffer->written, address - buffer->begin, bytes, lane, "global");
  if (launch.settings->counted)
    Buffers::here().touch_sectors(*buffer, address, bytes, lane.writes());
  return data;
}

std::uint8_t* checked(const Lane& lane, std::uint64_t address, std::size_t bytes) {
  if (address % bytes != 0) lane.wrong("misaligned address: " + bytes_at(address, bytes));
  switch (lane.i.space) {
    case Space::kShared:
      return shared(lane, address, bytes);
    case Space::kLocal:
      return local(lane, address, bytes);
    case Space::kParameter: {
      std::vector<std::uint8_t>& all = lane.block().launch->parameters;
      if (address + bytes > all.size()) lane.wrong("parameter out of bounds");
      return all.data() + address;
    }
    case Space::kGlobal:
      return global(lane, address, bytes);
    case Space::kGeneric:
      if ((address & kWindows) == kSharedWindow) return shared(lane, address & ~kWindows, bytes);
      if ((address & kWindows) == kLocalWindow) return local(lane, address & ~kWindows, bytes);
      return global(lane, address, bytes);
  }
  return nullptr;
}

// ---- ld, st, atom ----

template <class F>
void with_addresses(Warp& w, const Instruction& i, Lanes lanes, std::size_t bytes, F f) {
  Addresses counted(w, i, bytes);
  const auto visit = [&](const auto* base) {
    for (Lanes left = lanes; left; left &= left - 1) {
      const int lane = __builtin_ctz(left);
      const std::uint64_t address = std::uint64_t(base[lane]) + std::uint64_t(i.offset);
      counted.add(address);
      f(lane, address);
    }
  };
  if (i.wide_address)
    visit(w.lanes<std::uint64_t>(i.src[0]));
  else
    visit(w.lanes<std::uint32_t>(i.src[0]));
}

// T in memory, extended to R in a register.
template <class T, class R>
void load(Warp& w, const Instruction& i, Lanes lanes) {
  const std::size_t bytes = sizeof(T) * i.num_dst;
  with_addresses(w, i, lanes, bytes, [&](int lane, std::uint64_t address) {
    const std::uint8_t* from = checked({w, i, lane, Access::kRead, nullptr}, address, bytes);
    for (int k = 0; k < i.num_dst; ++k) {
      T v;
      std::memcpy(&v, from + k * sizeof(T), sizeof v);
      using Extended = std::conditional_t<std::is_signed_v<T>, std::make_signed_t<R>, R>;
      if (i.dst[k] != kNoSlot) w.lanes<R>(i.dst[k])[lane] = R(Extended(v));
    }
  });
}
template <class T, class R>
void store(Warp& w, const Instruction& i, Lanes lanes) {
  const int count = i.num_src - 1;
  const std::size_t bytes = sizeof(T) * std::size_t(count);
  with_addresses(w, i, lanes, bytes, [&](int lane, std::uint64_t address) {
    T values[4];
    for (int k = 0; k < count; ++k) values[k] = T(w.lanes<R>(i.src[1 + k])[lane]);
    std::memcpy(checked({w, i, lane, Access::kWrite, values}, address, bytes), values, bytes);
  });
}

// f(old, a, b): what is there from now on.
template <class T, auto f>
void atomic(Warp& w, const Instruction& i, Lanes lanes) {
  with_addresses(w, i, lanes, sizeof(T), [&](int lane, std::uint64_t address) {
    std::uint8_t* at = checked({w, i, lane, Access::kAtomic, nullptr}, address, sizeof(T));
    T old;
    std::memcpy(&old, at, sizeof old);
    const T a = w.lanes<T>(i.src[1])[lane], b = i.num_src > 2 ? w.lanes<T>(i.src[2])[lane] : T{};
    const T now = f(old, a, b);
    std::memcpy(at, &now, sizeof now);
    if (i.num_dst > 0 && i.dst[0] != kNoSlot) w.lanes<T>(i.dst[0])[lane] = old;
  });
}

template <class T>
Execute atomic_of(Opcode& opcode) {
  using U = std::make_unsigned_t<T>;
  if (opcode.take("add")) return atomic<T, [](T old, T a, T) { return T(U(old) + U(a)); }>;
  if (opcode.take("min")) return atomic<T, [](T old, T a, T) { return a < old ? a : old; }>;
  if (opcode.take("max")) return atomic<T, [](T old, T a, T) { return old < a ? a : old; }>;
  if (opcode.take("and")) return atomic<T, [](T old, T a, T) { return T(old & a); }>;
  if (opcode.take("or")) return atomic<T, [](T old, T a, T) { return T(old | a); }>;
  if (opcode.take("xor")) return atomic<T, [](T old, T a, T) { return T(old ^ a); }>;
  if (opcode.take("exch")) return atomic<T, [](T, T a, T) { return a; }>;
  if (opcode.take("cas")) return atomic<T, [](T old, T a, T b) { return old == a ? b : old; }>;
  return nullptr;
}
Execute atomic_of_type(Opcode& opcode) {
  const std::string type = opcode.type();
  if (type == "u32" || type == "b32") return atomic_of<std::uint32_t>(opcode);
  if (type == "s32") return atomic_of<std::int32_t>(opcode);
  if (type == "u64" || type == "b64") return atomic_of<std::uint64_t>(opcode);
  if (type == "s64") return atomic_of<std::int64_t>(opcode);
  return nullptr;
}

template <class T>
Execute loading(int width) {
  if (width == 2) return load<T, std::uint16_t>;
  if (width == 4) return load<T, std::uint32_t>;
  return width == 8 ? load<T, std::uint64_t> : nullptr;
}
Execute loading(std::string_view type, int width) {
  const bool is_signed = type[0] == 's';
  switch (bytes_of(type)) {
    case 1:
      return is_signed ? loading<std::int8_t>(width) : loading<std::uint8_t>(width);
    case 2:
      return is_signed ? loading<std::int16_t>(width) : loading<std::uint16_t>(width);
    case 4:
      return is_signed ? loading<std::int32_t>(width) : loading<std::uint32_t>(width);
    default:
      return loading<std::uint64_t>(width);
  }
}
template <class T>
Execute storing(int width) {
  if (width == 2) return store<T, std::uint16_t>;
  if (width == 4) return store<T, std::uint32_t>;
  return width == 8 ? store<T, std::uint64_t> : nullptr;
}
Execute storing(int bytes, int width) {
  if (bytes == 1) return storing<std::uint8_t>(width);
  if (bytes == 2) return storing<std::uint16_t>(width);
  return bytes == 4 ? storing<std::uint32_t>(width) : storing<std::uint64_t>(width);
}

void decode_space(Opcode& opcode, Instruction& out) {
  using enum Space;
  out.space = opcode.take("global")   ? kGlobal
              : opcode.take("shared") ? kShared
              : opcode.take("local")  ? kLocal
              : opcode.take("param")  ? kParameter
                                      : kGeneric;
  out.kind = out.space == kShared      ? Kind::kShared
             : out.space == kLocal     ? Kind::kLocal
             : out.space == kParameter ? Kind::kParameter
                                       : Kind::kGlobal;
  for (const char* order : {"volatile", "relaxed", "acquire", "release"})
    out.strong |= opcode.take(order);
  for (const char* scope : {"gpu", "cta", "sys"}) opcode.take(scope);
}

}  // namespace

bool decode_memory(Opcode& opcode, Operands& operands, Instruction& out) {
  const std::string name = opcode.name(), type = opcode.type();
  if (name != "ld" && name != "st" && name != "atom" && name != "red") return false;
  decode_space(opcode, out);
  if (name == "atom" || name == "red") {
    out.strong = true;
    out.kind = Kind::kAtomic;
    std::size_t next = 0;
    if (name == "atom") operands.destinations(next++, out);
    operands.address(next++, out);
    for (; next < operands.size(); ++next) operands.add_source(next, type, out);
    out.execute = atomic_of_type(opcode);
    return out.execute != nullptr;
  }
  const std::size_t elements = operands.elements(name == "ld" ? 0 : 1).size();
  if (elements > 1 && !opcode.take("v" + std::to_string(elements))) return false;
  if (name == "ld") {
    opcode.take("nc");  // read-only data
    operands.destinations(0, out);
    operands.address(1, out);
    out.execute = loading(type, operands.width(operands.elements(0)[0]));
  } else {
    operands.address(0, out);
    operands.add_source(1, type, out);
    const std::string first = operands.elements(1)[0];
    out.execute = storing(bytes_of(type), operands.width_of_source(first, type));
  }
  return out.execute != nullptr;
}

}  // namespace ptx
