// The CUDA handlers as a plain shared library, for ctypes: run as C++ (testing/emulator) or as nvcc
// compiled them (testing/ptx).
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <set>
#include <stdexcept>
#include <string>

#include "components/components.hpp"
#include "dykstra/image_tiling.hpp"
#include "machine.hpp"
#include "prox1d/prox1d.hpp"
#include "scratch.hpp"
#include "segments/segments.hpp"
#include "targets.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

const XLA_FFI_Buffer& buffer_of(const void* buffer) {
  return *static_cast<const XLA_FFI_Buffer*>(buffer);
}

// result: writable, and to be written before it is read, unless it is `updated`.
void allow(const XLA_FFI_Buffer& b, bool result, bool scratch, bool updated = false) {
  std::size_t bytes = xla::ffi::ByteWidth(xla::ffi::DataType(b.dtype));
  for (std::int64_t d = 0; d < b.rank; ++d) bytes *= std::size_t(b.dims[d]);
  if (scratch) std::memset(b.data, 0xff, bytes);
  machine::allow_memory(b.data, bytes, result, result && !updated);
}

// The kernels of a call may access its operands and results, of which the last is scratch; what was
// left there is gone. A result with the memory of an operand is updated.
template <XLA_FFI_Handler* handler>
XLA_FFI_Error* guarded(XLA_FFI_CallFrame* frame) {
  std::set<const void*> operands, results;
  for (std::int64_t i = 0; i < frame->args.size; ++i)
    operands.insert(buffer_of(frame->args.args[i]).data);
  for (std::int64_t i = 0; i < frame->rets.size; ++i) {
    const XLA_FFI_Buffer& result = buffer_of(frame->rets.rets[i]);
    results.insert(result.data);
    allow(result, true, i + 1 == frame->rets.size, operands.contains(result.data));
  }
  for (std::int64_t i = 0; i < frame->args.size; ++i) {
    const XLA_FFI_Buffer& operand = buffer_of(frame->args.args[i]);
    if (!results.contains(operand.data)) allow(operand, false, false);
  }
  XLA_FFI_Error* error = handler(frame);
  machine::forget_memory();
  return error;
}

struct Entry {
  const char* name;
  void* handler;
};
#define JAXTV_ENTRY(name) {#name, reinterpret_cast<void*>(&guarded<name>)},
const Entry entries[] = {JAXTV_HANDLERS(JAXTV_ENTRY) JAXTV_CUDA_HANDLERS(JAXTV_ENTRY)};

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* emulator_name(std::size_t i) {
  return i < sizeof entries / sizeof *entries ? entries[i].name : nullptr;
}
extern "C" __attribute__((visibility("default"))) void* emulator_handler(std::size_t i) {
  return entries[i].handler;
}

// Bytes of scratch per batch element, as the CUDA module tells them; bit a of `per_edge`: of axis
// a. -1: no such target.
extern "C" __attribute__((visibility("default"))) std::int64_t emulator_scratch_bytes(
    const char* target, const std::int64_t* shape, std::size_t rank, const std::int64_t* axes,
    std::size_t axes_count, int itemsize, int method, unsigned per_edge) try {
  return jaxtv::cuda::scratch_bytes({.target = target,
                                     .shape = {shape, rank},
                                     .axes = {axes, axes_count},
                                     .itemsize = itemsize,
                                     .method = jaxtv::Method(method),
                                     .per_edge = per_edge});
} catch (const std::invalid_argument&) {
  return -1;
}

// Starts to record launches; what was recorded since.
extern "C" __attribute__((visibility("default"))) void emulator_record() { machine::record(); }
extern "C" __attribute__((visibility("default"))) const char* emulator_recorded() {
  return machine::recorded();
}

