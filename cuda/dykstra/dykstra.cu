// Proximal Dykstra. An image that fits in shared memory stays there for all its sweeps, in one
// launch. Otherwise one launch per pass: by tiles of whole signals, one thread per signal; and by
// the 1D kernels (prox1d.hpp) for long signals and projected Newton. Samples near the end of their
// type are solved at a smaller size (jaxtv/overflow.hpp): images by themselves, else elements of
// the batch.
//
// A pass on axis i is  A = X - sum_{j != i} p_j,  Z = prox(A),  p_i = A - Z.  With two axes the one
// state needed is that of the other axis, and p_i can take its place.
#include "block/tiles.cuh"
#include "dykstra/image.cuh"
#include "half.cuh"
#include "jaxtv/overflow.hpp"
#include "prox1d/thread_per_signal.cuh"
#include "scratch.hpp"
#include "segments/segments.hpp"

namespace jaxtv::cuda {
namespace {

constexpr int kPassThreads = tuning::DykstraPass::kBlockThreads;
constexpr int kRows = tuning::RowsPerRound::kDykstra;

// ---- one pass ----

template <class Sample, class T = Compute<Sample>>
struct Pass {
  const Sample* x;
  OtherStates<const T> other_states;
  const T* w;
  bool per_edge;                  // w: n - 1 per signal, or 1
  Sample* y;                      // null where not wanted, as the next two
  T* state;                       // p of this axis
  std::uint8_t* codes;            // of the first batch element
  int code_shift;                 // of this pass in a byte
  std::int64_t code_stride;       // bytes from the codes of one batch element to those of the next
  const std::uint8_t* overflows;  // of each batch element: whether it is solved at a smaller size

  JAXTV_DEVICE DykstraScaling<T> scaling_of(std::int64_t element) const {
    return DykstraScaling<T>(overflows[element] != 0);
  }
  // A, at `offset`.
  JAXTV_DEVICE T input(const DykstraScaling<T>& scaling, std::int64_t offset) const {
    T a = scaling.sample(x[offset]);
    for (int j = 0; j < other_states.count; ++j) a -= other_states.data[j][offset];
    return a;
  }
  JAXTV_DEVICE void put_code(std::int64_t offset, EdgeCode code) const {
    codes[offset] = std::uint8_t(code_shift == 0 ? code : codes[offset] | code << code_shift);
  }
};

// A block owns a tile of whole signals; a thread solves one signal, in its column of the tile.
// Reads X and the states of the other axes, by all threads, coalesced.
// Writes the state of this axis, or y after the last pass; and the codes.
template <class Sample, bool kPerEdge>
__global__ void __launch_bounds__(kPassThreads, tuning::DykstraPass::kBlocksPerMultiprocessor)
    pass_of_tiles(Tiling tiling, Pass<Sample> op) {
  using T = Compute<Sample>;
  Arena arena;
  const Shared<T> values = arena.take<T>(tiling.elements());
  const Shared<T> weights = arena.take<T>(kPerEdge ? tiling.elements() : 0);
  const Cuts cuts(arena, tiling.elements());
  const Shape& shape = tiling.shape;
  const auto weight_of = [&](int k, std::int64_t outer, std::int64_t inner) {
    return op.w[kPerEdge ? (outer * (shape.n - 1) + k) * shape.inner + inner
                         : outer * shape.inner + inner];
  };
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Tile tile(tiling, std::uint32_t(index));
    const DykstraScaling<T> scaling = op.scaling_of(tile.batch);
    for_samples(tiling, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      values[k * tiling.pitch + lane] =
          op.input(scaling, (outer * shape.n + k) * shape.inner + inner);
      if (kPerEdge && k + 1 < shape.n)
        weights[k * tiling.pitch + lane] = scaling.weight(weight_of(k, outer, inner));
    });
    cuts.clear();
    __syncthreads();
    const int lane = threadIdx.x;
    if (lane < tiling.lanes() && tile.inside(tiling, lane)) {
      const Column<T> column{values + lane, tiling.pitch};
      const Column<signed char> column_cuts{cuts.each + lane, tiling.pitch};
      const int n = int(shape.n);
      const auto reload = [&] {
        const std::int64_t first =
            tile.outer * shape.n * shape.inner + tile.inner + tile.offset(tiling, lane);
        for (int k = 0; k < n; ++k) column[k] = op.input(scaling, first + k * shape.inner);
      };
      if constexpr (kPerEdge)
        solve_column<T, kRows>(n, column, Column<T>{weights + lane, tiling.pitch}, column_cuts,
                               reload);
      else
        solve_column<T, kRows>(n, column,
                               Uniform<T>{scaling.weight(op.w[tile.signal(tiling, lane)])},
                               column_cuts, reload);
    }
    __syncthreads();
    for_samples(tiling, tile, [&](int k, int lane, std::int64_t outer, std::int64_t inner) {
      const std::int64_t offset = (outer * shape.n + k) * shape.inner + inner;
      const T z = values[k * tiling.pitch + lane];
      if (op.state) op.state[offset] = op.input(scaling, offset) - z;
      if (op.y) op.y[offset] = scaling.result(z, op.x[offset]);
      if (!op.codes) return;
      const std::int64_t in_element = offset - tile.batch * shape.outer * shape.n * shape.inner;
      const EdgeCode code = k + 1 == shape.n
                                ? kSeparate
                                : edge_code(z, T(values[(k + 1) * tiling.pitch + lane]),
                                            [&] { return weight_of(k, outer, inner) > T(0); });
      op.put_code(tile.batch * op.code_stride + in_element, code);
    });
    __syncthreads();  // the next tile overwrites shared memory
  }
}

