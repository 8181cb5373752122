// float and double, rounded to nearest; denormals are kept but where an instruction says .ftz. The
// payload of a NaN is not that of a GPU.
#include <cmath>
#include <limits>

#include "lanewise.hpp"
#include "opcode.hpp"

namespace ptx {
namespace {

template <class T>
T flushed(T v) {
  return std::abs(v) < std::numeric_limits<T>::min() ? std::copysign(T(0), v) : v;
}

constexpr auto add = [](auto a, auto b) { return a + b; };
constexpr auto sub = [](auto a, auto b) { return a - b; };
constexpr auto mul = [](auto a, auto b) { return a * b; };
constexpr auto divide = [](auto a, auto b) { return a / b; };
constexpr auto fused = [](auto a, auto b, auto c) { return std::fma(a, b, c); };
constexpr auto negative = [](auto a) { return -a; };
constexpr auto absolute = [](auto a) { return std::abs(a); };
constexpr auto root = [](auto a) { return std::sqrt(a); };
constexpr auto reciprocal = [](auto a) { return decltype(a)(1) / a; };
// A number where one is NaN; -0 is less than 0.
constexpr auto minimum = [](auto a, auto b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b) || a < b) return a;
  return b < a || std::signbit(b) ? b : a;
};
constexpr auto maximum = [](auto a, auto b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b) || a > b) return a;
  return b > a || !std::signbit(b) ? b : a;
};
constexpr auto with_sign_of = [](auto sign, auto a) { return std::copysign(a, sign); };

template <class T, auto f>
void unary(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, f, w.lanes<T>(i.src[0]));
}
template <class T, auto f>
void binary(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, f, w.lanes<T>(i.src[0]), w.lanes<T>(i.src[1]));
}
template <class T>
void fused_product(Warp& w, const Instruction& i, Lanes lanes) {
  map<T>(w, i, lanes, fused, w.lanes<T>(i.src[0]), w.lanes<T>(i.src[1]), w.lanes<T>(i.src[2]));
}

// An instruction that is exact up to some ulps, so it may be off by as many as the settings say.
void approximate_reciprocal(Warp& w, const Instruction& i, Lanes lanes) {
  const int most = w.block->launch->settings->ulps;
  const auto off = [&](float v) {
    if (most == 0 || !std::isfinite(v)) return v;
    const int ulps = int(random_number() % unsigned(2 * most + 1)) - most;
    const float towards = std::copysign(std::numeric_limits<float>::infinity(), float(ulps));
    for (int n = std::abs(ulps); n > 0; --n) v = std::nextafter(v, towards);
    return v;
  };
  map<float>(
      w, i, lanes, [&](float a) { return flushed(off(1 / flushed(a))); }, w.lanes<float>(i.src[0]));
}

// ---- comparing: ordered, and "or one is NaN" ----

constexpr auto equal = [](auto a, auto b) { return a == b; };
constexpr auto unequal = [](auto a, auto b) { return a < b || a > b; };
constexpr auto less = [](auto a, auto b) { return a < b; };
constexpr auto less_equal = [](auto a, auto b) { return a <= b; };
constexpr auto greater = [](auto a, auto b) { return a > b; };
constexpr auto greater_equal = [](auto a, auto b) { return a >= b; };
constexpr auto numbers = [](auto a, auto b) { return !std::isunordered(a, b); };
constexpr auto not_numbers = [](auto a, auto b) { return std::isunordered(a, b); };
template <auto f>
constexpr auto or_nan = [](auto a, auto b) { return std::isunordered(a, b) || f(a, b); };

template <class T>
Execute comparison(const std::string& name) {
  if (name == "eq") return compare<T, equal>;
  if (name == "ne") return compare<T, unequal>;
  if (name == "lt") return compare<T, less>;
  if (name == "le") return compare<T, less_equal>;
  if (name == "gt") return compare<T, greater>;
  if (name == "ge") return compare<T, greater_equal>;
  if (name == "equ") return compare<T, or_nan<equal>>;
  if (name == "neu") return compare<T, or_nan<unequal>>;
  if (name == "ltu") return compare<T, or_nan<less>>;
  if (name == "leu") return compare<T, or_nan<less_equal>>;
  if (name == "gtu") return compare<T, or_nan<greater>>;
  if (name == "geu") return compare<T, or_nan<greater_equal>>;
  if (name == "num") return compare<T, numbers>;
  if (name == "nan") return compare<T, not_numbers>;
  throw Error("unknown comparison " + name);
}

template <class T>
Execute of_type(Opcode& opcode) {
  const std::string& name = opcode.name();
  if (name == "rcp" && opcode.take("approx")) {
    // Of doubles it exists too, with 20 bits.
    if (!std::is_same_v<T, float> || !opcode.take("ftz")) throw Error("unknown instruction");
    return approximate_reciprocal;
  }
  // Without a rounding mode add, sub and mul round to nearest; the others must say so.
  const bool rounded = opcode.take("rn");
  if (name == "add") return binary<T, add>;
  if (name == "sub") return binary<T, sub>;
  if (name == "mul") return binary<T, mul>;
  if (name == "min") return binary<T, minimum>;
  if (name == "max") return binary<T, maximum>;
  if (name == "copysign") return binary<T, with_sign_of>;
  if (name == "neg") return unary<T, negative>;
  if (name == "abs") return unary<T, absolute>;
  if (!rounded) return nullptr;
  if (name == "div") return binary<T, divide>;
  if (name == "fma") return fused_product<T>;
  if (name == "sqrt") return unary<T, root>;
  if (name == "rcp") return unary<T, reciprocal>;
  return nullptr;
}

}  // namespace

bool decode_float(Opcode& opcode, Operands& operands, Instruction& out) {
  const std::string type = opcode.type();
  if (type != "f32" && type != "f64") return false;
  out.kind = type == "f32" ? Kind::kFloat : Kind::kDouble;
  if (opcode.name() == "setp") {
    const std::string name = opcode.take_part(1);
    out.execute = type == "f32" ? comparison<float>(name) : comparison<double>(name);
    decode_set_predicate(opcode, operands, type, out);
    return true;
  }
  if (opcode.name() == "neg" || opcode.name() == "abs") out.kind = Kind::kFolded;
  out.execute = type == "f32" ? of_type<float>(opcode) : of_type<double>(opcode);
  if (out.execute) operands.simple(type, out);
  return out.execute != nullptr;
}

}  // namespace ptx
