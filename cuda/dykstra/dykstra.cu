// Proximal Dykstra. An image that fits in shared memory stays there for all its sweeps, in one
// launch. Otherwise one launch per pass: by tiles of whole signals, one thread per signal; and by
// the 1D kernels (prox1d.hpp) for long signals and projected Newton. What has large samples is
// solved at a smaller size (jaxtv/overflow.hpp): images by themselves, else elements of the batch.
//
// A pass on axis i is  A = X - sum_{j != i} p_j,  Z = prox(A),  p_i = A - Z.  With two axes the one
// state needed is that of the other axis, and p_i can take its place.
#include "block/tiles.cuh"
#include "dykstra/dykstra.hpp"
#include "dykstra/image.cuh"
#include "half.cuh"
#include "jaxtv/overflow.hpp"
#include "prox1d/thread_per_signal.cuh"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

constexpr int kPassThreads = 256;

// The code (segments.hpp) of the edge between neighbours; `positive`: whether its weight is.
template <class T, class F>
JAXTV_DEVICE std::uint8_t code_of(T here, T next, F positive) {
  if (here < next) return kJumpUp;
  if (here > next) return kJumpDown;
  return here == next && positive() ? kJoined : kCut;
}
// ---- one pass ----

template <class D, class T = Compute<D>>
struct Pass {
  const D* x;
  Arrays<const T> minus;
  const T* w;
  bool per_edge;
  D* y;  // null where not wanted, as the next two
  T* residual;
  std::uint8_t* mask;  // of the first element
  int shift;
  std::int64_t mask_stride;   // to the next element
  const std::uint8_t* large;  // of each element

  JAXTV_DEVICE DykstraScaling<T> size_of(std::int64_t element) const {
    return DykstraScaling<T>(large[element] != 0);
  }
  JAXTV_DEVICE T input(const DykstraScaling<T>& size, std::int64_t at) const {
    T a = size.sample(x[at]);
    for (int j = 0; j < minus.count; ++j) a -= minus.data[j][at];
    return a;
  }
  JAXTV_DEVICE void put_code(std::int64_t at, std::uint8_t code) const {
    mask[at] = std::uint8_t(shift == 0 ? code : mask[at] | code << shift);
  }
};

// Tiles of whole signals. One thread solves a signal, all of them load and store.
template <class D, bool kEdges>
__global__ void __launch_bounds__(kPassThreads, 2) sweep(Tiling t, Pass<D> op) {
  using T = Compute<D>;
  Arena arena;
  const Shared<T> values = arena.take<T>(t.elements(0));
  const Shared<T> weights = arena.take<T>(kEdges ? t.elements(0) : 0);
  const Shared<signed char> signs = arena.take<signed char>(t.elements(0));
  const Shape& s = t.shape;
  const auto edge = [&](int k, std::int64_t outer, std::int64_t inner) {
    return op.w[kEdges ? (outer * (s.n - 1) + k) * s.inner + inner : outer * s.inner + inner];
  };
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Tile tile(t, std::uint32_t(index));
    const DykstraScaling<T> size = op.size_of(tile.batch);
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      values[k * t.pitch + lane] = op.input(size, (outer * s.n + k) * s.inner + inner);
      if (kEdges && k + 1 < s.n) weights[k * t.pitch + lane] = size.weight(edge(k, outer, inner));
    });
    __syncthreads();
    const int lane = threadIdx.x;
    if (lane < t.lanes() && tile.inside(t, lane)) {
      const Column<T> row{values + lane, t.pitch};
      const Column<signed char> cuts{signs + lane, t.pitch};
      const int n = int(s.n);
      const auto reload = [&] {
        const std::int64_t first = tile.first * s.n * s.inner + tile.column + tile.offset(t, lane);
        for (int k = 0; k < n; ++k) row[k] = op.input(size, first + k * s.inner);
      };
      if constexpr (kEdges)
        solve_column<T>(n, row, Column<T>{weights + lane, t.pitch}, cuts, reload);
      else
        solve_column<T>(n, row, Uniform<T>{size.weight(op.w[tile.signal(t, lane)])}, cuts, reload);
    }
    __syncthreads();
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      const std::int64_t at = (outer * s.n + k) * s.inner + inner;
      const T z = values[k * t.pitch + lane];
      if (op.residual) op.residual[at] = op.input(size, at) - z;
      if (op.y) op.y[at] = size.result(z, op.x[at]);
      if (!op.mask) return;
      const std::int64_t in_element = at - tile.batch * s.outer * s.n * s.inner;
      const std::uint8_t code =
          k + 1 == s.n ? kCut : code_of(z, T(values[(k + 1) * t.pitch + lane]), [&] {
            return edge(k, outer, inner) > T(0);
          });
      op.put_code(tile.batch * op.mask_stride + in_element, code);
    });
    __syncthreads();  // the tile is loaded anew
  }
}

