// Runs one CPU operation once, for callgrind to count, on fixed input: `instructions CASE`,
// or on the float32 of a file: `instructions signals|image ROWS N LAM FILE`.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "dykstra.hpp"
#include "prox1d.hpp"

using namespace jaxtv::cpu;

namespace {

const Pool kAlone{1, nullptr};
const jaxtv::Solver kDirect{.method = jaxtv::Method::kDirect};

// A step with noise that is the same on every machine; no library's random numbers.
std::vector<float> samples(std::int64_t rows, std::int64_t n) {
  std::vector<float> x(rows * n);
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < rows * n; ++i) {
    float noise = -2;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525u + 1013904223u;
      noise += float(state >> 8) / float(1 << 24);
    }
    x[i] = noise + float(i % n >= n / 2);
  }
  return x;
}

Pass<float> pass_of(Shape shape, const float* x, const float* lam, float* y) {
  Pass<float> s{};
  s.shape = shape, s.x = x, s.w = {lam, false}, s.y = y;
  return s;
}

}  // namespace

// Callgrind counts inside of these only.
extern "C" __attribute__((noinline)) void counted_prox(const Pass<float>& s) {
  prox1d(kAlone, s, kDirect);
}
extern "C" __attribute__((noinline)) void counted_vjp(const SegmentVjp<float>& op) {
  segment_vjp(kAlone, op);
}
extern "C" __attribute__((noinline)) void counted_dykstra(const Iteration& it, const float* x,
                                                          const std::vector<Weights<float>>& w,
                                                          float* y, std::uint8_t* codes) {
  dykstra<float>(kAlone, it, kDirect, x, w, y, codes);
}
extern "C" __attribute__((noinline)) void counted_dykstra_vjp(const Iteration& it,
                                                              const std::uint8_t* codes,
                                                              const float* g, float* gx,
                                                              const std::vector<float*>& gw) {
  dykstra_vjp<float>(kAlone, it, codes, g, gx, gw, {false, false});
}

namespace {

void run_dykstra(const Iteration& it, const float* x, float* y, bool with_codes, bool vjp) {
  const std::int64_t size = it.size();
  const std::vector<float> lam(size, 0.1f);
  const std::vector<Weights<float>> w(2, {lam.data(), false});
  std::vector<std::uint8_t> codes(it.code_arrays() * size);
  if (!vjp) return counted_dykstra(it, x, w, y, with_codes ? codes.data() : nullptr);
  dykstra<float>(kAlone, it, kDirect, x, w, y, codes.data());
  std::vector<float> gw(2 * size);
  counted_dykstra_vjp(it, codes.data(), x, y, {gw.data(), gw.data() + size});
}

// The rows of a file, or the image that they are.
int run_file(char** arguments) {
  const std::int64_t rows = std::atoll(arguments[2]), n = std::atoll(arguments[3]);
  std::vector<float> x(rows * n), y(x.size()), lam(rows, float(std::atof(arguments[4])));
  std::FILE* file = std::fopen(arguments[5], "rb");
  if (!file || std::fread(x.data(), sizeof(float), x.size(), file) != x.size()) return 1;
  std::fclose(file);
  if (std::string(arguments[1]) == "image") {
    const std::vector<Weights<float>> w(2, {lam.data(), false});
    counted_dykstra({.batch = 1, .dims = {rows, n}, .axes = {1, 0}, .sweeps = 4}, x.data(), w,
                    y.data(), nullptr);
  } else {
    counted_prox(pass_of({rows, n, 1}, x.data(), lam.data(), y.data()));
  }
  std::printf("%g\n", y[1]);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 2) return run_file(arguments);
  const std::string name = arguments[1];
  const bool ramp = name == "ramp", strided = name == "strided", single = name == "single";
  const std::int64_t side = 128, n = single ? 16384 : ramp || name == "rows of 512" ? 512 : 32;
  const std::int64_t rows = single ? 1 : 16384 / n;
  std::vector<float> x = samples(rows, n), y(x.size()), lam(rows, ramp ? 1e3f : 0.5f);
  if (ramp)
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % n);
  const Shape shape = strided ? Shape{1, n, rows} : Shape{rows, n, 1};
  if (strided)
    for (std::int64_t i = 0; i < rows * n; ++i) y[i % n * rows + i / n] = x[i];
  if (strided) x.swap(y);
  const bool with_codes = name.find("codes") != name.npos, vjp = name.find("vjp") == 0;
  if (name == "image, 4 sweeps") {
    run_dykstra({.batch = 1, .dims = {side, side}, .axes = {1, 0}, .sweeps = 4}, x.data(), y.data(),
                false, false);
  } else if (with_codes || vjp) {
    const bool last = name.find("channels last") != name.npos;
    const Iteration it{.batch = 1,
                       .dims = {last ? 32 : 16, 32, last ? 16 : 32},
                       .axes = {last ? 1 : 2, last ? 0 : 1},
                       .sweeps = 4};
    run_dykstra(it, x.data(), y.data(), with_codes, vjp);
  } else if (name == "backward") {
    prox1d(kAlone, pass_of(shape, x.data(), lam.data(), y.data()), kDirect);
    std::vector<float> g(x), gw(rows);
    const Segments<float> segments{
        .shape = shape, .y = y.data(), .w = {lam.data(), false}, .codes = nullptr, .code_shift = 0};
    counted_vjp(
        {.segments = segments, .g = g.data(), .gx = g.data(), .gw = gw.data(), .per_edge = false});
    std::printf("%g\n", g[1]);
  } else {
    counted_prox(pass_of(shape, x.data(), lam.data(), y.data()));
  }
  std::printf("%g\n", y[1]);
}