// Lets lanes take turns at random (0: in order), and host threads share the blocks of a launch.
extern "C" __attribute__((visibility("default"))) void emulator_turns(std::uint64_t seed,
                                                                      int host_threads) {
  machine::take_turns(seed, host_threads);
}
// Refuses kernels the shared memory that they ask for, or not.
extern "C" __attribute__((visibility("default"))) void emulator_refuse(bool on) {
  machine::refuse_shared(on);
}
// The launch after the next `others` fails; none if that is negative.
extern "C" __attribute__((visibility("default"))) void emulator_fail_launch(int others) {
  machine::fail_launch(others);
}
// The least shared memory that a kernel was allowed on a device, of those that asked.
extern "C" __attribute__((visibility("default"))) std::size_t emulator_least_allowed(int device) {
  return machine::least_allowed(device);
}
// How `batch` images are cut into tiles on a device with `max_shared` bytes for a block; results:
// bytes of shared memory of a tile, channels of a tile.
extern "C" __attribute__((visibility("default"))) void emulator_image_tiles(
    std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t channels,
    std::size_t max_shared, std::int64_t* results) {
  using namespace jaxtv::cuda;
  const Iteration it{batch,
                     rows * columns * channels,
                     4,
                     2,
                     {{batch, 1, rows, columns * channels}, {batch, rows, columns, channels}}};
  const std::size_t bytes = image_bytes<float>(false);
  const ImageTiling tiling = image_tiles(it, bytes, max_shared);
  results[0] = tiling.tiles == 0 ? 0 : std::int64_t(tiling.elements() * bytes);
  results[1] = tiling.tile_channels;
}
// How many of `count` quotients quotient_by rounds otherwise than a division; -1 when one is
// further away than the neighbours. They are normal, or denormal and half way between two numbers.
// `off`: units in the last place by which the reciprocal is wrong.
extern "C" __attribute__((visibility("default"))) int emulator_wrong_quotients(int count,
                                                                               bool denormal,
                                                                               int off) {
  std::mt19937 random(1);
  const auto below = [&](int power) { return float(random() % (1u << random() % power)); };
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    const float divisor = 2 + 2 * below(denormal ? 12 : 23);
    const float quotient = denormal ? std::ldexp(below(11) + 0.5f, -149 + 20)
                                    : std::ldexp(1 + below(24), int(random() % 150) - 120);
    const float a = denormal ? std::ldexp(quotient * divisor, -20) : quotient * divisor;
    float r = 1 / divisor;
    if (off != 0) r = std::nextafter(r, off < 0 ? 0.0f : 2.0f);
    const float got = jaxtv::quotient_by(
        a, divisor, r, [](float x, float y, float z) { return std::fma(x, y, z); });
    const float want = a / divisor;
    wrong += got != want;
    if (got < std::nextafter(want, -1.0f) || got > std::nextafter(want, 1e38f)) return -1;
  }
  return wrong;
}

// Runs blocks, warps and lanes from the last to the first, or as usual.
extern "C" __attribute__((visibility("default"))) void emulator_reverse(bool on) {
  machine::reverse(on);
}

namespace {

// Zeros that take no memory until they are written.
struct Sparse {
  std::size_t bytes;
  void* data;
  explicit Sparse(std::int64_t size)
      : bytes(std::size_t(size)),
        data(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    machine::allow_memory(data, bytes, true, false);
  }
  ~Sparse() {
    machine::forget_memory();
    munmap(data, bytes);
  }
  bool ok() const { return data != MAP_FAILED; }
  float* floats() const { return static_cast<float*>(data); }
};

// Of each launch only the first and the last block run.
struct FirstAndLast {
  FirstAndLast() { machine::run_only({0, -1}); }
  ~FirstAndLast() { machine::run_only({}); }
};

}  // namespace

