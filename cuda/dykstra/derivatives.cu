// JVP and VJP of the unrolled Dykstra iteration: equations (8) and (9) of docs/concepts.md, "The
// adjoint of Dykstra's iteration", whose names are used here. An image that fits in shared memory
// stays there for all passes, in one launch. Otherwise each pass is one call of the segment
// kernels, which also update the states.
#include "dykstra/image.cuh"
#include "half.cuh"
#include "scratch.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

// ---- all passes of an image in shared memory ----

template <class Sample>
struct ImageDerivative {
  const std::uint8_t* codes;
  const Sample* in;   // tx or g
  Sample* out;        // ty or gx
  std::int64_t size;  // of a batch element
  int passes;
  bool per_edge[2];

  // The bytes with the codes of a pass, of one batch element.
  JAXTV_DEVICE const std::uint8_t* codes_of(const Image& image, int pass) const {
    return codes + (image.batch * code_bytes(passes) + code_byte(pass)) * size;
  }
};

// The codes of one signal.
struct LineCodes {
  Shared<std::uint8_t> bytes;
  int stride, shift, n;
  // Of the edge after sample k.
  JAXTV_DEVICE int operator[](int k) const {
    return k + 1 < n ? std::uint8_t(bytes[k * stride]) >> shift & kCodeMask : kSeparate;
  }
};

// A block owns an image of a few channels, a thread some lines of it in every pass.
// Reads tx and the codes once, the weights' tangents in every pass.
// Writes ty once.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kImageThreads,
                                  tuning::ImageInSharedMemory::kBlocksPerMultiprocessor)
    image_jvp(ImageTiling tiling, ImageDerivative<Sample> op, const T* tw0, const T* tw1) {
  Arena arena;
  const Shared<T> tx = arena.take<T>(tiling.elements());
  const Shared<T> state = arena.take<T>(tiling.elements());  // tp of the other axis; at last ty
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(tiling.elements());
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Image image(tiling, index);
    const std::int64_t first = image.batch * op.size;
    move_pixels(
        tiling, image, [&](int, std::int64_t offset) -> T { return op.in[first + offset]; },
        [&](int p, std::int64_t, T value) { tx[p] = value; });
    for (int pass = 0; pass < op.passes; ++pass) {
      const bool odd = pass & 1, last = pass + 1 == op.passes, has_state = pass > 0;
      if (pass % kPassesPerByte == 0) {
        const std::uint8_t* bytes = op.codes_of(image, pass);
        move_pixels(
            tiling, image, [&](int, std::int64_t offset) { return bytes[offset]; },
            [&](int p, std::int64_t, std::uint8_t value) { codes[p] = value; });
        __syncthreads();
      }
      const T* tw = odd ? tw1 : tw0;
      const bool per_edge = odd ? op.per_edge[1] : op.per_edge[0];
      for_lines(tiling, image, odd == (tiling.row_axis == 1), [&](const Line& line) {
        const LineCodes code{codes + line.base, line.stride, code_shift(pass), line.n};
        const auto input = [&](int k) -> T {
          const int p = line.base + k * line.stride;
          const T v = tx[p];
          return has_state ? v - T(state[p]) : v;
        };
        double sum = 0, left = 0;  // left: s tw of the edge before the segment
        int start = 0;
        for (int k = 0; k < line.n; ++k) {
          sum += double(input(k));
          const int c = code[k];
          if (c == kInside) continue;
          const double right =
              c == kSeparate ? 0.0
                             : double(tw[line.weight(per_edge, k)]) * (c == kJumpUp ? 1.0 : -1.0);
          const T mean = T(sum + (right - left)) / T(k + 1 - start);
          for (; start <= k; ++start)
            state[line.base + start * line.stride] = last ? mean : input(start) - mean;
          left = right;
          sum = 0;
        }
      });
      __syncthreads();
    }
    move_pixels(
        tiling, image, [&](int p, std::int64_t) -> T { return state[p]; },
        [&](int, std::int64_t offset, T value) { op.out[first + offset] = value; });
    __syncthreads();
  }
}

