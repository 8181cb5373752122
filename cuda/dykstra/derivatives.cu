// Tangent and adjoint of the unrolled Dykstra iteration. An image that fits in shared memory stays
// there for all passes, in one launch. Otherwise one segment mean per pass, with the updates of the
// states around it done by the same kernel (segments.cu).
#include "dykstra/dykstra.hpp"
#include "dykstra/image.cuh"
#include "half.cuh"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

constexpr int kFillThreads = 256;

template <class T>
__global__ void __launch_bounds__(kFillThreads) fill_zero(T* out, std::int64_t size) {
  const std::int64_t step = std::int64_t(gridDim.x) * kFillThreads;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kFillThreads + threadIdx.x; i < size; i += step)
    out[i] = T(0);
}

// ---- all passes of an image in shared memory ----

template <class D>
struct ImageMap {
  const std::uint8_t* mask;
  const D* in;        // tx or g
  D* out;             // ty or gx
  std::int64_t size;  // of an element
  int passes;
  bool per_edge[2];

  JAXTV_DEVICE const std::uint8_t* plane(const Image& image, int pass) const {
    return mask + (image.batch * ((passes + 3) / 4) + pass / 4) * size;
  }
};

// One signal along which a thread goes from cut to cut.
struct Codes {
  Shared<std::uint8_t> codes;
  int stride, shift, n;
  // Of the edge after sample k.
  JAXTV_DEVICE int operator[](int k) const {
    return k + 1 < n ? std::uint8_t(codes[k * stride]) >> shift & 3 : kCut;
  }
};

// As dykstra_push below.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kImageThreads, 2)
    image_push(ImageTiling t, ImageMap<D> op, const T* tw0, const T* tw1) {
  Arena arena;
  const Shared<T> x = arena.take<T>(t.elements());
  const Shared<T> state = arena.take<T>(t.elements());  // of the other axis; at last the result
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(t.elements());
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Image image(t, index);
    const std::int64_t first = image.batch * op.size;
    move_pixels(
        t, image, [&](int, std::int64_t at) -> T { return op.in[first + at]; },
        [&](int p, std::int64_t, T value) { x[p] = value; });
    for (int pass = 0; pass < op.passes; ++pass) {
      const bool odd = pass & 1, last = pass + 1 == op.passes, opened = pass > 0;
      if (pass % 4 == 0) {
        const std::uint8_t* plane = op.plane(image, pass);
        move_pixels(
            t, image, [&](int, std::int64_t at) { return plane[at]; },
            [&](int p, std::int64_t, std::uint8_t value) { codes[p] = value; });
        __syncthreads();
      }
      const T* tw = odd ? tw1 : tw0;
      const bool per_edge = odd ? op.per_edge[1] : op.per_edge[0];
      for_lines(t, image, odd == (t.lead == 1), [&](const Line& line) {
        const Codes code{codes + line.base, line.stride, 2 * (pass % 4), line.n};
        const auto input = [&](int k) -> T {
          const int p = line.base + k * line.stride;
          const T v = x[p];
          return opened ? v - T(state[p]) : v;
        };
        double sum = 0, left = 0;  // left: s tw of the edge before the segment
        int start = 0;
        for (int k = 0; k < line.n; ++k) {
          sum += double(input(k));
          const int c = code[k];
          if (c == kJoined) continue;
          const double right =
              c == kCut ? 0.0 : double(tw[line.weight(per_edge, k)]) * (c == kJumpUp ? 1.0 : -1.0);
          const T z = T(sum + (right - left)) / T(k + 1 - start);
          for (; start <= k; ++start)
            state[line.base + start * line.stride] = last ? z : input(start) - z;
          left = right;
          sum = 0;
        }
      });
      __syncthreads();
    }
    move_pixels(
        t, image, [&](int p, std::int64_t) -> T { return state[p]; },
        [&](int, std::int64_t at, T value) { op.out[first + at] = value; });
    __syncthreads();
  }
}

