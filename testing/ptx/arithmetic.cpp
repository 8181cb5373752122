// Integers, bits, predicates, moves and branches.
#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "lanewise.hpp"
#include "opcode.hpp"

namespace ptx {
namespace {

using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
constexpr u32 kBits = 8 * sizeof(T);

// f(std::type_identity<T>{}) for the integer type; null for others.
template <class F>
Execute for_integer(std::string_view type, F f) {
  if (type == "u16" || type == "b16") return f(std::type_identity<u16>{});
  if (type == "s16") return f(std::type_identity<s16>{});
  if (type == "u32" || type == "b32") return f(std::type_identity<u32>{});
  if (type == "s32") return f(std::type_identity<s32>{});
  if (type == "u64" || type == "b64") return f(std::type_identity<u64>{});
  if (type == "s64") return f(std::type_identity<s64>{});
  return nullptr;
}

// ---- two operands of one type ----

constexpr auto add = [](auto a, auto b) { return decltype(a)(Unsigned<decltype(a)>(a) + b); };
constexpr auto sub = [](auto a, auto b) { return decltype(a)(Unsigned<decltype(a)>(a) - b); };
constexpr auto low_product = [](auto a, auto b) { return decltype(a)(u64(a) * u64(b)); };
constexpr auto high_product = [](auto a, auto b) {
  using T = decltype(a);
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return T((Wide(a) * Wide(b)) >> kBits<T>);
};
// By zero: all bits. The least number by -1: itself.
constexpr auto divide = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return T(-1);
  if (std::is_signed_v<T> && b == T(-1)) return T(Unsigned<T>(0) - Unsigned<T>(a));
  return T(a / b);
};
constexpr auto remainder = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == T(-1)) return T(0);
  return T(a % b);
};
constexpr auto minimum = [](auto a, auto b) { return b < a ? b : a; };
constexpr auto maximum = [](auto a, auto b) { return a < b ? b : a; };
constexpr auto bit_and = [](auto a, auto b) { return decltype(a)(a & b); };
constexpr auto bit_or = [](auto a, auto b) { return decltype(a)(a | b); };
constexpr auto bit_xor = [](auto a, auto b) { return decltype(a)(a ^ b); };
// Shifts by 32 bits of amount; beyond the width nothing, or the sign, is left.
constexpr auto shift_left = [](auto a, u32 n) {
  using T = decltype(a);
  return T(n >= kBits<T> ? 0 : Unsigned<T>(a) << n);
};
constexpr auto shift_right = [](auto a, u32 n) {
  using T = decltype(a);
  return T(a >> std::min(n, kBits<T> - 1) >> (n >= kBits<T> ? 1 : 0));
};

// ---- one operand ----

constexpr auto negative = [](auto a) { return decltype(a)(Unsigned<decltype(a)>(0) - a); };
constexpr auto absolute = [](auto a) { return a < 0 ? negative(a) : a; };
constexpr auto complement = [](auto a) { return decltype(a)(~a); };
constexpr auto ones = [](auto a) { return u32(std::popcount(Unsigned<decltype(a)>(a))); };
constexpr auto leading_zeros = [](auto a) {
  return u32(std::countl_zero(Unsigned<decltype(a)>(a)));
};
constexpr auto reversed_bits = [](auto a) {
  Unsigned<decltype(a)> from = a, to = 0;
  for (u32 k = 0; k < kBits<decltype(a)>; ++k, from >>= 1) to = (to << 1) | (from & 1);
  return decltype(a)(to);
};
// The place of the highest bit that is not the sign; ~0 where there is none.
constexpr auto highest_bit = [](auto a) {
  using T = decltype(a);
  const auto v = Unsigned<T>(std::is_signed_v<T> && a < 0 ? ~a : a);
  return v == 0 ? ~u32{0} : kBits<T> - 1 - u32(std::countl_zero(v));
};
constexpr auto shift_to_highest_bit = [](auto a) {
  const u32 at = highest_bit(a);
  return at == ~u32{0} ? at : kBits<decltype(a)> - 1 - at;
};

// ---- bit fields ----

