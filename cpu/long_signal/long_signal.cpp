#include "long_signal/long_signal.hpp"

#include <algorithm>
#include <atomic>

#include "jaxtv/edge_code.hpp"
#include "long_signal/taut_strings.hpp"
#include "long_signal/windows.hpp"

namespace jaxtv::cpu {
namespace {

std::atomic<std::int64_t> by_taut_strings{0}, by_windows{0};

// Writes the codes and the residual that a pass with shape.outer = 1 asks for, from its solution z
// (which may be where the residual goes).
template <class T>
void write_results(const Pool& pool, const Pass<T>& pass, T* z) {
  const std::int64_t n = pass.shape.n, inner = pass.shape.inner;
  const auto for_samples = [&](auto f) {  // f(k, signal)
    const std::int64_t block = std::max<std::int64_t>(1, 16384 / inner);
    parallel_for(pool, (n + block - 1) / block, [&](std::int64_t chunk) {
      for (std::int64_t k = chunk * block; k < std::min(n, (chunk + 1) * block); ++k)
        for (std::int64_t i = 0; i < inner; ++i) f(k, i);
    });
  };
  if (pass.codes)
    for_samples([&](std::int64_t k, std::int64_t i) {
      const std::int64_t at = k * inner + i;
      const T* weight = pass.w.data + (pass.w.per_edge ? at : i);
      const EdgeCode code =
          k + 1 < n ? edge_code(z[at], z[at + inner], [&] { return *weight > 0; }) : kSeparate;
      pass.codes[at] |= std::uint8_t(code << pass.code_shift);
    });
  if (pass.residual)
    for_samples([&](std::int64_t k, std::int64_t i) {
      const std::int64_t at = k * inner + i;
      T a = pass.x[at];
      for (int m = 0; m < pass.num_minus; ++m) a -= pass.minus[m][at];
      pass.residual[at] = a - z[at];
    });
}

// The signals of a pass with shape.outer = 1.
template <class T>
void prox_outer(const Pool& pool, const Pass<T>& pass) {
  T* z = pass.y ? pass.y : pass.residual;
  if (prox_by_taut_strings(pool, pass, z)) {
    ++by_taut_strings;
  } else {
    prox_by_windows(pool, pass, z);
    by_windows += pass.shape.inner;
  }
  write_results(pool, pass, z);
}

}  // namespace

LongSignalCounts long_signal_counts() { return {by_taut_strings, by_windows}; }

bool is_long(std::int64_t n, std::int64_t signals) { return n >= (signals < 8 ? 4 : 32) * kWindow; }

template <class T>
void prox_long_signals(const Pool& pool, const Pass<T>& pass) {
  const Shape& shape = pass.shape;
  const std::int64_t size = shape.n * shape.inner, weights = pass.w.length(shape.n) * shape.inner;
  const auto move = [](auto*& p, std::int64_t by) {
    if (p) p += by;
  };
  for (std::int64_t o = 0; o < shape.outer; ++o) {
    Pass<T> one = pass;
    one.shape.outer = 1;
    move(one.x, o * size);
    for (int m = 0; m < one.num_minus; ++m) move(one.minus[m], o * size);
    move(one.w.data, o * weights);
    move(one.y, o * size);
    move(one.residual, o * size);
    move(one.codes, o * size);
    prox_outer(pool, one);
  }
}

template void prox_long_signals(const Pool&, const Pass<float>&);
template void prox_long_signals(const Pool&, const Pass<double>&);

}  // namespace jaxtv::cpu