// As dykstra_pull below. After each pass the adjoint of its state is zero, so that of the other
// axis is the only one.
template <class D, class T = Compute<D>>
__global__ void __launch_bounds__(kImageThreads, 2)
    image_pull(ImageTiling t, ImageMap<D> op, T* gw0, T* gw1) {
  Arena arena;
  const Shared<T> total = arena.take<T>(t.elements());
  const Shared<T> state = arena.take<T>(t.elements());
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(t.elements());
  for (std::int64_t index = blockIdx.x; index < t.tiles; index += gridDim.x) {
    const Image image(t, index);
    const std::int64_t first = image.batch * op.size;
    move_pixels(
        t, image, [&](int, std::int64_t at) -> T { return op.in[first + at]; },
        [&](int p, std::int64_t, T value) { state[p] = value; });
    for (int pass = op.passes - 1; pass >= 0; --pass) {
      const bool odd = pass & 1, last = pass + 1 == op.passes, fresh = pass + 2 >= op.passes;
      if (last || pass % 4 == 3) {
        const std::uint8_t* plane = op.plane(image, pass);
        move_pixels(
            t, image, [&](int, std::int64_t at) { return plane[at]; },
            [&](int p, std::int64_t, std::uint8_t value) { codes[p] = value; });
        __syncthreads();
      }
      T* gw = odd ? gw1 : gw0;
      const bool per_edge = odd ? op.per_edge[1] : op.per_edge[0];
      for_lines(t, image, odd == (t.lead == 1), [&](const Line& line) {
        const Codes code{codes + line.base, line.stride, 2 * (pass % 4), line.n};
        double sum = 0, slopes = 0, before = 0;  // before: the mean of the segment before
        int start = 0, entry = kCut;             // entry: code of the edge before the segment
        for (int k = 0; k < line.n; ++k) {
          const T g = state[line.base + k * line.stride];
          sum += last ? double(g) : -double(g);
          const int c = code[k];
          if (per_edge && fresh && c == kJoined) gw[line.weight(true, k)] = T(0);
          if (c == kJoined) continue;
          const T mean = T(sum) / T(k + 1 - start);
          const double jump = double(mean) - before;
          const double slope = entry == kJumpUp ? -jump : (entry == kJumpDown ? jump : 0.0);
          if (!per_edge) {
            slopes += slope;
          } else if (start > 0) {
            T* to = gw + line.weight(true, start - 1);
            *to = T(fresh ? slope : double(*to) + slope);
          }
          for (; start <= k; ++start) {
            const int p = line.base + start * line.stride;
            const T b = last ? mean : mean + T(state[p]);
            total[p] = last ? b : T(total[p]) + b;
            state[p] = -b;
          }
          before = double(mean);
          entry = c;
          sum = 0;
        }
        if (!per_edge) gw[line.signal] = T(fresh ? slopes : double(gw[line.signal]) + slopes);
      });
      __syncthreads();
    }
    move_pixels(
        t, image, [&](int p, std::int64_t) -> T { return total[p]; },
        [&](int, std::int64_t at, T value) { op.out[first + at] = value; });
    __syncthreads();
  }
}

template <class T>
constexpr std::size_t kImageBytes = 2 * sizeof(T) + 1;

// ---- pass by pass ----

template <class T>
std::int64_t link_bytes(const Iteration& it) {
  std::int64_t most = 0;
  for (int a = 0; a < it.axes; ++a) most = max_of(most, segment_workspace<T>(it.shapes[a]));
  return most;
}

// The edges of a pass, from the masks.
template <class T>
Edges<T> edges_of(const Iteration& it, const std::uint8_t* mask, std::int64_t pass) {
  return {nullptr,
          nullptr,
          false,
          mask + pass / 4 * it.size,
          int(2 * (pass % 4)),
          it.planes() * it.size};
}

// The states p_i lie in the workspace, behind what the segment kernels need. A single axis has
// none; half types add up gx behind them.
template <class T>
struct States {
  T* first;
  std::int64_t stride;
  States(const Iteration& it, void* workspace)
      : first(reinterpret_cast<T*>(static_cast<char*>(workspace) + link_bytes<T>(it))),
        stride(it.batch * it.size) {}
  T* operator[](int axis) const { return first + axis * stride; }
};

}  // namespace

template <class D>
std::int64_t dykstra_derivative_workspace(const Iteration& it) {
  using T = Compute<D>;
  if (image_tiling_of(it, kImageBytes<T>).tiles > 0) return 0;
  const std::int64_t arrays = it.axes == 1 ? 0 : it.axes + (kHalf<D> ? 1 : 0);
  return link_bytes<T>(it) + arrays * it.batch * it.size * std::int64_t(sizeof(T));
}