constexpr auto extract_bits = [](auto a, u32 at, u32 count) {
  using T = decltype(a);
  at &= 255;
  count &= 255;
  const auto bit = [&](u32 k) { return k < kBits<T> ? Unsigned<T>(a) >> k & 1 : 0; };
  const bool sign = std::is_signed_v<T> && count > 0 && bit(std::min(at + count, kBits<T>) - 1);
  Unsigned<T> field = 0;
  for (u32 k = 0; k < kBits<T>; ++k)
    field |= Unsigned<T>(k < count && at + k < kBits<T> ? bit(at + k) : sign) << k;
  return T(field);
};
constexpr auto insert_bits = [](auto field, auto into, u32 at, u32 count) {
  using T = decltype(field);
  at &= 255;
  count &= 255;
  for (u32 k = 0; k < count && at + k < kBits<T>; ++k) {
    const T bit = T(1) << (at + k);
    into = T((into & ~bit) | ((field >> k & 1) << (at + k)));
  }
  return into;
};
constexpr auto funnel = [](bool right, bool wrap, u32 low, u32 high, u32 n) {
  const u64 both = u64(high) << 32 | low;
  n = wrap ? n & 31 : std::min(n, 32u);
  return u32(right ? both >> n : both << n >> 32);
};
constexpr auto look_up = [](u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 k = 0; k < 8; ++k)
    if (table >> k & 1) result |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  return result;
};
constexpr auto permute_bytes = [](u32 a, u32 b, u32 selector) {
  const u64 both = u64(b) << 32 | a;
  u32 result = 0;
  for (u32 k = 0; k < 4; ++k) {
    const u32 nibble = selector >> 4 * k & 15;
    u32 byte = u32(both >> 8 * (nibble & 7)) & 255;
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * k;
  }
  return result;
};

// ---- executing ----

// Each source and the result are values of the types given.
template <class D, class S, auto f>
void unary(Warp& w, const Instruction& i, Lanes lanes) {
  map<D>(w, i, lanes, f, w.lanes<S>(i.src[0]));
}
template <class D, class S, auto f>
void binary(Warp& w, const Instruction& i, Lanes lanes) {
  map<D>(w, i, lanes, f, w.lanes<S>(i.src[0]), w.lanes<S>(i.src[1]));
}
template <class T, auto f>
void shift(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, f, w.lanes<T>(i.src[0]), w.lanes<u32>(i.src[1]));
}
template <class T>
struct Widened;
template <>
struct Widened<u16> : std::type_identity<u32> {};
template <>
struct Widened<s16> : std::type_identity<s32> {};
template <>
struct Widened<u32> : std::type_identity<u64> {};
template <>
struct Widened<s32> : std::type_identity<s64> {};

template <class T>
void wide_product(Warp& w, const Instruction& i, Lanes lanes) {
  using Wide = typename Widened<T>::type;
  map<Wide>(
      w, i, lanes, [](T a, T b) { return Wide(u64(Wide(a)) * u64(Wide(b))); }, w.lanes<T>(i.src[0]),
      w.lanes<T>(i.src[1]));
}
template <class T>
void wide_product_and_sum(Warp& w, const Instruction& i, Lanes lanes) {
  using Wide = typename Widened<T>::type;
  map<Wide>(
      w, i, lanes, [](T a, T b, Wide c) { return Wide(u64(Wide(a)) * u64(Wide(b)) + u64(c)); },
      w.lanes<T>(i.src[0]), w.lanes<T>(i.src[1]), w.lanes<Wide>(i.src[2]));
}
template <class T>
void product_and_sum(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(
      w, i, lanes, [](T a, T b, T c) { return T(u64(a) * u64(b) + u64(c)); }, w.lanes<T>(i.src[0]),
      w.lanes<T>(i.src[1]), w.lanes<T>(i.src[2]));
}
template <bool kRight, bool kWrap>
void funnel_shift(Warp& w, const Instruction& i, Lanes lanes) {
  map<u32>(
      w, i, lanes, [](u32 a, u32 b, u32 n) { return funnel(kRight, kWrap, a, b, n); },
      w.lanes<u32>(i.src[0]), w.lanes<u32>(i.src[1]), w.lanes<u32>(i.src[2]));
}
void logic(Warp& w, const Instruction& i, Lanes lanes) {
  map<u32>(w, i, lanes, look_up, w.lanes<u32>(i.src[0]), w.lanes<u32>(i.src[1]),
           w.lanes<u32>(i.src[2]), w.lanes<u32>(i.src[3]));
}
void permute(Warp& w, const Instruction& i, Lanes lanes) {
  map<u32>(w, i, lanes, permute_bytes, w.lanes<u32>(i.src[0]), w.lanes<u32>(i.src[1]),
           w.lanes<u32>(i.src[2]));
}
template <class T>
void extract(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, extract_bits, w.lanes<T>(i.src[0]), w.lanes<u32>(i.src[1]),
         w.lanes<u32>(i.src[2]));
}
template <class T>
void insert(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, insert_bits, w.lanes<T>(i.src[0]), w.lanes<T>(i.src[1]),
         w.lanes<u32>(i.src[2]), w.lanes<u32>(i.src[3]));
}
template <class T>
void move(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, [](T a) { return a; }, w.lanes<T>(i.src[0]));
}
template <class T>
void select(Warp& w, const Instruction& i, Lanes lanes) {
  T *to = w.lanes<T>(i.dst[0]), *a = w.lanes<T>(i.src[0]), *b = w.lanes<T>(i.src[1]);
  const Lanes first = w.predicate(i.src[2]);
  each(lanes, [&](int lane) { to[lane] = first >> lane & 1 ? a[lane] : b[lane]; });
}