// The 1D prox and its adjoint on a huge array of zeros, of which only the first and the last block
// run. The first and the last signal are a step from 0 to 4 with λ = 1. Returns what is wrong.
extern "C" __attribute__((visibility("default"))) const char* emulator_huge(int method,
                                                                            std::int64_t outer,
                                                                            std::int64_t n,
                                                                            std::int64_t inner) {
  using namespace jaxtv::cuda;
  const Shape s{1, outer, n, inner};
  const std::int64_t signals = s.signals(), size = signals * n;
  const jaxtv::Solver solver{jaxtv::Method(method), 1e-6, 10, 0};
  const Sparse x(4 * size), w(4 * signals), y(4 * size), g(4 * size), gw(4 * signals);
  const Sparse scratch(8 + prox1d_scratch(s, solver.method) + segment_scratch<float>(s));
  for (const Sparse* a : {&x, &w, &y, &g, &gw, &scratch})
    if (!a->ok()) return "no address space";
  const std::int64_t places[] = {0, size - 1 - (n - 1) * inner};
  for (std::int64_t at : places)
    for (std::int64_t k = n / 2; k < n; ++k) x.floats()[at + k * inner] = 4;
  w.floats()[0] = w.floats()[signals - 1] = 1;
  const Prox<float> op{.x = x.floats(), .w = w.floats(), .per_edge = false, .y = y.floats()};
  const SegmentVjp<float> vjp{.edges = {.y = y.floats(),
                                        .weights = w.floats(),
                                        .weight_per_edge = false,
                                        .codes = nullptr,
                                        .code_shift = 0,
                                        .code_stride = 0},
                              .g = x.floats(),
                              .gx = g.floats(),
                              .gw = gw.floats(),
                              .gw_per_edge = false,
                              .add_to_gw = false};
  const FirstAndLast first_and_last;
  const auto stream = static_cast<cudaStream_t>(machine::stream_on(0));
  Status bad = prox1d<float>(stream, s, op, solver, scratch.data);
  if (!bad) bad = segment_vjp<float>(stream, s, vjp, scratch.data);
  if (bad) return bad;
  const float low = 1 / float(n / 2), high = 4 - low;
  for (std::int64_t at : places) {
    const std::int64_t last = at + (n - 1) * inner;
    if (y.floats()[at] != low || y.floats()[last] != high) return "wrong solution";
    if (g.floats()[at] != 0 || g.floats()[last] != 4) return "wrong adjoint";
  }
  if (gw.floats()[0] != -4 || gw.floats()[signals - 1] != -4) return "wrong adjoint in the weight";
  return "";
}

// One sweep of Dykstra with masks, its tangent and its adjoint, on `batch` huge arrays of (n,
// inner) zeros, of which only the first and the last block of each launch run. The axes: n, and
// with two also inner. The first and the last signal along n, with two axes all of the first and of
// the last array, are a step from 0 to 4 with λ = 1, which stays as it is along inner. Returns what
// is wrong.
extern "C" __attribute__((visibility("default"))) const char* emulator_huge_dykstra(
    int axes, std::int64_t batch, std::int64_t n, std::int64_t inner) {
  using namespace jaxtv::cuda;
  const std::int64_t size = batch * n * inner, across = axes == 2 ? inner : 1;
  const Iteration it =
      axes == 1 ? Iteration{1, size, 1, 1, {{1, batch, n, inner}}}
                : Iteration{batch, n * inner, 1, 2, {{batch, 1, n, inner}, {batch, n, inner, 1}}};
  const jaxtv::Solver solver{jaxtv::Method::kDirect, 1e-6, 10, 0};
  const std::int64_t signals[] = {batch * inner, batch * n};
  const Sparse x(4 * size), y(4 * size), mask(size), w0(4 * signals[0]), w1(4 * signals[1]),
      scratch(8 + dykstra_scratch<float>(it, solver.method, true, max_shared()) +
              dykstra_derivative_scratch<float>(it, max_shared()));
  for (const Sparse* a : {&x, &y, &mask, &w0, &w1, &scratch})
    if (!a->ok()) return "no address space";
  const std::int64_t places[] = {0, size - (n - 1) * inner - across};  // of the first samples
  for (std::int64_t at : places)
    for (std::int64_t i = 0; i < across; ++i)
      for (std::int64_t k = n / 2; k < n; ++k) x.floats()[at + i + k * inner] = 4;
  for (std::int64_t i = 0; i < across; ++i) w0.floats()[i] = w0.floats()[signals[0] - 1 - i] = 1;
  for (std::int64_t k = 0; k < n; ++k) w1.floats()[k] = w1.floats()[signals[1] - 1 - k] = 1;
  const auto is = [&](float low, float high) {
    for (std::int64_t at : places)
      for (std::int64_t k = 0; k < n; ++k)
        if (y.floats()[at + k * inner] != (k < n / 2 ? low : high)) return false;
    return true;
  };
  auto* codes = static_cast<std::uint8_t*>(mask.data);
  float *weights[] = {w0.floats(), w1.floats()}, *out = y.floats();
  const PerAxis<const float> w{{weights[0], weights[1]}, {}};
  const float low = 1 / float(n / 2), high = 4 - low;
  const FirstAndLast first_and_last;
  const auto stream = static_cast<cudaStream_t>(machine::stream_on(0));
  const char* wrong = dykstra<float>(stream, it, solver, x.floats(), w, out, codes, scratch.data);
  if (!wrong && !is(low, high)) wrong = "wrong solution";
  if (!wrong) wrong = dykstra_jvp<float>(stream, it, codes, x.floats(), w, out, scratch.data);
  if (!wrong && !is(low, high)) wrong = "wrong tangent";
  if (!wrong)
    wrong = dykstra_vjp<float>(stream, it, codes, x.floats(), out, {{weights[0], weights[1]}, {}},
                               scratch.data);
  if (wrong) return wrong;
  if (!is(0, 4)) return "wrong adjoint";
  return weights[0][0] == -4 && weights[0][signals[0] - 1] == -4 ? "" : "wrong adjoint in a weight";
}