// ---- a pass by the 1D kernels, and what is around it ----

// `batch` elements of `size` samples or weights, each of them in parts: a block's work.
struct Elements {
  static constexpr int kPart = tuning::DykstraPass::kThreadSamples * kPassThreads;
  std::int64_t batch, size;
  JAXTV_HD std::int64_t parts() const { return (size + kPart - 1) / kPart; }
  std::int64_t blocks() const { return batch * parts(); }
};

// Calls f(element, offset in the array) for all of them.
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

// A thread owns some batch elements.
// Reads nothing.
// Writes 0 to the flag of each.
__global__ void __launch_bounds__(kPassThreads)
    clear_overflows(std::int64_t batch, std::uint8_t* overflows) {
  const std::int64_t step = std::int64_t(gridDim.x) * kPassThreads;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kPassThreads + threadIdx.x; i < batch; i += step)
    overflows[i] = 0;
}

// In this and the next four kernels a block owns a part of a batch element.
// Reads x.
// Writes 1 to the flag of an element with a large sample: threads that find one write the same.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kPassThreads)
    find_overflows(Elements e, const Sample* x, std::uint8_t* overflows) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    if (abs_of(T(x[i])) > kDykstraLimit<T>) overflows[element] = 1;
  });
}

// Reads weights and flags.
// Writes the weights at the size that their element is solved at.
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    scale_weights(Elements e, const T* w, const std::uint8_t* overflows, T* out) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    out[i] = DykstraScaling<T>(overflows[element] != 0).weight(w[i]);
  });
}

// Reads X and the other states.
// Writes A, their difference.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kPassThreads) make_input(Elements e, Pass<Sample> op, T* a) {
  for_all(
      e, [&](std::int64_t element, std::int64_t i) { a[i] = op.input(op.scaling_of(element), i); });
}

// Reads A, and Z that the 1D kernels have made of it.
// Writes the state, which may be A, and the codes.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kPassThreads)
    update_state(Elements e, Shape shape, Pass<Sample> op, const T* a, const T* z) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    const T here = z[i];
    if (op.state) op.state[i] = a[i] - here;
    if (!op.codes) return;
    const std::int64_t row = i / shape.inner, outer = row / shape.n, k = row - outer * shape.n;
    EdgeCode code = kSeparate;
    if (k + 1 < shape.n)
      code = edge_code(here, z[i + shape.inner], [&] {
        const std::int64_t inner = i - row * shape.inner;
        return op.w[(op.per_edge ? outer * (shape.n - 1) + k : outer) * shape.inner + inner] > T(0);
      });
    op.put_code(element * op.code_stride + i - element * e.size, code);
  });
}

