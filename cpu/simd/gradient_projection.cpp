// The loops over a line are simple enough for the compiler to vectorise. Each sums into kMultiple
// lanes whatever the instruction set, so all of them give the same bits.
#include "simd/gradient_projection.hpp"

#include <cmath>
#include <cstring>

#include "simd/vectors.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

constexpr std::int64_t kMultiple = Grid::kMultiple;

template <class T>
double sum(const T (&lane)[kMultiple]) {
  double total = 0;
  for (T v : lane) total += double(v);
  return total;
}

// Samples from one to the next along an axis; 0 where there is none, so that they do not differ.
std::int64_t next_along(const Grid& g, std::int64_t line, int axis) {
  if (axis + 1 == g.axes) return 1;
  return g.index(line, axis) + 1 < g.sizes[axis] ? g.strides[axis] * g.pitch : 0;
}

// Calls f(jump, u, lines before) for each axis and channel, where jump(i) is the forward difference
// of `value` at sample i of the line.
template <class T, class Value, class F>
JAXTV_INLINE void for_jumps(const Projection<T>& p, std::int64_t line, Value value, F f) {
  const Grid& g = p.grid;
  for (int a = 0; a < g.axes; ++a) {
    const std::int64_t next = next_along(g, line, a);
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const std::int64_t at = c * g.plane() + line * g.pitch;
      const std::int64_t dual = (a * g.channels + c) * g.plane() + line * g.pitch;
      if (a + 1 == g.axes)
        f(
            [=, has_next = p.has_next](std::int64_t i) JAXTV_LAMBDA {
              const T jump = value(at + i + 1) - value(at + i);
              return has_next[i] > 0 ? jump : T(0);
            },
            dual, a * g.channels + c);
      else
        f([=](std::int64_t i) JAXTV_LAMBDA { return value(at + i + next) - value(at + i); }, dual,
          a * g.channels + c);
    }
  }
}

template <class T>
std::size_t scratch_bytes(const Grid& g) {
  return (2 + g.axes * g.channels) * g.pitch * sizeof(T);
}

template <class T>
double project(const Projection<T>& p, std::int64_t line, T* scratch) {
  const std::int64_t n = p.grid.pitch;
  const T beta = p.beta, step = p.step;
  T* __restrict factor = scratch;
  T* stepped = scratch + n;
  std::memset(factor, 0, n * sizeof(T));
  const T *y = p.y, *last_y = p.last_y;
  const auto beyond = [=](std::int64_t i) JAXTV_LAMBDA { return y[i] + beta * (y[i] - last_y[i]); };
  for_jumps(p, line, beyond, [&](auto jump, std::int64_t dual, std::int64_t k) {
    const T *u = p.u + dual, *last = p.last_u + dual;
    T* __restrict v = stepped + k * n;
    JAXTV_INDEPENDENT
    for (std::int64_t i = 0; i < n; ++i) {
      v[i] = u[i] + beta * (u[i] - last[i]) + step * jump(i);
      factor[i] += v[i] * v[i];
    }
  });
  const T* w = p.w + line * p.next_w;
  JAXTV_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const T norm = std::sqrt(factor[i]), inside = w[i] / norm;
    factor[i] = norm > w[i] ? inside : T(1);
  }
  double uphill = 0;
  for (std::int64_t k = 0; k < p.grid.axes * p.grid.channels; ++k) {
    const std::int64_t dual = k * p.grid.plane() + line * n;
    const T *u = p.u + dual, *v = stepped + k * n;
    T* __restrict last = p.last_u + dual;
    T lane[kMultiple] = {};
    for (std::int64_t i = 0; i < n; i += kMultiple) JAXTV_INDEPENDENT
    for (std::int64_t l = 0; l < kMultiple; ++l) {
      const T now = u[i + l], next = v[i + l] * factor[i + l];
      const T point = now + beta * (now - last[i + l]);
      lane[l] += (point - next) * (next - now);
      last[i + l] = next;
    }
    uphill += sum(lane);
  }
  return uphill;
}