// A block owns an image of a few channels, a thread some lines of it in every pass. After a pass gp
// of its axis is zero, so that of the other axis is the only one.
// Reads g and the codes once.
// Writes gx once; adds to the weights' cotangents in every pass.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kImageThreads,
                                  tuning::ImageInSharedMemory::kBlocksPerMultiprocessor)
    image_vjp(ImageTiling tiling, ImageDerivative<Sample> op, T* gw0, T* gw1) {
  Arena arena;
  const Shared<T> gx = arena.take<T>(tiling.elements());
  const Shared<T> gp = arena.take<T>(tiling.elements());  // at first g
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(tiling.elements());
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Image image(tiling, index);
    const std::int64_t first = image.batch * op.size;
    move_pixels(
        tiling, image, [&](int, std::int64_t offset) -> T { return op.in[first + offset]; },
        [&](int p, std::int64_t, T value) { gp[p] = value; });
    for (int pass = op.passes - 1; pass >= 0; --pass) {
      const bool odd = pass & 1, last = pass + 1 == op.passes;
      const bool gw_is_new = pass + 2 >= op.passes;
      if (last || pass % kPassesPerByte == kPassesPerByte - 1) {
        const std::uint8_t* bytes = op.codes_of(image, pass);
        move_pixels(
            tiling, image, [&](int, std::int64_t offset) { return bytes[offset]; },
            [&](int p, std::int64_t, std::uint8_t value) { codes[p] = value; });
        __syncthreads();
      }
      T* gw = odd ? gw1 : gw0;
      const bool per_edge = odd ? op.per_edge[1] : op.per_edge[0];
      for_lines(tiling, image, odd == (tiling.row_axis == 1), [&](const Line& line) {
        const LineCodes code{codes + line.base, line.stride, code_shift(pass), line.n};
        double sum = 0, slopes = 0, before = 0;  // before: the mean of the segment before
        int start = 0, entry = kSeparate;        // entry: code of the edge before the segment
        for (int k = 0; k < line.n; ++k) {
          const T g = gp[line.base + k * line.stride];
          sum += last ? double(g) : -double(g);
          const int c = code[k];
          if (per_edge && gw_is_new && c == kInside) gw[line.weight(true, k)] = T(0);
          if (c == kInside) continue;
          const T mean = T(sum) / T(k + 1 - start);
          const double jump = double(mean) - before;
          const double slope = entry == kJumpUp ? -jump : (entry == kJumpDown ? jump : 0.0);
          if (!per_edge) {
            slopes += slope;
          } else if (start > 0) {
            T* to = gw + line.weight(true, start - 1);
            *to = T(gw_is_new ? slope : double(*to) + slope);
          }
          for (; start <= k; ++start) {
            const int p = line.base + start * line.stride;
            const T b = last ? mean : mean + T(gp[p]);
            gx[p] = last ? b : T(gx[p]) + b;
            gp[p] = -b;
          }
          before = double(mean);
          entry = c;
          sum = 0;
        }
        if (!per_edge) gw[line.signal] = T(gw_is_new ? slopes : double(gw[line.signal]) + slopes);
      });
      __syncthreads();
    }
    move_pixels(
        tiling, image, [&](int p, std::int64_t) -> T { return gx[p]; },
        [&](int, std::int64_t offset, T value) { op.out[first + offset] = value; });
    __syncthreads();
  }
}

// ---- pass by pass ----

// The edges of a pass, from the codes.
template <class T>
SegmentEdges<T> edges_of(const Iteration& it, const std::uint8_t* codes, std::int64_t pass) {
  return {.y = nullptr,
          .weights = nullptr,
          .weight_per_edge = false,
          .codes = codes + code_byte(pass) * it.size,
          .code_shift = code_shift(pass),
          .code_stride = it.bytes_per_sample() * it.size};
}

// The arrays of the states lie in scratch, after what the segment kernels need. A single axis has
// none. Half types add up gx in one more.
template <class T>
struct States {
  T* first;
  std::int64_t size;
  States(const Iteration& it, void* scratch)
      : first(reinterpret_cast<T*>(static_cast<char*>(scratch) + segment_pass_scratch<T>(it))),
        size(it.batch * it.size) {}
  T* operator[](int axis) const { return first + axis * size; }
};

}  // namespace