// Reads Z.
// Writes y of it, which may be Z itself: then the codes have been made of it before.
template <class Sample, class T = Compute<Sample>>
__global__ void __launch_bounds__(kPassThreads)
    write_result(Elements e, Pass<Sample> op, const T* z) {
  for_all(e, [&](std::int64_t element, std::int64_t i) {
    const DykstraScaling<T> scaling = op.scaling_of(element);
    if (kHalf<Sample> || !scaling.unchanged()) op.y[i] = scaling.result(z[i], op.x[i]);
  });
}

// ---- all sweeps of an image in shared memory ----

template <class Sample>
struct ImageIteration {
  const Sample* x;
  const Compute<Sample>* w[2];
  bool per_edge[2];
  bool taut_string;   // try it before the decomposition
  std::int64_t size;  // of a batch element
  int passes;
  Sample* y;
  std::uint8_t* codes;  // null where not wanted
};

// Weights in global memory at the size of the image; one for all edges where the stride is 0.
template <class T>
struct WeightsInMemory {
  const T* data;
  std::int64_t stride;
  DykstraScaling<T> scaling;
  JAXTV_DEVICE T operator[](int e) const { return scaling.weight(data[e * stride]); }
};
template <class T, class Index>
JAXTV_DEVICE bool valid_weights(Index n, const WeightsInMemory<T>& w) {
  bool valid = n > 1 || w[0] >= T(0);
  for (Index e = 0; e + 1 < n; ++e) valid &= w[e] >= T(0);
  return valid;
}

// The same by the element of the sample before the edge, as jaxtv/certificate.hpp has them.
struct WeightsByElement {
  WeightsInMemory<float> w;
  Divider by_step;
  JAXTV_DEVICE float operator[](int element) const {
    return w[int(by_step.div(std::uint32_t(element)))];
  }
};
JAXTV_DEVICE float by_element(const Uniform<float>& w, const Divider&) { return w.value; }
JAXTV_DEVICE WeightsByElement by_element(const WeightsInMemory<float>& w, const Divider& by_step) {
  return {w, by_step};
}

// One pass on one line: `a` becomes p = A - Z, in the last pass Z itself. Calls put(k, code) for
// the edges after the samples.
template <class T, class Weights, class Put>
JAXTV_DEVICE void solve_line(int n, Column<T> a, Weights w, Column<signed char> cuts,
                             bool taut_string, bool last, Put put) {
  const double factor = prox_cuts<T>(n, a, w, cuts, taut_string);
  if (factor == 0) {
    for (int k = 0; k < n; ++k) {
      a[k] = kNaN<T>;
      put(k, kSeparate);
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
        put(k - 1, edge_code(before, z, [&] { return bound > T(0); }));
      before = z;
      bound = next;
    }
    put(end, end + 1 == n ? kSeparate : edge_code(before, right, [&] { return bound > T(0); }));
    right = first;
  });
}

