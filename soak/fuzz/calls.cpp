#include "calls.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "allocations.hpp"
#include "jaxtv/solver.hpp"
#include "targets.hpp"

namespace jaxtv::fuzz {

constexpr std::int64_t kMostSamples = 1 << 16;

std::int64_t OwnedArray::count() const {
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return 0;
  std::int64_t n = 1;
  for (std::int64_t d : dims)
    if (n <= kMostSamples) n *= std::min(d, kMostSamples + 1);
  return n > kMostSamples ? -1 : n;
}

namespace {

std::size_t size_of(XLA_FFI_DataType type) {
  switch (type) {
    case XLA_FFI_DataType_F64:
    case XLA_FFI_DataType_S64:
    case XLA_FFI_DataType_C64:
      return 8;
    case XLA_FFI_DataType_F32:
    case XLA_FFI_DataType_S32:
      return 4;
    case XLA_FFI_DataType_BF16:
    case XLA_FFI_DataType_F16:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

void OwnedArray::allocate(char fill) {
  if (count() < 0) throw TooLarge{};
  data = std::vector<char>(count() * size_of(dtype), fill);
}

namespace {

// Values of one array: their kind and the state of the generator that makes them.
class Values {
 public:
  Values(Bytes& bytes, bool& tame)
      : kind_(bytes.below(7)), state_(bytes.byte() | bytes.byte() << 8) {
    tame &= kind_ != 6;
  }
  double sample() {
    const double u = double(next() >> 11) * 0x1p-53;
    switch (kind_) {
      case 0:
        return double(next() % 4);  // ties
      case 1:
        return u - 0.5;
      case 2:
        return std::floor(u * 255);
      case 3:
        return (u - 0.5) * 1e15;  // no sum of their squares is beyond float32
      case 4:
        return (u - 0.5) * 1e-30;
      case 5:
        return double(step_++) + (next() % 16 == 0 ? u : 0);  // a ramp
      default:
        return bits();
    }
  }
  double weight() {
    if (kind_ == 6) return bits();
    const std::uint64_t r = next() % 8;
    if (r == 0) return 0;
    if (r == 1) return std::numeric_limits<double>::infinity();
    return std::abs(sample());
  }
  double positive() {
    const double v = sample();
    return v == 0 ? 1 : std::abs(v);
  }
  std::uint8_t codes() { return std::uint8_t(kind_ % 2 ? next() : next() & next() & next()); }

 private:
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  double bits() {  // a float with any exponent, infinities and NaN among them
    const std::uint32_t word = std::uint32_t(next());
    float f;
    std::memcpy(&f, &word, sizeof f);
    return f;
  }
  std::int64_t kind_;
  std::uint64_t state_;
  std::int64_t step_ = 0;
};

template <class T, class F>
void fill(OwnedArray& a, F f) {
  T* p = reinterpret_cast<T*>(a.data.data());
  for (std::size_t i = 0; i < a.data.size() / sizeof(T); ++i) p[i] = T(f());
}

// Draws the parts of a call in turn.
struct Drawing {
  Bytes& bytes;
  Call call{};
  XLA_FFI_DataType type = XLA_FFI_DataType_F32;
  std::vector<std::int64_t> dims, axes;

  std::vector<std::int64_t> with(std::int64_t axis, std::int64_t size) const {
    std::vector<std::int64_t> d = dims;
    d[axis] = size;
    return d;
  }

  // A long axis makes windows. Batch dims may be 0, but the library solves no empty axis.
  void shape(std::int64_t least_rank) {
    const std::int64_t rank = least_rank + bytes.below(3);
    type = bytes.pick({XLA_FFI_DataType_F32, XLA_FFI_DataType_F64});
    const bool is_long = bytes.below(12) == 0;
    for (std::int64_t d = 0; d < rank; ++d) dims.push_back(bytes.below(is_long ? 3 : 11));
    if (is_long) dims[bytes.below(rank)] = 4000 + bytes.below(3000);
    if (bytes.below(5) == 0) dims[bytes.below(rank)] = 30 + bytes.below(60);
  }
  void one_axis() {
    shape(1);
    axes = {bytes.below(std::int64_t(dims.size()))};
    dims[axes[0]] = std::max<std::int64_t>(dims[axes[0]], 1);
    attribute("axis", axes[0]);
  }
  void many_axes() {
    shape(2);
    for (std::int64_t d = 0; d < std::int64_t(dims.size()); ++d) axes.push_back(d);
    for (std::size_t i = axes.size(); i > 1; --i) std::swap(axes[i - 1], axes[bytes.below(i)]);
    axes.resize(2 + bytes.below(std::int64_t(axes.size()) - 1));
    for (std::int64_t a : axes) dims[a] = std::max<std::int64_t>(dims[a], 1);
    attribute("axes", axes);
  }

  void attribute(const char* name, Attribute value) { call.attributes[name] = value; }
  void solver() {
    attribute("method", bytes.below(4));
    attribute("tol", bytes.pick({1e-6, 0.0, 1e-12, 1.0, 1e300}));
    attribute("max_iterations", 1 + bytes.below(30));
    attribute("line_search", bytes.below(2));
  }
  std::int64_t sweeps() {
    const std::int64_t n = 1 + bytes.below(6);
    attribute("iterations", n);
    return n;
  }

  OwnedArray& in(std::vector<std::int64_t> shape, XLA_FFI_DataType dtype) {
    OwnedArray& a = call.ins.emplace_back(OwnedArray{dtype, std::move(shape), {}});
    a.allocate(0);
    return a;
  }
  void floats(const std::vector<std::int64_t>& shape, double (Values::*next)()) {
    Values values(bytes, call.tame);
    OwnedArray& a = in(shape, type);
    const auto f = [&] { return (values.*next)(); };
    type == XLA_FFI_DataType_F32 ? fill<float>(a, f) : fill<double>(a, f);
  }
  void samples() { floats(dims, &Values::sample); }
  // The library joins samples of weight 0 to others.
  void data_weights() { floats(dims, &Values::positive); }
  std::vector<std::int64_t> weight_shape(std::int64_t axis) {
    return with(axis, bytes.below(2) ? dims[axis] - 1 : 1);
  }
  void weights(const std::vector<std::int64_t>& shape, bool tangent = false) {
    floats(shape, tangent ? &Values::sample : &Values::weight);
  }
  void codes(std::int64_t planes) {
    std::vector<std::int64_t> shape = dims;
    shape.insert(shape.begin() + *std::min_element(axes.begin(), axes.end()), planes);
    bool tame = true;  // any bytes are codes
    Values values(bytes, tame);
    fill<std::uint8_t>(in(shape, XLA_FFI_DataType_U8), [&] { return values.codes(); });
  }
  void out(std::vector<std::int64_t> shape, XLA_FFI_DataType dtype) {
    call.outs.push_back({dtype, std::move(shape), {}});
  }
  void like() { out(dims, type); }

  void info() {
    for (XLA_FFI_DataType t : {type, XLA_FFI_DataType_S32, XLA_FFI_DataType_PRED})
      out(with(axes[0], 1), t);
  }
  void element_info() {
    std::vector<std::int64_t> batch;
    for (std::int64_t d = 0; d < std::int64_t(dims.size()); ++d)
      if (std::find(axes.begin(), axes.end(), d) == axes.end()) batch.push_back(dims[d]);
    for (XLA_FFI_DataType t : {type, XLA_FFI_DataType_S32, XLA_FFI_DataType_PRED}) out(batch, t);
  }
  void each_axis(bool tangent) {
    for (std::int64_t a : axes) weights(weight_shape(a), tangent);
  }
  std::int64_t planes(std::int64_t sweeps) const {
    return (sweeps * std::int64_t(axes.size()) + 3) / 4;
  }
};

void prox1d(Drawing& d, bool info) {
  d.one_axis();
  d.solver();
  d.samples();
  d.weights(d.weight_shape(d.axes[0]));
  d.like();
  if (info) d.info();
}
void prox1d_data_weight(Drawing& d) {
  d.one_axis();
  d.samples();
  d.data_weights();
  d.weights(d.weight_shape(d.axes[0]));
  d.like();
}
void segments(Drawing& d, bool forward) {
  d.one_axis();
  const std::vector<std::int64_t> w = d.weight_shape(d.axes[0]);
  d.samples();
  d.weights(w);
  d.samples();
  if (forward) d.weights(w, true);
  d.like();
  if (!forward) d.out(w, d.type);
}
void codes_result(Drawing& d, std::int64_t sweeps) {
  d.codes(d.planes(sweeps));
  d.out(d.call.ins.back().dims, XLA_FFI_DataType_U8);
  d.call.ins.pop_back();
}
void dykstra(Drawing& d, bool with_codes) {
  d.many_axes();
  const std::int64_t sweeps = d.sweeps();
  d.solver();
  d.samples();
  d.each_axis(false);
  d.like();
  if (with_codes) codes_result(d, sweeps);
}
// Of Dykstra's iteration or of the converged prox.
void derivative(Drawing& d, bool forward, bool unrolled) {
  d.many_axes();
  d.codes(d.planes(unrolled ? d.sweeps() : 1));
  d.samples();
  if (forward) d.each_axis(true);
  d.like();
  if (!forward)
    for (std::int64_t a : d.axes) d.out(d.weight_shape(a), d.type);
}
void converged(Drawing& d) {
  d.many_axes();
  d.attribute("gap_tol", d.bytes.pick({1e-6, 0.0, 1e-3, 1.0}));
  d.attribute("sweeps", 1 + d.bytes.below(20));
  d.solver();
  d.samples();
  for (std::size_t a = 1; a < d.axes.size(); ++a) d.samples();
  d.each_axis(false);
  d.like();
  d.element_info();
  for (std::size_t a = 1; a < d.axes.size(); ++a) d.like();
  codes_result(d, 1);
}

void isotropic(Drawing& d) {
  d.shape(2);
  const std::int64_t rank = d.dims.size();
  for (std::int64_t a = d.bytes.below(rank - 1); a < rank; ++a) {
    d.axes.push_back(a);
    d.dims[a] = std::max<std::int64_t>(d.dims[a], 1);
  }
  d.attribute("axes", d.axes);
  d.attribute("tol", d.bytes.pick({1e-6, 0.0, 1e-3, 1.0}));
  d.attribute("max_iterations", 1 + d.bytes.below(20));
  d.samples();
  std::vector<std::int64_t> w = d.with(d.axes[0], 1);
  if (d.bytes.below(2)) std::fill(w.begin() + d.axes[0], w.end(), 1);
  d.weights(w);
  for (std::size_t a = 1; a < d.axes.size(); ++a) d.samples();
  d.like();
  d.element_info();
  for (std::size_t a = 1; a < d.axes.size(); ++a) d.like();
  d.out(d.with(d.axes[0], 1), XLA_FFI_DataType_U8);
}

struct Target {
  XLA_FFI_Handler* handler;
  const char* name;
  void (*draw)(Drawing&);
};
#define JAXTV_TARGET(name, ...) {name, #name, [](Drawing& d) { __VA_ARGS__; }}
const Target kTargets[] = {
    JAXTV_TARGET(jaxtv_prox1d, prox1d(d, false)),
    JAXTV_TARGET(jaxtv_prox1d_info, prox1d(d, true)),
    JAXTV_TARGET(jaxtv_prox1d_data_weight, prox1d_data_weight(d)),
    JAXTV_TARGET(jaxtv_segment_jvp, segments(d, true)),
    JAXTV_TARGET(jaxtv_segment_vjp, segments(d, false)),
    JAXTV_TARGET(jaxtv_dykstra, dykstra(d, false)),
    JAXTV_TARGET(jaxtv_dykstra_with_codes, dykstra(d, true)),
    JAXTV_TARGET(jaxtv_dykstra_jvp, derivative(d, true, true)),
    JAXTV_TARGET(jaxtv_dykstra_vjp, derivative(d, false, true)),
    JAXTV_TARGET(jaxtv_converged, converged(d)),
    JAXTV_TARGET(jaxtv_isotropic, isotropic(d)),
    JAXTV_TARGET(jaxtv_components_jvp, derivative(d, true, false)),
    JAXTV_TARGET(jaxtv_components_vjp, derivative(d, false, false)),
};
#define JAXTV_COUNT(name) +1
static_assert(std::size(kTargets) == JAXTV_HANDLERS(JAXTV_COUNT)
                                         JAXTV_CPU_HANDLERS(JAXTV_COUNT));  // all of them

// ---- wrong calls ----

// Huge sizes have no memory behind them: where they are the only change, they must be refused.
std::int64_t some_size(Bytes& bytes, bool huge) {
  constexpr std::int64_t one = 1;
  const std::int64_t size =
      bytes.pick<std::int64_t>({0, 1, 2, 5, 7, 300, one << 31, (one << 32) + 1, one << 40});
  return huge ? size : size % 301;
}

void spoil_array(Bytes& bytes, std::vector<OwnedArray>& arrays, bool huge) {
  if (arrays.empty()) return;
  const auto at = arrays.begin() + bytes.below(std::int64_t(arrays.size()));
  switch (bytes.below(5)) {
    case 0:
      arrays.erase(at);
      return;
    case 1:
      arrays.push_back(*at);
      return;
    case 2:
      at->dtype = bytes.pick({XLA_FFI_DataType_F32, XLA_FFI_DataType_F64, XLA_FFI_DataType_S32,
                              XLA_FFI_DataType_S64, XLA_FFI_DataType_U8, XLA_FFI_DataType_PRED,
                              XLA_FFI_DataType_BF16, XLA_FFI_DataType_C64});
      break;
    case 3:
      if (!at->dims.empty()) at->dims[bytes.below(at->dims.size())] = some_size(bytes, huge);
      break;
    default:
      at->dims.resize(bytes.below(6), 2);
  }
  if (at->count() >= 0) at->allocate(0);
}

// No sizes of work between the moderate and the impossible: they are valid, and without end.
Attribute some_value(Bytes& bytes) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const auto number = [&] {
    return bytes.pick<std::int64_t>({kLeast, -7, -1, 0, 1, 2, 3, 9, std::int64_t(1) << 31,
                                     std::int64_t(1) << 62, -(kLeast + 1)});
  };
  switch (bytes.below(4)) {
    case 0:
      return bytes.pick({kNaN, 1 / 0.0, -1 / 0.0, -1.0, 0.0, 1e-300, 1.0});
    case 1: {
      std::vector<std::int64_t> v(bytes.below(10));
      for (std::int64_t& n : v) n = number();
      return v;
    }
    case 2:
      return "text";
    default:
      return number();
  }
}

void spoil_attribute(Bytes& bytes, Call& call) {
  const auto at =
      std::next(call.attributes.begin(), bytes.below(std::int64_t(call.attributes.size())));
  if (bytes.below(7) == 0)
    call.attributes.erase(at);
  else
    at->second = some_value(bytes);
}

}  // namespace

void register_handlers() {
  for (const Target& target : kTargets) callframe::traits(target.handler);
}

Call draw(Bytes& bytes) {
  Drawing drawing{bytes};
  const Target& target = kTargets[bytes.below(std::size(kTargets))];
  drawing.call.handler = target.handler;
  drawing.call.name = target.name;
  target.draw(drawing);
  return std::move(drawing.call);
}

void spoil(Bytes& bytes, Call& call, bool only) {
  call.valid = false;
  switch (bytes.below(3)) {
    case 0:
      return spoil_array(bytes, call.ins, only);
    case 1:
      return spoil_array(bytes, call.outs, only);
    default:
      if (!call.attributes.empty()) spoil_attribute(bytes, call);
  }
}

Status Call::run(std::int64_t allocations) {
  for (OwnedArray& out : outs)
    if (out.count() >= 0) out.allocate(char(0xff));
  const auto views = [](std::vector<OwnedArray>& arrays) {
    std::vector<callframe::Array> all;
    for (OwnedArray& a : arrays)
      all.push_back({a.dtype, std::int64_t(a.dims.size()), a.dims.data(), a.data.data()});
    return all;
  };
  const std::vector<callframe::Array> operands = views(ins), results = views(outs);
  fail_allocation(allocations);
  Status status = callframe::call(handler, operands, results, attributes);
  fail_allocation(-1);
  return status;
}

}  // namespace jaxtv::fuzz