// `batch` elements of `size` samples or weights, each of them in parts: a block's work.
struct Elements {
  static constexpr int kPart = 16 * kPassThreads;
  std::int64_t batch, size;
  JAXTV_HD std::int64_t parts() const { return (size + kPart - 1) / kPart; }
  std::int64_t blocks() const { return batch * parts(); }
};

// Calls f(element, place in the array) for all of them.
template <class F>
JAXTV_DEVICE void for_all(const Elements& e, F f) {
  const std::int64_t parts = e.parts(), blocks = e.batch * parts;
  for (std::int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const std::int64_t element = b / parts, begin = (b - element * parts) * Elements::kPart;
    const std::int64_t end = min_of<std::int64_t>(begin + Elements::kPart, e.size);
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kPassThreads)
      f(element, element * e.size + i);
  }
}

__global__ void __launch_bounds__(kPassThreads)
    clear_large(std::int64_t batch, std::uint8_t* large) {
  const std::int64_t step = std::int64_t(gridDim.x) * kPassThreads;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < batch; i += step)
    large[i] = 0;
}

// Threads that find one write the same.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads)
    find_large(Elements e, const D* x, std::uint8_t* large) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    if (abs_of(T(x[i])) > kDykstraLimit<T>) large[element] = 1;
  });
}

// Weights at the size that their element is solved at.
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    shrink(Elements e, const T* w, const std::uint8_t* large, T* out) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    out[i] = DykstraScaling<T>(large[element] != 0).weight(w[i]);
  });
}

// a = X - sum of the other states.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads) subtract(Elements e, Pass<D> op, T* a) {
  for_all(e,
          [&](std::int64_t element, std::int64_t i) { a[i] = op.input(op.size_of(element), i); });
}

// The residual, which may be a, and the mask, once the 1D kernels have made z = prox(a).
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads)
    settle(Elements e, Shape s, Pass<D> op, const T* a, const T* z) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    const T here = z[i];
    if (op.residual) op.residual[i] = a[i] - here;
    if (!op.mask) return;
    const std::int64_t row = i / s.inner, outer = row / s.n, k = row - outer * s.n;
    std::uint8_t code = kCut;
    if (k + 1 < s.n)
      code = code_of(here, z[i + s.inner], [&] {
        const std::int64_t inner = i - row * s.inner;
        return op.w[(op.per_edge ? outer * (s.n - 1) + k : outer) * s.inner + inner] > T(0);
      });
    op.put_code(element * op.mask_stride + i - element * e.size, code);
  });
}

// The result, from z. It may be z itself: then the mask has been made of it before.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads) deliver(Elements e, Pass<D> op, const T* z) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    const DykstraScaling<T> size = op.size_of(element);
    if (kHalf<D> || !size.unchanged()) op.y[i] = size.result(z[i], op.x[i]);
  });
}

// ---- all sweeps of an image in shared memory ----

template <class D>
struct ImageOp {
  const D* x;
  const Compute<D>* w[2];
  bool per_edge[2], taut;
  std::int64_t size;  // of an element
  int passes;
  D* y;
  std::uint8_t* mask;
};

// Weights in global memory at the size of the image, one for all edges where the stride is 0.
template <class T>
struct Edgewise {
  const T* data;
  std::int64_t stride;
  DykstraScaling<T> size;
  JAXTV_DEVICE T operator[](int e) const { return size.weight(data[e * stride]); }
};
template <class T, class I>
JAXTV_DEVICE bool valid_weights(I n, const Edgewise<T>& w) {
  bool valid = n > 1 || w[0] >= T(0);
  for (I e = 0; e + 1 < n; ++e) valid &= w[e] >= T(0);
  return valid;
}

// The same by the place of the sample before the edge, as jaxtv/certificate.hpp has them.
struct ByPlace {
  Edgewise<float> w;
  Divider by_step;
  JAXTV_DEVICE float operator[](int at) const { return w[int(by_step.div(std::uint32_t(at)))]; }
};
JAXTV_DEVICE float by_place(const Uniform<float>& w, const Divider&) { return w.value; }
JAXTV_DEVICE ByPlace by_place(const Edgewise<float>& w, const Divider& by_step) {
  return {w, by_step};
}

