// Solves problems that are the same on every machine, and prints a hash of all that the kernels
// wrote for each of them: `arm CASES`.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dykstra.hpp"
#include "prox1d.hpp"

using namespace jaxtv::cpu;

namespace {

const Pool kAlone{1, nullptr};
const jaxtv::Solver kDirect{.method = jaxtv::Method::kDirect};

// No library's random numbers.
struct Random {
  std::uint32_t state;
  std::int64_t below(std::int64_t n) {
    state = state * 1664525u + 1013904223u;
    return std::int64_t(std::uint64_t(state) * n >> 32);
  }
  double around_zero() { return double(below(1 << 24) + below(1 << 24) - (1 << 24)) / (1 << 23); }
};

struct Hash {
  std::uint64_t value = 14695981039346656037ull;
  template <class T>
  void add(const std::vector<T>& v) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(v.data());
    for (std::size_t i = 0; i < v.size() * sizeof(T); ++i)
      value = (value ^ bytes[i]) * 1099511628211ull;
  }
};

// Noise, a random walk, or small whole numbers, of one size or another.
template <class T>
std::vector<T> samples(Random& random, std::int64_t count) {
  const std::int64_t kind = random.below(3);
  const double sizes[] = {1, 255, 1e4}, size = sizes[random.below(3)];
  std::vector<T> x(count);
  double walk = 0;
  for (T& v : x) {
    const double noise = random.around_zero();
    walk += noise;
    v = kind == 0 ? T(size * noise) : kind == 1 ? T(size * walk / 8) : T(random.below(9));
  }
  return x;
}

template <class T>
std::vector<T> weights(Random& random, std::int64_t count, double largest) {
  std::vector<T> w(count);
  for (T& v : w) v = random.below(8) ? T(largest * (1 + random.around_zero())) : T(0);
  return w;
}

template <class T>
void one_axis(Random& random, Hash& hash) {
  const std::int64_t lengths[] = {1, 2, 3, 17, 64, 130, 513, 5000}, n = lengths[random.below(8)];
  const Shape shape{1 + random.below(n > 1000 ? 3 : 20), n, n > 1000 ? 1 : 1 + random.below(12)};
  const bool per_edge = n > 1 && random.below(3) == 0;
  const auto x = samples<T>(random, shape.size()), g = samples<T>(random, shape.size());
  const double scales[] = {0.05, 1, 30};
  const auto w =
      weights<T>(random, shape.signals() * (per_edge ? n - 1 : 1), scales[random.below(3)]);
  std::vector<T> y(x.size()), gx(x.size()), gw(w.size());
  Pass<T> pass{};
  pass.shape = shape, pass.x = x.data(), pass.w = {w.data(), per_edge}, pass.y = y.data();
  prox1d(kAlone, pass, kDirect);
  const Segments<T> segments{
      .shape = shape, .y = y.data(), .w = {w.data(), per_edge}, .codes = nullptr, .code_shift = 0};
  segment_vjp<T>(kAlone, {.segments = segments,
                          .g = g.data(),
                          .gx = gx.data(),
                          .gw = gw.data(),
                          .per_edge = per_edge});
  hash.add(y), hash.add(gx), hash.add(gw);
}

template <class T>
void two_axes(Random& random, Hash& hash) {
  const std::int64_t batch = 2, rows = 1 + random.below(40), columns = 1 + random.below(40);
  const Iteration it{.batch = batch, .dims = {rows, columns}, .axes = {1, 0}, .sweeps = 4};
  const auto x = samples<T>(random, batch * rows * columns), g = samples<T>(random, x.size());
  const auto w0 = weights<T>(random, batch * rows, 1), w1 = weights<T>(random, batch * columns, 1);
  const std::vector<Weights<T>> w{{w0.data(), false}, {w1.data(), false}};
  std::vector<T> y(x.size()), gx(x.size()), g0(w0.size()), g1(w1.size());
  std::vector<std::uint8_t> codes(batch * it.code_arrays() * it.size());
  dykstra<T>(kAlone, it, kDirect, x.data(), w, y.data(), codes.data());
  dykstra_vjp<T>(kAlone, it, codes.data(), g.data(), gx.data(), {g0.data(), g1.data()},
                 {false, false});
  hash.add(y), hash.add(codes), hash.add(gx), hash.add(g0), hash.add(g1);
}

}  // namespace

int main(int, char** arguments) {
  for (std::uint32_t seed = 0; seed < std::uint32_t(std::atoi(arguments[1])); ++seed) {
    Random random{seed};
    Hash hash;
    if (seed % 4 == 0) two_axes<float>(random, hash);
    if (seed % 4 == 1) two_axes<double>(random, hash);
    if (seed % 4 == 2) one_axis<float>(random, hash);
    if (seed % 4 == 3) one_axis<double>(random, hash);
    std::printf("%016llx\n", static_cast<unsigned long long>(hash.value));
  }
}