// The same in float32 where that can tell the solution; false, and `a` is as it was, where it
// cannot. `values` is scratch. Each loop goes through the line once, whatever its segments are: the
// threads of a warp stay together.
template <class Weights, class Put>
JAXTV_DEVICE bool certified_line(int n, Column<float> a, Shared<float> values, Weights w,
                                 const Divider& by_step, Shared<signed char> cuts,
                                 bool& taut_string, bool last, bool with_codes, Put put) {
  const int step = a.pitch;
  if (!certified_cuts<kRows>(n, step, a.data, by_element(w, by_step), cuts, values, taut_string))
    return false;
  const auto write = [&](auto result) {
    Shared<float> sample = a.data, start = values;
    Shared<signed char> cut = cuts;
    float value = start[0];
    sample[0] = result(sample[0], value);
#pragma unroll 4
    for (int k = 1; k < n; ++k) {
      sample = sample + step;
      start = start + step;
      if (cut[0] != 0) value = start[0];
      sample[0] = result(sample[0], value);
      cut = cut + step;
    }
  };
  if (last)
    write([](float, float value) { return value; });
  else
    write([](float sample, float value) { return sample - value; });
  if (!with_codes) return true;
  float before = values[0];
  for (int k = 0; k + 1 < n; ++k) {
    EdgeCode code = kInside;
    if (cuts[k * step] != 0) {
      const float value = values[(k + 1) * step];
      code = edge_code(before, value, [&] { return w[k] > 0; });
      before = value;
    }
    put(k, code);
  }
  put(n - 1, kSeparate);
  return true;
}

// A block owns an image of a few channels, a thread some lines of it in every pass. The input of a
// pass takes the place of the state of the pass before: X stays in global memory, where the cache
// has it, and there is room for more images in shared memory. `values` is for certified_line, which
// is for float32 alone.
// Reads X and weights in every pass.
// Writes y once, and the codes after every fourth pass.
template <class Sample, bool kPerEdge>
__global__ void __launch_bounds__(kImageThreads,
                                  tuning::ImageInSharedMemory::kBlocksPerMultiprocessor)
    image_dykstra(ImageTiling tiling, ImageIteration<Sample> op) {
  using T = Compute<Sample>;
  constexpr bool kFloat = sizeof(T) == 4;
  Arena arena;
  const Shared<T> state = arena.take<T>(tiling.elements());  // A, then p; at last the result
  const Shared<T> values = arena.take<T>(kFloat ? tiling.elements() : 0);
  const Cuts cuts(arena, tiling.elements());
  const Shared<std::uint8_t> codes = arena.take<std::uint8_t>(op.codes ? tiling.elements() : 0);
  for (std::int64_t index = blockIdx.x; index < tiling.tiles; index += gridDim.x) {
    const Image image(tiling, index);
    const Sample* x = op.x + image.batch * op.size;
    const auto sample_at = [&](int, std::int64_t offset) -> T { return x[offset]; };
    bool overflow = false;
    move_pixels(tiling, image, sample_at, [&](int p, std::int64_t, T sample) {
      state[p] = sample;
      overflow |= abs_of(sample) > kDykstraLimit<T>;
    });
    cuts.clear();
    const DykstraScaling<T> scaling(__syncthreads_or(overflow));
    for (int pass = 0; pass < op.passes; ++pass) {
      const int shift = code_shift(pass);
      const bool odd = pass & 1, last = pass + 1 == op.passes;
      if (pass > 0 || !scaling.unchanged()) {
        move_pixels(tiling, image, sample_at, [&](int p, std::int64_t, T sample) {
          state[p] = scaling.sample(sample) - (pass > 0 ? T(state[p]) : T(0));
        });
        cuts.clear();
        __syncthreads();
      }
      const T* w = odd ? op.w[1] : op.w[0];  // selected: a computed index would cost a stack
      const bool per_edge = kPerEdge && (odd ? op.per_edge[1] : op.per_edge[0]);
      const bool down_rows = odd == (tiling.row_axis == 1);
      for_lines(tiling, image, down_rows, [&](const Line& line) {
        const int base = line.base, stride = line.stride, n = line.n;
        const Column<T> a{state + base, stride};
        const auto put = [&](int k, EdgeCode code) {
          if (!op.codes) return;
          const int p = base + k * stride;
          codes[p] = std::uint8_t(shift == 0 ? code : std::uint8_t(codes[p]) | code << shift);
        };
        const auto solve = [&](auto weights) {
          bool taut_string = op.taut_string;
          if constexpr (kFloat)
            if (taut_string &&
                certified_line(
                    n, a, values + base, weights,
                    down_rows ? Divider(tiling.by_pitch) : Divider(tiling.by_tile_channels),
                    cuts.each + base, taut_string, last, op.codes != nullptr, put))
              return;
          solve_line(n, a, weights, Column<signed char>{cuts.each + base, stride}, taut_string,
                     last, put);
        };
        if constexpr (kPerEdge)
          solve(WeightsInMemory<T>{w + line.weight(per_edge, 0), per_edge ? line.edge_stride : 0,
                                   scaling});
        else
          solve(Uniform<T>{scaling.weight(w[line.signal])});
      });
      __syncthreads();
      if (op.codes && (code_shift(pass + 1) == 0 || last)) {
        std::uint8_t* bytes =
            op.codes + (image.batch * code_bytes(op.passes) + code_byte(pass)) * op.size;
        move_pixels(
            tiling, image, [&](int p, std::int64_t) -> std::uint8_t { return codes[p]; },
            [&](int, std::int64_t offset, std::uint8_t code) { bytes[offset] = code; });
        __syncthreads();
      }
    }
    if (!scaling.unchanged())
      move_pixels(tiling, image, sample_at, [&](int p, std::int64_t, T sample) {
        state[p] = scaling.result(state[p], sample);
      });
    Sample* y = op.y + image.batch * op.size;
    move_pixels(
        tiling, image, [&](int p, std::int64_t) -> T { return state[p]; },
        [&](int, std::int64_t offset, T value) { y[offset] = value; });
    __syncthreads();
  }
}