// One pass on one line: `a` becomes p = A - Z, in the last pass Z itself. Calls put(k, code) for
// the edges after the samples.
template <class T, class W, class F>
JAXTV_DEVICE void solve_line(int n, Column<T> a, W w, Column<signed char> cuts, bool taut,
                             bool last, F put) {
  const double factor = prox_cuts<T>(n, a, w, cuts, taut);
  if (factor == 0) {
    for (int k = 0; k < n; ++k) {
      a[k] = kNaN<T>;
      put(k, kCut);
    }
    return;
  }
  T right = 0;  // first value of the segment to the right
  for_segments_at<T>(factor, n, a, w, cuts, [&](int begin, int end, T value) {
    T first = 0, before = 0, bound = begin > 0 ? T(w[begin - 1]) : T(0);
    for (int k = begin; k <= end; ++k) {
      const T next = k + 1 < n ? T(w[k]) : T(0), sample = a[k];
      const T z = bound == T(0) && next == T(0) ? sample : value;  // as write_values
      a[k] = last ? z : sample - z;
      if (k == begin)
        first = z;
      else
        put(k - 1, code_of(before, z, [&] { return bound > T(0); }));
      before = z;
      bound = next;
    }
    put(end, end + 1 == n ? kCut : code_of(before, right, [&] { return bound > T(0); }));
    right = first;
  });
}

// The same in float32 where that can tell the solution; false, and `a` is as it was, where it
// cannot. `values` is scratch. Each loop goes through the line once, whatever its segments are: the
// threads of a warp stay together.
template <class W, class F>
JAXTV_DEVICE bool certified_line(int n, Column<float> a, Shared<float> values, W w,
                                 const Divider& by_step, Shared<signed char> cuts, bool& taut,
                                 bool last, bool masked, F put) {
  const int step = a.pitch;
  if (!certified_cuts(n, step, a.data, by_place(w, by_step), cuts, values, taut)) return false;
  const auto spread = [&](auto result) {
    float value = values[0];
    a[0] = result(a[0], value);
#pragma unroll 4
    for (int k = 1; k < n; ++k) {
      if (cuts[(k - 1) * step] != 0) value = values[k * step];
      a[k] = result(a[k], value);
    }
  };
  if (last)
    spread([](float, float value) { return value; });
  else
    spread([](float sample, float value) { return sample - value; });
  if (!masked) return true;
  float before = values[0];
  for (int k = 0; k + 1 < n; ++k) {
    std::uint8_t code = kJoined;
    if (cuts[k * step] != 0) {
      const float value = values[(k + 1) * step];
      code = code_of(before, value, [&] { return w[k] > 0; });
      before = value;
    }
    put(k, code);
  }
  put(n - 1, kCut);
  return true;
}

