// Proximal Dykstra. An image that fits in shared memory stays there for all its sweeps, in one
// launch. Otherwise one launch per pass: by tiles of whole signals, one thread per signal; and by
// the 1D kernels (prox1d.hpp) for long signals and projected Newton.
//
// A pass on axis i is  A = X - sum_{j != i} p_j,  Z = prox(A),  p_i = A - Z.  With two axes the one
// state needed is that of the other axis, and p_i can take its place.
#include "dykstra.hpp"
#include "half.cuh"
#include "image.cuh"
#include "segments.hpp"
#include "solve.cuh"
#include "tile.cuh"

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
  bool per_edge, taut;
  D* y;  // null where not wanted, as the next two
  T* residual;
  std::uint8_t* mask;  // of the first element
  int shift;
  std::int64_t mask_stride;  // to the next element

  JAXTV_DEVICE T input(std::int64_t at) const {
    T a = x[at];
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
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      values[k * t.pitch + lane] = op.input((outer * s.n + k) * s.inner + inner);
      if (kEdges && k + 1 < s.n) weights[k * t.pitch + lane] = edge(k, outer, inner);
    });
    __syncthreads();
    const int lane = threadIdx.x;
    if (lane < t.lanes() && tile.inside(t, lane)) {
      const Column<T> row{values + lane, t.pitch};
      const Column<signed char> cuts{signs + lane, t.pitch};
      const int n = int(s.n);
      if constexpr (kEdges)
        prox_row<T>(n, row, Column<T>{weights + lane, t.pitch}, cuts, row, op.taut);
      else
        prox_row<T>(n, row, Uniform<T>{op.w[tile.signal(t, lane)]}, cuts, row, op.taut);
    }
    __syncthreads();
    for_samples(t, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      const std::int64_t at = (outer * s.n + k) * s.inner + inner;
      const T z = values[k * t.pitch + lane];
      if (op.residual) op.residual[at] = op.input(at) - z;
      if (op.y) op.y[at] = z;
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

// out = a = X - sum of the other states.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads) subtract(std::int64_t total, Pass<D> op, T* a) {
  for (std::int64_t i = std::int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < total;
       i += std::int64_t(gridDim.x) * kPassThreads)
    a[i] = op.input(i);
}

// What a pass writes once the 1D kernels have made z = prox(a). The residual may be a, y is z but
// for half types.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kPassThreads)
    settle(Shape s, Pass<D> op, const T* a, const T* z) {
  const std::int64_t size = s.outer * s.n * s.inner, total = s.batch * size;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < total;
       i += std::int64_t(gridDim.x) * kPassThreads) {
    const T here = z[i];
    if (op.residual) op.residual[i] = a[i] - here;
    if (kHalf<D> && op.y) op.y[i] = here;
    if (!op.mask) continue;
    const std::int64_t batch = i / size;
    const std::int64_t row = i / s.inner, outer = row / s.n, k = row - outer * s.n;
    std::uint8_t code = kCut;
    if (k + 1 < s.n)
      code = code_of(here, z[i + s.inner], [&] {
        const std::int64_t inner = i - row * s.inner;
        return op.w[(op.per_edge ? outer * (s.n - 1) + k : outer) * s.inner + inner] > T(0);
      });
    op.put_code(batch * op.mask_stride + i - batch * size, code);
  }
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