// Both derivatives of `batch` images, of more samples than are done at once. All samples of an
// image are joined, but in the last the first lies below both of its neighbours. Looked at are the
// first image, the last of the first part, and the last of all; only the first and the last block
// of each launch run. Returns what is wrong.
extern "C" __attribute__((visibility("default"))) const char* emulator_huge_components(
    std::int64_t batch, std::int64_t rows, std::int64_t columns) {
  using namespace jaxtv::cuda;
  const std::int64_t size = rows * columns, samples = batch * size, last = batch - 1;
  const Grid grid{batch, size, 2, {{1, 1, rows, columns}, {1, rows, columns, 1}}};
  const bool per_edge[2] = {};
  const Sparse x(4 * samples), y(4 * samples), masks(samples), w0(4 * batch * columns),
      w1(4 * batch * rows), scratch(8 + components_scratch(grid, per_edge));
  for (const Sparse* a : {&x, &y, &masks, &w0, &w1, &scratch})
    if (!a->ok()) return "no address space";
  for (std::int64_t i : {std::int64_t(0), 2147483647 / size - 1, last})
    x.floats()[i * size] = float(size);
  auto* codes = static_cast<std::uint8_t*>(masks.data);
  codes[last * size] = jaxtv::kJumpUp | jaxtv::kJumpUp << 2;
  float &first0 = w0.floats()[last * columns], &first1 = w1.floats()[last * rows];
  const auto wrong = [&](float alone, float rest) {
    for (std::int64_t i : {std::int64_t(0), 2147483647 / size - 1})
      if (y.floats()[i * size] != 1 || y.floats()[(i + 1) * size - 1] != 1) return true;
    return y.floats()[last * size] != alone || y.floats()[samples - 1] != rest;
  };
  const FirstAndLast first_and_last;
  const auto stream = static_cast<cudaStream_t>(machine::stream_on(0));
  Status bad = components_vjp<float>(stream, grid, codes, x.floats(), y.floats(),
                                     {{w0.floats(), w1.floats()}, {}}, scratch.data);
  if (!bad && (wrong(float(size), 0) || first0 != float(size) || first1 != float(size)))
    bad = "wrong adjoint";
  first0 = first1 = float(size - 1);
  if (!bad)
    bad = components_jvp<float>(stream, grid, codes, x.floats(), {{w0.floats(), w1.floats()}, {}},
                                y.floats(), scratch.data);
  if (bad) return bad;
  return wrong(float(3 * size - 2), -2) ? "wrong tangent" : "";
}