template <class T>
void primal_line(const Projection<T>& p, std::int64_t line) {
  const Grid& g = p.grid;
  const std::int64_t n = g.pitch;
  for (std::int64_t c = 0; c < g.channels; ++c) {
    const std::int64_t at = c * g.plane() + line * n;
    const T* x = p.x + at;
    T* __restrict y = p.new_y + at;
    std::memcpy(y, x, n * sizeof(T));
    for (int a = 0; a < g.axes; ++a) {
      const T* u = p.last_u + (a * g.channels + c) * g.plane() + line * n;
      const bool first = a + 1 < g.axes && g.index(line, a) == 0;
      const T* before = a + 1 == g.axes ? u - 1 : u - g.strides[a] * n;
      if (first) {
        JAXTV_INDEPENDENT
        for (std::int64_t i = 0; i < n; ++i) y[i] += u[i];
      } else {
        JAXTV_INDEPENDENT
        for (std::int64_t i = 0; i < n; ++i) y[i] += u[i] - before[i];
      }
    }
  }
}

template <class T>
void primal(const Projection<T>& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t line = begin; line < end; ++line) primal_line(p, line);
}

template <class T>
double step(const Projection<T>& p, std::int64_t begin, std::int64_t end, std::int64_t deferred,
            void* scratch) {
  double uphill = 0;
  for (std::int64_t line = begin; line < end; ++line) {
    uphill += project(p, line, static_cast<T*>(scratch));
    if (line >= begin + deferred) primal_line(p, line);
  }
  return uphill;
}

template <class T>
Measures measure(const Projection<T>& p, std::int64_t begin, std::int64_t end, void* scratch) {
  const Grid& g = p.grid;
  const std::int64_t n = g.pitch;
  T* __restrict square = static_cast<T*>(scratch), * __restrict inner = square + n;
  const auto value = [y = p.y](std::int64_t i) JAXTV_LAMBDA { return y[i]; };
  Measures total{0, 0, 0};
  for (std::int64_t line = begin; line < end; ++line) {
    std::memset(square, 0, 2 * n * sizeof(T));
    for_jumps(p, line, value, [&](auto jump, std::int64_t dual, std::int64_t) {
      const T* u = p.u + dual;
      JAXTV_INDEPENDENT
      for (std::int64_t i = 0; i < n; ++i) {
        const T d = jump(i);
        square[i] += d * d;
        inner[i] += d * u[i];
      }
    });
    const T* w = p.w + line * p.next_w;
    T gap[kMultiple] = {}, variation[kMultiple] = {}, fidelity[kMultiple] = {};
    for (std::int64_t i = 0; i < n; i += kMultiple) JAXTV_INDEPENDENT
    for (std::int64_t l = 0; l < kMultiple; ++l) {
      const T v = w[i + l] * std::sqrt(square[i + l]);
      variation[l] += v;
      gap[l] += v - inner[i + l];
    }
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const T *x = p.x + c * g.plane() + line * n, *y = p.y + c * g.plane() + line * n;
      for (std::int64_t i = 0; i < n; i += kMultiple) JAXTV_INDEPENDENT
      for (std::int64_t l = 0; l < kMultiple; ++l)
        fidelity[l] += (x[i + l] - y[i + l]) * (x[i + l] - y[i + l]);
    }
    total.gap += sum(gap), total.variation += sum(variation), total.fidelity += sum(fidelity);
  }
  return total;
}

template <class T>
void joined(const Projection<T>& p, std::int64_t begin, std::int64_t end, std::uint8_t* out,
            std::int64_t length, void* scratch) {
  const std::int64_t n = p.grid.pitch;
  const T step = p.step, slack = 1 + 4 * kUnit<T>;
  T* __restrict square = static_cast<T*>(scratch);
  const auto value = [y = p.y](std::int64_t i) JAXTV_LAMBDA { return y[i]; };
  for (std::int64_t line = begin; line < end; ++line) {
    std::memset(square, 0, n * sizeof(T));
    for_jumps(p, line, value, [&](auto jump, std::int64_t dual, std::int64_t) {
      const T* u = p.u + dual;
      JAXTV_INDEPENDENT
      for (std::int64_t i = 0; i < n; ++i) {
        const T v = u[i] + step * jump(i);
        square[i] += v * v;
      }
    });
    const T* w = p.w + line * p.next_w;
    for (std::int64_t i = 0; i < length; ++i)
      out[line * length + i] = w[i] > 0 && std::sqrt(square[i]) <= w[i] * slack;
  }
}

template <class T>
constexpr ProjectionKernel<T> kernel() {
  return {scratch_bytes<T>, step<T>, primal<T>, measure<T>, joined<T>};
}

}  // namespace

extern const ProjectionTable projections;
const ProjectionTable projections = {kernel<float>(), kernel<double>()};

}  // namespace jaxtv::cpu::JAXTV_ISA