template <class Sample>
Status dykstra_jvp(cudaStream_t stream, const Iteration& it, const std::uint8_t* codes,
                   const Sample* tx, const PerAxis<const Compute<Sample>>& tw, Sample* ty,
                   void* scratch) {
  using T = Compute<Sample>;
  if (it.batch == 0 || it.size == 0) return nullptr;
  const ImageTiling image = image_tiles(it, kImageDerivativeBytes<T>, max_shared());
  if (image.tiles > 0) {
    const ImageDerivative<Sample> op{.codes = codes,
                                     .in = tx,
                                     .out = ty,
                                     .size = it.size,
                                     .passes = int(it.passes()),
                                     .per_edge = {tw.per_edge[0], tw.per_edge[1]}};
    return launch("image_jvp", image_jvp<Sample>, image.tiles, image.threads(),
                  image.elements() * kImageDerivativeBytes<T>, stream, image, op, tw.data[0],
                  tw.data[1]);
  }
  const States<T> states(it, scratch);
  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    if (it.axes == 1 && !last) continue;  // no later pass reads its state
    SegmentJvp<Sample> op{.edges = edges_of<T>(it, codes, pass),
                          .tx = tx,
                          .tw = tw.data[axis],
                          .tw_per_edge = tw.per_edge[axis],
                          .ty = last ? ty : nullptr,
                          .tp = last ? nullptr : states[axis]};
    for (int j = 0; j < it.axes; ++j)  // a state that has no value yet is zero
      if (j != axis && (pass >= it.axes || j < axis))
        op.other_tp.data[op.other_tp.count++] = states[j];
    if (Status bad = segment_jvp(stream, it.shapes[axis], op, scratch)) return bad;
  }
  return nullptr;
}

template <class Sample>
Status dykstra_vjp(cudaStream_t stream, const Iteration& it, const std::uint8_t* codes,
                   const Sample* g, Sample* gx, const PerAxis<Compute<Sample>>& gw, void* scratch) {
  using T = Compute<Sample>;
  if (it.batch == 0 || it.size == 0) return nullptr;
  const ImageTiling image = image_tiles(it, kImageDerivativeBytes<T>, max_shared());
  if (image.tiles > 0) {
    const ImageDerivative<Sample> op{.codes = codes,
                                     .in = g,
                                     .out = gx,
                                     .size = it.size,
                                     .passes = int(it.passes()),
                                     .per_edge = {gw.per_edge[0], gw.per_edge[1]}};
    return launch("image_vjp", image_vjp<Sample>, image.tiles, image.threads(),
                  image.elements() * kImageDerivativeBytes<T>, stream, image, op, gw.data[0],
                  gw.data[1]);
  }
  const States<T> states(it, scratch);
  unsigned in_use = 0;  // bit i: gp_i has a value, else it is zero
  for (std::int64_t pass = it.passes(); pass-- > 0;) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    const bool has_gp = in_use >> axis & 1;
    if (!last && !has_gp) continue;  // c = b = 0: a single axis, before its last pass
    SegmentVjp<Sample> op{.edges = edges_of<T>(it, codes, pass),
                          .g = last ? g : nullptr,
                          .gx = gx,
                          .gw = gw.data[axis],
                          .gw_per_edge = gw.per_edge[axis],
                          .add_to_gw = pass < it.passes() - it.axes,
                          .gp = has_gp ? states[axis] : nullptr,
                          .add_to_gx_sum = !last};
    if constexpr (kHalf<Sample>) {
      if (it.axes > 1) op.gx_sum = states[it.axes];
      if (it.axes > 1 && pass > 0) op.gx = nullptr;
    } else {
      op.gx_sum = gx;
      op.gx = nullptr;
    }
    in_use &= ~(1u << axis);
    for (int j = 0; j < it.axes; ++j) {
      if (j == axis || !(pass >= it.axes || j < axis)) continue;  // no earlier pass reads gp_j
      op.other_gp_in_use |= (in_use >> j & 1) << op.other_gp.count;
      op.other_gp.data[op.other_gp.count++] = states[j];
      in_use |= 1u << j;
    }
    if (Status bad = segment_vjp(stream, it.shapes[axis], op, scratch)) return bad;
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(Sample)                                                                 \
  template Status dykstra_jvp(cudaStream_t, const Iteration&, const std::uint8_t*, const Sample*, \
                              const PerAxis<const Compute<Sample>>&, Sample*, void*);             \
  template Status dykstra_vjp(cudaStream_t, const Iteration&, const std::uint8_t*, const Sample*, \
                              Sample*, const PerAxis<Compute<Sample>>&, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