// With a = tx - sum_{j != i} p_j, the pass on axis i does z = P(a - D^T(s tw)), p_i = a - z.
template <class D>
Status dykstra_push(cudaStream_t stream, const Iteration& it, const std::uint8_t* mask, const D* tx,
                    const PerAxis<const Compute<D>>& tw, D* ty, void* workspace) {
  using T = Compute<D>;
  if (it.batch == 0 || it.size == 0) return nullptr;
  const ImageTiling image = image_tiling_of(it, kImageBytes<T>);
  if (image.tiles > 0) {
    const ImageMap<D> op{mask, tx, ty, it.size, int(it.passes()), {tw.per_edge[0], tw.per_edge[1]}};
    return launch("image_push", image_push<D>, image.tiles, image.threads(),
                  image.elements() * kImageBytes<T>, stream, image, op, tw.data[0], tw.data[1]);
  }
  const States<T> states(it, workspace);
  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    if (it.axes == 1 && !last) continue;  // no later pass reads its state
    Push<D> op{edges_of<T>(it, mask, pass), tx, tw.data[axis], tw.per_edge[axis],
               last ? ty : nullptr};
    for (int j = 0; j < it.axes; ++j)  // a state that has no value yet is zero
      if (j != axis && (pass >= it.axes || j < axis)) op.minus.data[op.minus.count++] = states[j];
    op.residual = last ? nullptr : states[axis];
    if (Status bad = segment_push(stream, it.shapes[axis], op, workspace)) return bad;
  }
  return nullptr;
}

// The adjoint, passes in reverse:
//   c = P([last] g - gp_i);  gw_i -= s Dc;  b = c + gp_i;  gp_i = 0;  gx += b;  gp_j -= b.
template <class D>
Status dykstra_pull(cudaStream_t stream, const Iteration& it, const std::uint8_t* mask, const D* g,
                    D* gx, const PerAxis<Compute<D>>& gw, void* workspace) {
  using T = Compute<D>;
  if (it.batch == 0) return nullptr;
  if (it.size == 0) {  // of an axis without samples the gradient is zero, not empty
    for (int a = 0; a < it.axes; ++a) {
      const Shape& s = it.shapes[a];
      if (s.n != 0) continue;
      if (Status bad = launch("fill_zero", fill_zero<T>, (s.signals() + 255) / 256, kFillThreads, 0,
                              stream, gw.data[a], s.signals()))
        return bad;
    }
    return nullptr;
  }
  const ImageTiling image = image_tiling_of(it, kImageBytes<T>);
  if (image.tiles > 0) {
    const ImageMap<D> op{mask, g, gx, it.size, int(it.passes()), {gw.per_edge[0], gw.per_edge[1]}};
    return launch("image_pull", image_pull<D>, image.tiles, image.threads(),
                  image.elements() * kImageBytes<T>, stream, image, op, gw.data[0], gw.data[1]);
  }
  const States<T> states(it, workspace);
  unsigned opened = 0;  // bit i: gp_i has a value, else it is zero
  for (std::int64_t pass = it.passes(); pass-- > 0;) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    if (!last && !(opened >> axis & 1)) continue;  // c = b = 0: a single axis, before its last pass
    Pull<D> op{edges_of<T>(it, mask, pass), last ? g : nullptr,          gx, gw.data[axis],
               gw.per_edge[axis],           pass < it.passes() - it.axes};
    if constexpr (kHalf<D>) {
      if (it.axes > 1) op.sum = states[it.axes];
      if (it.axes > 1 && pass > 0) op.gx = nullptr;
    } else {
      op.sum = gx;
      op.gx = nullptr;
    }
    op.own = opened >> axis & 1 ? states[axis] : nullptr;
    op.add = !last;
    opened &= ~(1u << axis);
    for (int j = 0; j < it.axes; ++j) {
      if (j == axis || !(pass >= it.axes || j < axis)) continue;  // no earlier pass reads gp_j
      op.opened |= (opened >> j & 1) << op.others.count;
      op.others.data[op.others.count++] = states[j];
      opened |= 1u << j;
    }
    if (Status bad = segment_pull(stream, it.shapes[axis], op, workspace)) return bad;
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(D)                                                                      \
  template std::int64_t dykstra_derivative_workspace<D>(const Iteration&);                        \
  template Status dykstra_push(cudaStream_t, const Iteration&, const std::uint8_t*, const D*,     \
                               const PerAxis<const Compute<D>>&, D*, void*);                      \
  template Status dykstra_pull(cudaStream_t, const Iteration&, const std::uint8_t*, const D*, D*, \
                               const PerAxis<Compute<D>>&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)
JAXTV_INSTANTIATE(BFloat16)
JAXTV_INSTANTIATE(Float16)

}  // namespace jaxtv::cuda