// ---- launching ----

template <class Sample>
Status run_images(cudaStream_t stream, const ImageTiling& tiling,
                  const ImageIteration<Sample>& op) {
  const bool per_edge = op.per_edge[0] || op.per_edge[1];
  return launch(
      "image_dykstra", per_edge ? image_dykstra<Sample, true> : image_dykstra<Sample, false>,
      tiling.tiles, tiling.threads(),
      tiling.elements() * image_bytes<Compute<Sample>>(op.codes != nullptr), stream, tiling, op);
}

template <class Sample>
Status run_tiles(cudaStream_t stream, const Shape& shape, const Pass<Sample>& op) {
  const int sample_bytes = bytes_per_sample<Compute<Sample>>(op.per_edge);
  Tiling tiling = tiles_of_signals(shape, sample_bytes);
  // More threads than signals: they load and store.
  tiling.threads_per_signal = max_of(tuning::DykstraPass::kFewestTileThreads / tiling.lanes(), 1);
  if (Status bad = check(tiling)) return bad;
  return launch("pass_of_tiles",
                op.per_edge ? pass_of_tiles<Sample, true> : pass_of_tiles<Sample, false>,
                tiling.tiles, tiling.threads(), tiling.elements() * std::size_t(sample_bytes),
                stream, tiling, op);
}

// The arrays of the sweeps in scratch, after those of the 1D kernels.
template <class Sample, class T = Compute<Sample>>
struct PassArrays {
  T* states;                // of each axis
  T* weights;               // of a pass, at the size that it is solved at
  T* z;                     // where the solution of a pass is made: y, for half types a float array
  std::uint8_t* overflows;  // of each batch element

  PassArrays(const Iteration& it, Method inner, Sample* y, void* scratch) {
    const std::int64_t total = it.batch * it.size;
    states = reinterpret_cast<T*>(static_cast<char*>(scratch) + prox_pass_scratch(it, inner));
    weights = states + it.axes * total;
    T* end = weights + total;
    if constexpr (kHalf<Sample>) {
      z = end;
      end += total;
    } else {
      z = y;
    }
    overflows = reinterpret_cast<std::uint8_t*>(end);
  }
};