// The input of the next pass takes the place of the state of the one before: X stays in global
// memory, where the cache has it, and there is room for more images in shared memory. The values
// are those of certified_line, for float32 alone.
template <class D, bool kEdges>
__global__ void __launch_bounds__(kImageThreads, 2) image_dykstra(ImageTiling t, ImageOp<D> op) {
  using T = Compute<D>;
  constexpr bool kFloat = sizeof(T) == 4;
  Arena arena;
  const Shared<T> state = arena.take<T>(t.elements());  // a, then p; at last the result
  const Shared<T> values = arena.take<T>(kFloat ? t.elements() : 0);
  const Shared<signed char> signs = arena.take<signed char>(t.elements());
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(op.mask ? t.elements() : 0);
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Image image(t, index);
    const D* x = op.x + image.batch * op.size;
    const auto sample_at = [&](int, std::int64_t at) -> T { return x[at]; };
    bool large = false;
    move_pixels(t, image, sample_at, [&](int p, std::int64_t, T sample) {
      state[p] = sample;
      large |= abs_of(sample) > kDykstraLimit<T>;
    });
    const DykstraScaling<T> size(__syncthreads_or(large));
    for (int pass = 0; pass < op.passes; ++pass) {
      const int shift = 2 * (pass & 3);
      const bool odd = pass & 1, last = pass + 1 == op.passes;
      if (pass > 0 || !size.unchanged()) {
        move_pixels(t, image, sample_at, [&](int p, std::int64_t, T sample) {
          state[p] = size.sample(sample) - (pass > 0 ? T(state[p]) : T(0));
        });
        __syncthreads();
      }
      const T* w = odd ? op.w[1] : op.w[0];  // selected: a computed index would cost a stack
      const bool per_edge = kEdges && (odd ? op.per_edge[1] : op.per_edge[0]);
      const bool lead = odd == (t.lead == 1);
      for_lines(t, image, lead, [&](const Line& line) {
        const int base = line.base, stride = line.stride, n = line.n;
        const Column<T> a{state + base, stride};
        const auto put = [&](int k, std::uint8_t code) {
          if (!op.mask) return;
          const int p = base + k * stride;
          codes[p] = std::uint8_t(shift == 0 ? code : std::uint8_t(codes[p]) | code << shift);
        };
        const auto solve = [&](auto weights) {
          bool taut = op.taut;
          if constexpr (kFloat)
            if (taut && certified_line(n, a, values + base, weights,
                                       lead ? Divider(t.by_pitch) : Divider(t.by_chunk),
                                       signs + base, taut, last, op.mask != nullptr, put))
              return;
          solve_line(n, a, weights, Column<signed char>{signs + base, stride}, taut, last, put);
        };
        if constexpr (kEdges)
          solve(Edgewise<T>{w + line.weight(per_edge, 0), per_edge ? line.edge_stride : 0, size});
        else
          solve(Uniform<T>{size.weight(w[line.signal])});
      });
      __syncthreads();
      if (op.mask && (shift == 6 || last)) {
        const std::int64_t planes = (op.passes + 3) / 4;
        std::uint8_t* plane = op.mask + (image.batch * planes + pass / 4) * op.size;
        move_pixels(
            t, image, [&](int p, std::int64_t) -> std::uint8_t { return codes[p]; },
            [&](int, std::int64_t at, std::uint8_t code) { plane[at] = code; });
        __syncthreads();
      }
    }
    if (!size.unchanged())
      move_pixels(t, image, sample_at,
                  [&](int p, std::int64_t, T sample) { state[p] = size.result(state[p], sample); });
    D* out = op.y + image.batch * op.size;
    move_pixels(
        t, image, [&](int p, std::int64_t) -> T { return state[p]; },
        [&](int, std::int64_t at, T value) { out[at] = value; });
    __syncthreads();
  }
}

template <class T>
std::size_t image_bytes(bool masked) {
  return (sizeof(T) == 4 ? 2 : 1) * sizeof(T) + (masked ? 2 : 1);
}
// No tiles where the sweeps are launches of their own.
template <class T>
ImageTiling image_of(const Iteration& it, const Solver& inner, bool masked) {
  if (inner.method == Method::kProjectedNewton) return {};
  return image_tiling_of(it, image_bytes<T>(masked));
}

template <class D>
Status run_image(cudaStream_t stream, const ImageTiling& t, const ImageOp<D>& op) {
  const bool edges = op.per_edge[0] || op.per_edge[1];
  return launch("image_dykstra", edges ? image_dykstra<D, true> : image_dykstra<D, false>, t.tiles,
                t.threads(), t.elements() * image_bytes<Compute<D>>(op.mask != nullptr), stream, t,
                op);
}

template <class D>
Status run_rows(cudaStream_t stream, const Shape& s, const Pass<D>& op) {
  const TileNeeds needs = rows_need<Compute<D>>(op.per_edge);
  Tiling t = tiling_of(s, needs);
  t.parts = max_of(64 / t.lanes(), 1);  // more threads than signals: they load and store
  if (Status bad = check(t)) return bad;
  return launch("sweep", op.per_edge ? sweep<D, true> : sweep<D, false>, t.tiles, t.threads(),
                t.elements(0) * std::size_t(needs.bytes), stream, t, op);
}

// The arrays of the sweeps in the workspace, behind the scratch of the 1D kernels.
template <class T>
struct Scratch {
  T* states;            // of each axis
  T* z;                 // where the solution of a pass is made
  T* weights;           // of a pass, at the size that it is solved at
  std::uint8_t* large;  // of each element
};