template <auto f>
void predicates(Warp& w, const Instruction& i, Lanes lanes) {
  const Lanes a = w.predicate(i.src[0]), b = i.num_src > 1 ? w.predicate(i.src[1]) : 0;
  set_predicate(w, i.dst[0], lanes, f(a, b));
}

// {a, b} = c and c = {a, b}: the first element is the lowest.
template <class Whole, class Part>
void unpack(Warp& w, const Instruction& i, Lanes lanes) {
  const Whole* from = w.lanes<Whole>(i.src[0]);
  each(lanes, [&](int lane) {
    const Whole whole = from[lane];
    for (int k = 0; k < i.num_dst; ++k)
      if (i.dst[k] != kNoSlot) w.lanes<Part>(i.dst[k])[lane] = Part(whole >> kBits<Part> * k);
  });
}
template <class Whole, class Part>
void pack(Warp& w, const Instruction& i, Lanes lanes) {
  Whole* to = w.lanes<Whole>(i.dst[0]);
  each(lanes, [&](int lane) {
    Whole whole = 0;
    for (int k = 0; k < i.num_src; ++k)
      whole |= Whole(w.lanes<Part>(i.src[k])[lane]) << kBits<Part> * k;
    to[lane] = whole;
  });
}

// ---- comparing ----

constexpr auto equal = [](auto a, auto b) { return a == b; };
constexpr auto unequal = [](auto a, auto b) { return a != b; };
constexpr auto less = [](auto a, auto b) { return a < b; };
constexpr auto less_equal = [](auto a, auto b) { return a <= b; };
constexpr auto greater = [](auto a, auto b) { return a > b; };
constexpr auto greater_equal = [](auto a, auto b) { return a >= b; };

template <class T>
Execute integer_comparison(const std::string& name) {
  if (name == "eq") return compare<T, equal>;
  if (name == "ne") return compare<T, unequal>;
  if (name == "lt" || name == "lo") return compare<T, less>;
  if (name == "le" || name == "ls") return compare<T, less_equal>;
  if (name == "gt" || name == "hi") return compare<T, greater>;
  if (name == "ge" || name == "hs") return compare<T, greater_equal>;
  throw Error("unknown comparison " + name);
}

// ---- decoding ----

// `execute`, with T for the type of the instruction.
#define FOR_TYPE(execute)                   \
  for_integer(type, [](auto t) -> Execute { \
    using T = typename decltype(t)::type;   \
    return execute;                         \
  })