// Weights in global memory, one for all edges where the stride is 0.
template <class T>
struct Edgewise {
  const T* data;
  std::int64_t stride;
  JAXTV_DEVICE T operator[](int e) const { return data[e * stride]; }
};
template <class T, class I>
JAXTV_DEVICE bool valid_weights(I n, const Edgewise<T>& w) {
  bool valid = n > 1 || w[0] >= T(0);
  for (I e = 0; e + 1 < n; ++e) valid &= w[e] >= T(0);
  return valid;
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

template <class D, bool kEdges>
__global__ void __launch_bounds__(kImageThreads, 2) image_dykstra(ImageTiling t, ImageOp<D> op) {
  using T = Compute<D>;
  Arena arena;
  const Shared<T> x = arena.take<T>(t.elements());
  const Shared<T> state = arena.take<T>(t.elements());  // of the other axis; at last the result
  const Shared<signed char> signs = arena.take<signed char>(t.elements());
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(op.mask ? t.elements() : 0);
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Image image(t, index);
    const D* source = op.x + image.batch * op.size;
    for_pixels(t, image, [&](int p, std::int64_t at) { x[p] = source[at]; });
    __syncthreads();
    for (int pass = 0; pass < op.passes; ++pass) {
      const int shift = 2 * (pass & 3);
      const bool odd = pass & 1, last = pass + 1 == op.passes;
      const T* w = odd ? op.w[1] : op.w[0];  // selected: a computed index would cost a stack
      const bool per_edge = kEdges && (odd ? op.per_edge[1] : op.per_edge[0]);
      for_lines(t, image, odd == (t.lead == 1), [&](const Line& line) {
        const int base = line.base, stride = line.stride, n = line.n;
        const Column<T> a{state + base, stride};
        const Column<signed char> cuts{signs + base, stride};
        for (int k = 0; k < n; ++k) {
          const T sample = x[base + k * stride];
          a[k] = pass > 0 ? sample - T(a[k]) : sample;
        }
        const auto put = [&](int k, std::uint8_t code) {
          if (!op.mask) return;
          const int p = base + k * stride;
          codes[p] = std::uint8_t(shift == 0 ? code : std::uint8_t(codes[p]) | code << shift);
        };
        if constexpr (kEdges)
          solve_line(n, a,
                     Edgewise<T>{w + line.weight(per_edge, 0), per_edge ? line.edge_stride : 0},
                     cuts, op.taut, last, put);
        else
          solve_line(n, a, Uniform<T>{w[line.signal]}, cuts, op.taut, last, put);
      });
      __syncthreads();
      if (op.mask && (shift == 6 || last)) {
        const std::int64_t planes = (op.passes + 3) / 4;
        std::uint8_t* plane = op.mask + (image.batch * planes + pass / 4) * op.size;
        for_pixels(t, image, [&](int p, std::int64_t at) { plane[at] = codes[p]; });
        __syncthreads();
      }
    }
    D* out = op.y + image.batch * op.size;
    for_pixels(t, image, [&](int p, std::int64_t at) { out[at] = T(state[p]); });
    __syncthreads();
  }
}