// A pass by the 1D kernels. `state`: of this axis.
template <class Sample, class T = Compute<Sample>>
Status run_long(cudaStream_t stream, const Shape& shape, const Pass<Sample>& op,
                const Solver& inner, T* state, const PassArrays<Sample>& arrays, void* scratch) {
  const Elements samples{shape.batch, shape.outer * shape.n * shape.inner},
      weights{shape.batch, shape.outer * shape.inner * (op.per_edge ? shape.n - 1 : 1)};
  const auto run = [&](const char* name, auto kernel, const Elements& e, auto... arguments) {
    return launch(name, kernel, e.blocks(), kPassThreads, 0, stream, e, arguments...);
  };
  if (Status bad =
          run("scale_weights", scale_weights<T>, weights, op.w, op.overflows, arrays.weights))
    return bad;
  if (Status bad = run("make_input", make_input<Sample>, samples, op, state)) return bad;
  const Prox<T> prox{.x = state, .w = arrays.weights, .per_edge = op.per_edge, .y = arrays.z};
  if (Status bad = prox1d(stream, shape, prox, inner, scratch)) return bad;
  if (Status bad = run("update_state", update_state<Sample>, samples, shape, op, state, arrays.z))
    return bad;
  return op.y ? run("write_result", write_result<Sample>, samples, op, arrays.z) : nullptr;
}

// Sets the flags of the batch elements that are solved at a smaller size.
template <class Sample>
Status set_overflows(cudaStream_t stream, const Iteration& it, const Sample* x,
                     std::uint8_t* overflows) {
  const Elements elements{it.batch, it.size};
  if (Status bad = launch("clear_overflows", clear_overflows, ceil_div(it.batch, kPassThreads),
                          kPassThreads, 0, stream, it.batch, overflows))
    return bad;
  if (it.axes == 1) return nullptr;  // nothing is summed up
  return launch("find_overflows", find_overflows<Sample>, elements.blocks(), kPassThreads, 0,
                stream, elements, x, overflows);
}

}  // namespace

template <class Sample>
Status dykstra(cudaStream_t stream, const Iteration& it, const Solver& inner, const Sample* x,
               const PerAxis<const Compute<Sample>>& w, Sample* y, std::uint8_t* codes,
               void* scratch) {
  using T = Compute<Sample>;
  const std::int64_t total = it.batch * it.size;
  if (total == 0) return nullptr;
  const ImageTiling images = image_tiles_of<T>(it, inner.method, codes != nullptr, max_shared());
  if (images.tiles > 0)
    return run_images<Sample>(stream, images,
                              {.x = x,
                               .w = {w.data[0], w.data[1]},
                               .per_edge = {w.per_edge[0], w.per_edge[1]},
                               .taut_string = inner.method != Method::kDecomposition,
                               .size = it.size,
                               .passes = int(it.passes()),
                               .y = y,
                               .codes = codes});
  const PassArrays<Sample> arrays(it, inner.method, y, scratch);
  if (Status bad = set_overflows(stream, it, x, arrays.overflows)) return bad;
  for (std::int64_t pass = 0; pass < it.passes(); ++pass) {
    const int axis = int(pass % it.axes);
    const bool last = pass + 1 == it.passes();
    const Shape& shape = it.shapes[axis];
    T* state = arrays.states + axis * total;
    Pass<Sample> op{.x = x,
                    .other_states = {},
                    .w = w.data[axis],
                    .per_edge = w.per_edge[axis],
                    .y = last ? y : nullptr,
                    .state = last ? nullptr : state,
                    .codes = codes ? codes + code_byte(pass) * it.size : nullptr,
                    .code_shift = code_shift(pass),
                    .code_stride = it.bytes_per_sample() * it.size,
                    .overflows = arrays.overflows};
    for (int j = 0; j < it.axes; ++j)  // a state that has no value yet is zero
      if (j != axis && (pass >= it.axes || j < axis))
        op.other_states.data[op.other_states.count++] = arrays.states + j * total;
    if (Status bad = one_thread_per_signal<T>(shape, inner.method, op.per_edge)
                         ? run_tiles(stream, shape, op)
                         : run_long(stream, shape, op, inner, state, arrays, scratch))
      return bad;
  }
  return nullptr;
}

#define JAXTV_INSTANTIATE(Sample)                                                       \
  template Status dykstra(cudaStream_t, const Iteration&, const Solver&, const Sample*, \
                          const PerAxis<const Compute<Sample>>&, Sample*, std::uint8_t*, void*);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