#define BINARY(f) FOR_TYPE((binary<T, T, f>))
#define UNARY(f) FOR_TYPE((unary<T, T, f>))
#define TO_U32(f) FOR_TYPE((unary<u32, T, f>))
#define EXECUTE(f) FOR_TYPE(f<T>)
#define SHIFT(f) FOR_TYPE((shift<T, f>))
// Of 16 and 32 bits only.
#define WIDENING(f)                           \
  for_integer(type, [](auto t) -> Execute {   \
    using T = typename decltype(t)::type;     \
    if constexpr (sizeof(T) < 8) return f<T>; \
    return nullptr;                           \
  })

Execute moving(std::string_view type) {
  switch (bytes_of(type)) {
    case 2:
      return move<u16>;
    case 4:
      return move<u32>;
    case 8:
      return move<u64>;
    default:
      return predicates<[](Lanes a, Lanes) { return a; }>;
  }
}
Execute unpacking(int whole, std::size_t parts) {
  if (whole == 8 && parts == 2) return unpack<u64, u32>;
  if (whole == 8 && parts == 4) return unpack<u64, u16>;
  if (whole == 4 && parts == 2) return unpack<u32, u16>;
  return nullptr;
}
Execute packing(int whole, std::size_t parts) {
  if (whole == 8 && parts == 2) return pack<u64, u32>;
  if (whole == 8 && parts == 4) return pack<u64, u16>;
  if (whole == 4 && parts == 2) return pack<u32, u16>;
  return nullptr;
}
void decode_mov(Operands& operands, const std::string& type, Instruction& out) {
  out.kind = Kind::kMove;
  const int whole = bytes_of(type);
  operands.destinations(0, out);
  if (operands.is_vector(0)) {
    out.execute = unpacking(whole, out.num_dst);
    operands.add_source(1, type, out);
  } else if (operands.is_vector(1)) {
    const std::size_t parts = operands.elements(1).size();
    out.execute = packing(whole, parts);
    operands.add_source(1, whole == 8 && parts == 2 ? "b32" : "b16", out);
  } else {
    out.execute = moving(type);
    operands.add_source(1, type, out);
  }
}
void decode_mad(Opcode& opcode, Operands& operands, const std::string& type, Instruction& out) {
  const bool wide = opcode.take("wide");
  if (!wide && !opcode.take("lo")) throw Error("unknown instruction");
  operands.destinations(0, out);
  operands.add_source(1, type, out);
  operands.add_source(2, type, out);
  const std::string twice = type.substr(0, 1) + std::to_string(16 * bytes_of(type));
  operands.add_source(3, wide ? twice : type, out);
  out.execute = wide ? WIDENING(wide_product_and_sum) : EXECUTE(product_and_sum);
}
void decode_setp(Opcode& opcode, Operands& operands, const std::string& type, Instruction& out) {
  const std::string comparison = opcode.take_part(1);
  decode_set_predicate(opcode, operands, type, out);
  out.execute = for_integer(
      type, [&](auto t) { return integer_comparison<typename decltype(t)::type>(comparison); });
}
void decode_bit_field(const std::string& name, Operands& operands, const std::string& type,
                      Instruction& out) {
  const std::size_t values = name == "bfi" ? 2 : 1;  // and then two amounts
  operands.destinations(0, out);
  for (std::size_t i = 1; i < operands.size(); ++i)
    operands.add_source(i, i <= values ? type : "u32", out);
  out.execute = name == "bfi" ? EXECUTE(insert) : EXECUTE(extract);
}

bool decode_logic(const std::string& name, Operands& operands, const std::string& type,
                  Instruction& out) {
  const bool predicate = type == "pred";
  if (name == "and")
    out.execute = predicate ? predicates<[](Lanes a, Lanes b) { return a & b; }> : BINARY(bit_and);
  else if (name == "or")
    out.execute = predicate ? predicates<[](Lanes a, Lanes b) { return a | b; }> : BINARY(bit_or);
  else if (name == "xor")
    out.execute = predicate ? predicates<[](Lanes a, Lanes b) { return a ^ b; }> : BINARY(bit_xor);
  else if (name == "not")
    out.execute = predicate ? predicates<[](Lanes a, Lanes) { return ~a; }> : UNARY(complement);
  else
    return false;
  operands.simple(type, out);
  return true;
}