template <class T>
TileNeeds row_needs(bool per_edge) {
  return {int(sizeof(T)) * (per_edge ? 2 : 1) + 1, 0};
}
template <class T>
std::size_t image_bytes(bool masked) {
  return 2 * sizeof(T) + (masked ? 2 : 1);
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

std::int64_t blocks_for(std::int64_t threads) {
  return min_of<std::int64_t>((threads + kPassThreads - 1) / kPassThreads, 1 << 16);
}

// As Direct does for one axis (prox1d.cu): one thread per signal where there are many or short
// ones.
template <class T>
bool by_rows(const Shape& s, bool per_edge, Method method) {
  constexpr std::int64_t kShort = 64, kMany = 4096, kFewestLanes = 8;
  if (method == Method::kProjectedNewton) return false;
  const Tiling t = tiling_of(s, row_needs<T>(per_edge));
  return t.chunks == 1 && (method == Method::kTautString || s.n <= kShort ||
                           (s.signals() >= kMany && t.lanes() >= kFewestLanes));
}

template <class D>
Status run_rows(cudaStream_t stream, const Shape& s, const Pass<D>& op) {
  const TileNeeds needs = row_needs<Compute<D>>(op.per_edge);
  Tiling t = tiling_of(s, needs);
  t.parts = max_of(64 / t.lanes(), 1);  // more threads than signals: they load and store
  if (Status bad = check(t)) return bad;
  return launch("sweep", op.per_edge ? sweep<D, true> : sweep<D, false>, t.tiles, t.threads(),
                t.elements(0) * std::size_t(needs.bytes), stream, t, op);
}

// By the 1D kernels. `own`: the state of this axis; z: where its solution is made.
template <class D, class T = Compute<D>>
Status run_long(cudaStream_t stream, const Shape& s, const Pass<D>& op, const Solver& inner, T* own,
                T* z, void* workspace) {
  const std::int64_t total = s.signals() * s.n;
  const T* a = own;
  if constexpr (!kHalf<D>)
    if (op.minus.count == 0) a = op.x;
  if (a == own)
    if (Status bad = launch("subtract", subtract<D>, blocks_for(total), kPassThreads, 0, stream,
                            total, op, own))
      return bad;
  const Prox<T> prox{a, op.w, op.per_edge, z, nullptr, nullptr, nullptr};
  if (Status bad = prox1d(stream, s, prox, inner, workspace)) return bad;
  return launch("settle", settle<D>, blocks_for(total), kPassThreads, 0, stream, s, op, a, z);
}

// Scratch of the 1D kernels.
template <class T>
std::int64_t prox_bytes(const Iteration& it, const Solver& inner) {
  std::int64_t most = 0;
  for (int a = 0; a < it.axes; ++a)
    most = max_of(most, prox_workspace<T>(it.shapes[a], inner.method));
  return (most + 15) / 16 * 16;
}

}  // namespace

// A state per axis; half types also need a float z.
template <class D>
std::int64_t dykstra_workspace(const Iteration& it, const Solver& inner, bool masked) {
  using T = Compute<D>;
  if (image_of<T>(it, inner, masked).tiles > 0) return 0;
  const std::int64_t arrays = it.axes + (kHalf<D> ? 1 : 0);
  return prox_bytes<T>(it, inner) + arrays * it.batch * it.size * std::int64_t(sizeof(T));
}

template <class D>
Status dykstra(cudaStream_t stream, const Iteration& it, const Solver& inner, const D* x,
               const PerAxis<const Compute<D>>& w, D* y, std::uint8_t* mask, void* workspace) {
  using T = Compute<D>;
  const std::int64_t total = it.batch * it.size;
  if (total == 0) return nullptr;
  T* states = reinterpret_cast<T*>(static_cast<char*>(workspace) + prox_bytes<T>(it, inner));
  const bool taut = inner.method != Method::kDecomposition;
  const ImageTiling image = image_of<T>(it, inner, mask != nullptr);
  const ImageOp<D> image_op{x,
                            {w.data[0], w.data[1]},
                            {w.per_edge[0], w.per_edge[1]},
                            taut,
                            it.size,
                            int(it.passes()),
                            y,
                            mask};
  if (image.tiles > 0) return run_image(stream, image, image_op);
  T* z;
  if constexpr (kHalf<D>)
    z = states + it.axes * total;
  else
    z = y;

  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    const Shape& shape = it.shapes[axis];
    T* own = states + axis * total;
    Pass<D> op{};
    op.x = x;
    for (int j = 0; j < it.axes; ++j)  // a state that has no value yet is zero
      if (j != axis && (pass >= it.axes || j < axis))
        op.minus.data[op.minus.count++] = states + j * total;
    op.w = w.data[axis];
    op.per_edge = w.per_edge[axis];
    op.taut = taut;
    op.y = last ? y : nullptr;
    op.residual = last ? nullptr : own;
    op.mask = mask ? mask + pass / 4 * it.size : nullptr;
    op.mask_stride = it.planes() * it.size;
    op.shift = int(2 * (pass % 4));
    if (Status bad = by_rows<T>(shape, op.per_edge, inner.method)
                         ? run_rows(stream, shape, op)
                         : run_long(stream, shape, op, inner, own, z, workspace))
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
