// cvt, and the addresses of windows.
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "lanewise.hpp"
#include "opcode.hpp"

namespace ptx {
namespace {

// ---- half types, of which there is no arithmetic ----

constexpr std::uint16_t kHalfNaN = 0x7fff;

float from_half(std::uint16_t bits) { return float(std::bit_cast<_Float16>(bits)); }
std::uint16_t to_half(float v) {
  return std::isnan(v) ? kHalfNaN : std::bit_cast<std::uint16_t>(_Float16(v));
}
// The upper half of a float, rounded to nearest, ties to even.
std::uint16_t to_bfloat(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  return std::isnan(v) ? kHalfNaN : std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
template <class D, class S, auto f>
void convert_half(Warp& w, const Instruction& i, Lanes lanes) {
  map<D>(w, i, lanes, f, w.lanes<S>(i.src[0]));
}
Execute half_conversion(Opcode& opcode, std::string_view to, std::string_view from) {
  if (to == "f32" && from == "f16") return convert_half<float, std::uint16_t, from_half>;
  if (from != "f32" || !opcode.take("rn")) return nullptr;
  if (to == "f16") return convert_half<std::uint16_t, float, to_half>;
  return to == "bf16" ? convert_half<std::uint16_t, float, to_bfloat> : nullptr;
}

// ---- all others ----

// Calls f with a std::type_identity of the type; null for others.
template <class F>
Execute for_type(std::string_view type, F f) {
  if (type == "u8" || type == "b8") return f(std::type_identity<std::uint8_t>{});
  if (type == "s8") return f(std::type_identity<std::int8_t>{});
  if (type == "u16" || type == "b16") return f(std::type_identity<std::uint16_t>{});
  if (type == "s16") return f(std::type_identity<std::int16_t>{});
  if (type == "u32" || type == "b32") return f(std::type_identity<std::uint32_t>{});
  if (type == "s32") return f(std::type_identity<std::int32_t>{});
  if (type == "u64" || type == "b64") return f(std::type_identity<std::uint64_t>{});
  if (type == "s64") return f(std::type_identity<std::int64_t>{});
  if (type == "f32") return f(std::type_identity<float>{});
  if (type == "f64") return f(std::type_identity<double>{});
  return nullptr;
}

// Towards zero; what does not fit is the nearest that does, NaN is 0 (of 64 bits: the sign bit).
template <class D, class S>
D truncated(S v) {
  if (std::isnan(v)) return sizeof(D) == 8 ? D(std::uint64_t{1} << 63) : D(0);
  if (v <= S(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (v >= S(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  return D(v);
}

template <class D, class S>
D converted(S v) {
  if constexpr (std::is_floating_point_v<S> && std::is_integral_v<D>)
    return truncated<D>(v);
  else
    return D(v);
}

// A source may stand in a wider register, whose low bits count; a result is extended to a wider
// one. R and Q: unsigned types of the widths of these registers.
template <class D, class R, class S, class Q>
void convert(Warp& w, const Instruction& i, Lanes lanes) {
  if constexpr (sizeof(R) == sizeof(D) && sizeof(Q) == sizeof(S)) {
    map<D>(w, i, lanes, converted<D, S>, w.lanes<S>(i.src[0]));
  } else {
    map<R>(
        w, i, lanes,
        [](Q q) {
          using Extended = std::conditional_t<std::is_signed_v<D>, std::make_signed_t<R>, R>;
          return R(Extended(converted<D>(S(q))));
        },
        w.lanes<Q>(i.src[0]));
  }
}

template <class F>
Execute for_width(int width, F f) {
  if (width == 2) return f(std::type_identity<std::uint16_t>{});
  if (width == 4) return f(std::type_identity<std::uint32_t>{});
  if (width == 8) return f(std::type_identity<std::uint64_t>{});
  return nullptr;
}

// Of floating point there is no part of a register.
template <class D, class S>
Execute in_registers(int to, int from) {
  if constexpr (std::is_floating_point_v<D> || std::is_floating_point_v<S>) {
    using R = std::conditional_t<sizeof(D) == 1, std::uint16_t, D>;
    using Q = std::conditional_t<sizeof(S) == 1, std::uint16_t, S>;
    if (to != sizeof(R) || from != sizeof(Q)) return nullptr;
    if constexpr (sizeof(R) == sizeof(D) && sizeof(Q) == sizeof(S)) return convert<D, R, S, Q>;
    return nullptr;
  } else {
    return for_width(to, [&](auto r) {
      return for_width(from, [](auto q) -> Execute {
        using R = typename decltype(r)::type;
        using Q = typename decltype(q)::type;
        if constexpr (sizeof(R) >= sizeof(D) && sizeof(Q) >= sizeof(S)) return convert<D, R, S, Q>;
        return nullptr;
      });
    });
  }
}

// The rounding that the pair of types must name, "" where it is exact.
std::string rounding(std::string_view to, std::string_view from) {
  const bool real = to[0] == 'f', was_real = from[0] == 'f';
  if (was_real && !real) return "rzi";
  if (real && (!was_real || bytes_of(to) < bytes_of(from))) return "rn";
  return "";
}

template <std::uint64_t kWindow>
void to_generic(Warp& w, const Instruction& i, Lanes lanes) {
  map<std::uint64_t>(
      w, i, lanes, [](std::uint64_t a) { return a | kWindow; }, w.lanes<std::uint64_t>(i.src[0]));
}
template <std::uint64_t kWindow>
void from_generic(Warp& w, const Instruction& i, Lanes lanes) {
  map<std::uint64_t>(
      w, i, lanes, [](std::uint64_t a) { return a & ~kWindow; }, w.lanes<std::uint64_t>(i.src[0]));
}

bool decode_window(Opcode& opcode, Operands& operands, Instruction& out) {
  if (opcode.type() != "u64") return false;
  out.kind = Kind::kMove;
  operands.simple("u64", out);
  const bool away = opcode.take("to");
  if (opcode.take("global"))
    out.execute = to_generic<0>;  // global memory is where host memory is
  else if (opcode.take("shared"))
    out.execute = away ? from_generic<kSharedWindow> : to_generic<kSharedWindow>;
  else if (opcode.take("local"))
    out.execute = away ? from_generic<kLocalWindow> : to_generic<kLocalWindow>;
  return out.execute != nullptr;
}

}  // namespace

bool decode_conversion(Opcode& opcode, Operands& operands, Instruction& out) {
  if (opcode.name() == "cvta") return decode_window(opcode, operands, out);
  if (opcode.name() != "cvt") return false;
  out.kind = Kind::kConvert;
  const std::string from = opcode.type(), to = opcode.take_part(opcode.size() - 2);
  if (to.ends_with("f16") || from.ends_with("f16")) {
    operands.simple(from, out);
    out.execute = half_conversion(opcode, to, from);
    return out.execute != nullptr;
  }
  if (to == "u32" && from == "u64") out.kind = Kind::kFolded;  // half of a pair of registers
  if (const std::string mode = rounding(to, from); !mode.empty() && !opcode.take(mode))
    return false;
  operands.simple(from, out);
  const int to_width = operands.width(operands.text(0)),
            from_width = operands.width(operands.text(1));
  out.execute = for_type(to, [&](auto d) {
    return for_type(from, [&](auto s) {
      return in_registers<typename decltype(d)::type, typename decltype(s)::type>(to_width,
                                                                                  from_width);
    });
  });
  return out.execute != nullptr;
}

}  // namespace ptx