// By the 1D kernels. `own`: the state of this axis.
template <class D, class T = Compute<D>>
Status run_long(cudaStream_t stream, const Shape& s, const Pass<D>& op, const Solver& inner, T* own,
                const Scratch<T>& scratch, void* workspace) {
  const Elements samples{s.batch, s.outer * s.n * s.inner},
      edges{s.batch, s.outer * s.inner * (op.per_edge ? s.n - 1 : 1)};
  const auto run = [&](const char* name, auto kernel, const Elements& e, auto... args) {
    return launch(name, kernel, e.blocks(), kPassThreads, 0, stream, e, args...);
  };
  if (Status bad = run("shrink", shrink<T>, edges, op.w, op.large, scratch.weights)) return bad;
  if (Status bad = run("subtract", subtract<D>, samples, op, own)) return bad;
  const Prox<T> prox{own, scratch.weights, op.per_edge, scratch.z, nullptr, nullptr, nullptr};
  if (Status bad = prox1d(stream, s, prox, inner, workspace)) return bad;
  if (Status bad = run("settle", settle<D>, samples, s, op, own, scratch.z)) return bad;
  return op.y ? run("deliver", deliver<D>, samples, op, scratch.z) : nullptr;
}

// Scratch of the 1D kernels.
std::int64_t prox_bytes(const Iteration& it, const Solver& inner) {
  std::int64_t most = 0;
  for (int a = 0; a < it.axes; ++a) most = max_of(most, prox_workspace(it.shapes[a], inner.method));
  return (most + 15) / 16 * 16;
}

}  // namespace

// A state per axis, weights and `large`; half types also need a float z.
template <class D>
std::int64_t dykstra_workspace(const Iteration& it, const Solver& inner, bool masked) {
  using T = Compute<D>;
  if (image_of<T>(it, inner, masked).tiles > 0) return 0;
  const std::int64_t arrays = it.axes + (kHalf<D> ? 2 : 1);
  return prox_bytes(it, inner) + arrays * it.batch * it.size * std::int64_t(sizeof(T)) + it.batch;
}

template <class D>
Status dykstra(cudaStream_t stream, const Iteration& it, const Solver& inner, const D* x,
               const PerAxis<const Compute<D>>& w, D* y, std::uint8_t* mask, void* workspace) {
  using T = Compute<D>;
  const std::int64_t total = it.batch * it.size;
  if (total == 0) return nullptr;
  const ImageTiling image = image_of<T>(it, inner, mask != nullptr);
  const ImageOp<D> image_op{x,
                            {w.data[0], w.data[1]},
                            {w.per_edge[0], w.per_edge[1]},
                            inner.method != Method::kDecomposition,
                            it.size,
                            int(it.passes()),
                            y,
                            mask};
  if (image.tiles > 0) return run_image(stream, image, image_op);
  Scratch<T> scratch{};
  scratch.states = reinterpret_cast<T*>(static_cast<char*>(workspace) + prox_bytes(it, inner));
  scratch.weights = scratch.states + it.axes * total;
  T* end = scratch.weights + total;
  if constexpr (kHalf<D>) {
    scratch.z = end;
    end += total;
  } else {
    scratch.z = y;
  }
  scratch.large = reinterpret_cast<std::uint8_t*>(end);
  const Elements elements{it.batch, it.size};
  if (Status bad = launch("clear_large", clear_large, (it.batch + kPassThreads - 1) / kPassThreads,
                          kPassThreads, 0, stream, it.batch, scratch.large))
    return bad;
  if (it.axes > 1)  // else nothing is summed up
    if (Status bad = launch("find_large", find_large<D>, elements.blocks(), kPassThreads, 0, stream,
                            elements, x, scratch.large))
      return bad;

  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    const Shape& shape = it.shapes[axis];
    T* own = scratch.states + axis * total;
    Pass<D> op{};
    op.x = x;
    for (int j = 0; j < it.axes; ++j)  // a state that has no value yet is zero
      if (j != axis && (pass >= it.axes || j < axis))
        op.minus.data[op.minus.count++] = scratch.states + j * total;
    op.w = w.data[axis];
    op.per_edge = w.per_edge[axis];
    op.y = last ? y : nullptr;
    op.residual = last ? nullptr : own;
    op.mask = mask ? mask + pass / 4 * it.size : nullptr;
    op.mask_stride = it.planes() * it.size;
    op.shift = int(2 * (pass % 4));
    op.large = scratch.large;
    if (Status bad = by_rows<T>(shape, inner.method, op.per_edge)
                         ? run_rows(stream, shape, op)
                         : run_long(stream, shape, op, inner, own, scratch, workspace))
      return bad;
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(D)                                                         \
  template std::int64_t dykstra_workspace<D>(const Iteration&, const Solver&, bool); \
  template Status dykstra(cudaStream_t, const Iteration&, const Solver&, const D*,   \
                          const PerAxis<const Compute<D>>&, D*, std::uint8_t*, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