Execute product(Opcode& opcode, const std::string& type) {
  if (opcode.take("wide")) return WIDENING(wide_product);
  if (opcode.take("hi")) return BINARY(high_product);
  if (opcode.take("lo")) return BINARY(low_product);
  return nullptr;
}
Execute bit_search(Opcode& opcode, const std::string& type) {
  return opcode.take("shiftamt") ? TO_U32(shift_to_highest_bit) : TO_U32(highest_bit);
}

// Opcodes whose sources all have the type of the instruction.
Execute uniform(Opcode& opcode, const std::string& type) {
  const std::string& name = opcode.name();
  if (name == "add") return BINARY(add);
  if (name == "sub") return BINARY(sub);
  if (name == "mul") return product(opcode, type);
  if (name == "div") return BINARY(divide);
  if (name == "rem") return BINARY(remainder);
  if (name == "min") return BINARY(minimum);
  if (name == "max") return BINARY(maximum);
  if (name == "neg") return UNARY(negative);
  if (name == "abs") return UNARY(absolute);
  if (name == "popc") return TO_U32(ones);
  if (name == "clz") return TO_U32(leading_zeros);
  if (name == "brev") return UNARY(reversed_bits);
  if (name == "bfind") return bit_search(opcode, type);
  if (name == "lop3") return logic;
  if (name == "prmt") return permute;
  if (name == "shf") {
    const bool right = opcode.take("r") || !opcode.take("l"), wrap = opcode.take("wrap");
    if (!wrap) opcode.take("clamp");
    return right ? (wrap ? funnel_shift<true, true> : funnel_shift<true, false>)
                 : (wrap ? funnel_shift<false, true> : funnel_shift<false, false>);
  }
  return nullptr;
}

}  // namespace

void decode_set_predicate(Opcode& opcode, Operands& operands, const std::string& type,
                          Instruction& out) {
  using enum PredicateOp;
  out.predicate_op = opcode.take("and")   ? kAnd
                     : opcode.take("or")  ? kOr
                     : opcode.take("xor") ? kXor
                                          : kNone;
  operands.destinations(0, out);
  operands.add_source(1, type, out);
  operands.add_source(2, type, out);
  if (out.predicate_op != kNone) operands.predicate(3, out);
}

bool decode_arithmetic(Opcode& opcode, Operands& operands, Instruction& out) {
  const std::string name = opcode.name(), type = opcode.type();
  if (name == "bra") {
    opcode.take("uni");
    out.flow = Flow::kBranch;
    out.kind = Kind::kBranch;
    return true;
  }
  if (name == "ret" || name == "exit") {
    out.flow = Flow::kExit;
    out.kind = Kind::kBranch;
    return true;
  }
  if (name == "trap") {
    out.execute = [](Warp& w, const Instruction& i, Lanes lanes) {
      fail(w, i, std::countr_zero(lanes), "trap");
    };
    return true;
  }
  if (name == "mov") {
    decode_mov(operands, type, out);
    return out.execute != nullptr;
  }
  if (name == "selp") {
    operands.destinations(0, out);
    operands.add_source(1, type, out);
    operands.add_source(2, type, out);
    operands.add_source(3, "pred", out);
    const int bytes = bytes_of(type);
    out.execute = bytes == 8 ? select<u64> : bytes == 4 ? select<u32> : select<u16>;
    return true;
  }
  if (type == "f32" || type == "f64" || type == "f16" || type == "bf16") return false;
  if (decode_logic(name, operands, type, out)) return out.execute != nullptr;
  if (name == "shl" || name == "shr") {
    operands.destinations(0, out);
    operands.add_source(1, type, out);
    operands.add_source(2, "u32", out);
    out.execute = name == "shl" ? SHIFT(shift_left) : SHIFT(shift_right);
  } else if (name == "mad") {
    decode_mad(opcode, operands, type, out);
  } else if (name == "setp") {
    decode_setp(opcode, operands, type, out);
  } else if (name == "bfe" || name == "bfi") {
    decode_bit_field(name, operands, type, out);
  } else {
    out.execute = uniform(opcode, type);
    if (out.execute) operands.simple(type, out);
  }
  return out.execute != nullptr;
}

}  // namespace ptx
