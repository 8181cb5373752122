// Fast gradient projection: one launch and one pass over memory for each iteration, by which an
// element goes from u and the dual before it to the next one, in a third buffer. Launches depend on
// shapes only. An element stops by itself, and later launches return at once.
//
// The launch that makes the next dual also measures the gap of u, where a test is due. Sums over an
// element come from its blocks; the next launch adds them up, in every block and in the same order.
// So it knows whether u was the solution, in which case the dual made of it is dropped, and else by
// how much to extrapolate. `write_state` does so after the last launch.
#include <cmath>

#include "block/launch.cuh"
#include "block/scan.cuh"
#include "isotropic/isotropic.hpp"
#include "scratch.hpp"

namespace jaxtv::cuda {
namespace {

using Policy = tuning::GradientProjection;
constexpr int kThreads = Policy::kBlockThreads;
using Group = ThreadGroup<kThreads / kWarp>;
using Index = std::uint32_t;

// ---- progress of an element ----

template <class T>
struct Progress {
  T t, beta, gap;
  int status, iterations, next_test, newest;
};
static_assert(2 * sizeof(Progress<double>) == kFgpProgressBytes);

struct Sums {
  double uphill = 0;                            // of the step
  double gap = 0, variation = 0, fidelity = 0;  // of u, where it was tested; fidelity: |x - y|^2
  template <class F>
  JAXTV_DEVICE Sums each(F f) const {
    return {f(uphill), f(gap), f(variation), f(fidelity)};
  }
};
JAXTV_DEVICE Sums join(const Sums& a, const Sums& b) {
  return {a.uphill + b.uphill, a.gap + b.gap, a.variation + b.variation, a.fidelity + b.fidelity};
}
constexpr int kSums = 4;
static_assert(2 * sizeof(Sums) == kFgpSumsBytes);

struct SpatialAxis {
  Index size, stride;
  Divider by_size;
};
struct PixelGrid {
  std::int64_t elements;
  Index channels, count;  // count: pixels of a channel
  int axes;
  SpatialAxis axis[kMaxAxes];
  Index blocks, tiles;  // of an element
  int tile_columns, tile_rows;
  Divider by_tile_columns, by_across, by_down;
};

template <class T>
struct Job {
  PixelGrid grid;
  IsotropicSteps<T> op;
  T step;                 // of the gradient
  Progress<T>* progress;  // two of each element: launches take turns
  double* sums;           // kSums arrays of all blocks, two times

  JAXTV_DEVICE Progress<T>& progress_at(int launch, std::int64_t element) const {
    return progress[(launch & 1) * grid.elements + element];
  }
  // Sum number k of a block in this launch.
  JAXTV_DEVICE double& sum_at(int launch, int k, std::int64_t block) const {
    const std::int64_t all = grid.elements * grid.blocks;
    return sums[((launch & 1) * kSums + k) * all + block];
  }
  // Whether the launch after this progress measures the gap.
  JAXTV_DEVICE bool tests(const Progress<T>& p) const {
    return p.iterations > 0 && (p.iterations >= p.next_test || p.iterations >= op.max_iterations);
  }

  // The progress after a launch that started from `p` and found these sums.
  JAXTV_DEVICE Progress<T> after(Progress<T> p, const Sums& s, int launch) const {
    if (tests(p)) {
      p.gap = T(max_of(s.gap, 0.0));
      const bool converged = double(p.gap) <= op.tol * (s.variation + s.fidelity / 2);
      if (converged || p.iterations >= op.max_iterations) {
        p.status = converged ? kConverged : kUnfinished;
        p.newest = launch % kDualBuffers;
        return p;
      }
      p.next_test = p.iterations + 1 + p.iterations / 16;
    }
    ++p.iterations;
    using std::sqrt;
    const T next = (1 + sqrt(1 + 4 * p.t * p.t)) / 2;
    p.beta = s.uphill > 0 ? T(0) : (p.t - 1) / next;
    p.t = s.uphill > 0 ? T(1) : next;
    return p;
  }

  JAXTV_DEVICE Progress<T> from_state(std::int64_t element) const {
    const int* counts = op.state.counts + element * kCounts;
    const T* reals = op.state.reals + element * kReals;
    return {reals[0], reals[1], reals[2], counts[0], counts[1], counts[2], counts[3]};
  }
  JAXTV_DEVICE void to_state(const Progress<T>& p, std::int64_t element) const {
    int* counts = op.state.counts + element * kCounts;
    T* reals = op.state.reals + element * kReals;
    counts[0] = p.status, counts[1] = p.iterations, counts[2] = p.next_test, counts[3] = p.newest;
    reals[0] = p.t, reals[1] = p.beta, reals[2] = p.gap;
  }

  // The progress before this launch, by all threads of a block.
  JAXTV_DEVICE Progress<T> before(int launch, std::int64_t element) const {
    if (launch == 0) return from_state(element);
    const Progress<T> p = progress_at(launch - 1, element);
    if (p.status != kRunning) return p;
    const std::int64_t first = element * grid.blocks;
    const int count = tests(p) ? kSums : 1;
    Sums sums;
    for (Index b = threadIdx.x; b < grid.blocks; b += kThreads) {
      sums.uphill += sum_at(launch - 1, 0, first + b);
      if (count == 1) continue;
      sums.gap += sum_at(launch - 1, 1, first + b);
      sums.variation += sum_at(launch - 1, 2, first + b);
      sums.fidelity += sum_at(launch - 1, 3, first + b);
    }
    return after(p, Group::total<false>(sums), launch - 1);
  }
};

// ---- pixels ----

// A pixel and its neighbours; bit a: along axis a there is one before it, one after it.
struct Pixel {
  Index at;
  unsigned before, after;
};

// Of the extrapolated dual, and of u; the latter only where u is tested.
template <class T>
struct Pair {
  T point, now;
};

// kAxes, kChannels: 0 where they are known to the launch only.
template <class T, int kAxes, int kChannels>
struct Step {
  const PixelGrid& grid;
  const T *x, *u, *last;
  T* next;
  T beta, step;

  static constexpr int kVectors = kAxes * kChannels;
  static constexpr bool kInRegisters = kVectors > 0;
  JAXTV_DEVICE int axes() const { return kAxes > 0 ? kAxes : grid.axes; }
  JAXTV_DEVICE int channels() const { return kChannels > 0 ? kChannels : int(grid.channels); }
  JAXTV_DEVICE std::int64_t plane(int axis, int channel) const {
    return std::int64_t(axis * channels() + channel) * grid.count;
  }
  JAXTV_DEVICE Index stride(int axis) const {
    return axis + 1 == axes() ? 1 : grid.axis[axis].stride;
  }

  JAXTV_DEVICE Pair<T> dual(std::int64_t i) const {
    const T now = u[i];
    return {now + beta * (now - last[i]), now};
  }
  // y = x - D^T u.
  JAXTV_DEVICE Pair<T> value(int channel, Index at, unsigned before) const {
    const T sample = x[std::int64_t(channel) * grid.count + at];
    Pair<T> y{sample, sample};
#pragma unroll
    for (int a = 0; a < axes(); ++a) {
      const std::int64_t i = plane(a, channel) + at;
      const Pair<T> here = dual(i);
      y.point += here.point, y.now += here.now;
      if (before >> a & 1) {
        const Pair<T> there = dual(i - stride(a));
        y.point -= there.point, y.now -= there.now;
      }
    }
    return y;
  }

  // Writes the next dual of a pixel. Adds to the sums.
  template <bool kTest>
  JAXTV_DEVICE void project(const Pixel& pixel, T w, Sums& sums) const {
    using std::sqrt;
    T stepped[kInRegisters ? kVectors : 1];
    T square = 0, jumps = 0, inner = 0, fidelity = 0;
#pragma unroll
    for (int c = 0; c < channels(); ++c) {
      const Pair<T> y = value(c, pixel.at, pixel.before);
      if constexpr (kTest) {
        const T residual = x[std::int64_t(c) * grid.count + pixel.at] - y.now;
        fidelity += residual * residual;
      }
#pragma unroll
      for (int a = 0; a < axes(); ++a) {
        const std::int64_t i = plane(a, c) + pixel.at;
        const Pair<T> here = dual(i);
        Pair<T> jump{0, 0};
        if (pixel.after >> a & 1) {
          const Pair<T> there = value(c, pixel.at + stride(a), pixel.before | 1u << a);
          jump = {there.point - y.point, there.now - y.now};
        }
        const T v = here.point + step * jump.point;
        square += v * v;
        if constexpr (kTest) jumps += jump.now * jump.now, inner += jump.now * here.now;
        if constexpr (kInRegisters)
          stepped[a * kChannels + c] = v;
        else
          next[i] = v;
      }
    }
    const T norm = sqrt(square), factor = norm > w ? w / norm : T(1);
    T uphill = 0;
#pragma unroll
    for (int c = 0; c < channels(); ++c) {
#pragma unroll
      for (int a = 0; a < axes(); ++a) {
        const std::int64_t i = plane(a, c) + pixel.at;
        T v;
        if constexpr (kInRegisters)
          v = stepped[a * kChannels + c];
        else
          v = next[i];
        v *= factor;
        const Pair<T> here = dual(i);
        uphill += (here.point - v) * (v - here.now);
        next[i] = v;
      }
    }
    sums.uphill += double(uphill);
    if constexpr (kTest) {
      const T variation = w * sqrt(jumps);
      sums.gap += double(variation - inner);
      sums.variation += double(variation);
      sums.fidelity += double(fidelity);
    }
  }
};

// Calls f(pixel) for the pixels of a tile that this thread owns.
template <class F>
JAXTV_DEVICE void for_pixels(const PixelGrid& grid, Index tile, F f) {
  const int columns = grid.axes - 1, rows = grid.axes - 2;
  Index rest = grid.by_across.div(tile);
  const Index tile_column = tile - rest * grid.by_across.divisor;
  Index image = grid.by_down.div(rest);
  const Index tile_row = rest - image * grid.by_down.divisor;
  const Index thread_row = grid.by_tile_columns.div(threadIdx.x);
  const Index column =
      tile_column * grid.tile_columns + threadIdx.x - thread_row * grid.by_tile_columns.divisor;
  if (column >= grid.axis[columns].size) return;
  Pixel pixel{column, 0, 0};
  const auto place = [&](int axis, Index at) {
    const Index size = grid.axis[axis].size;
    pixel.before |= unsigned(at > 0) << axis;
    pixel.after |= unsigned(at + 1 < size) << axis;
  };
  place(columns, column);
  for (int a = rows - 1; a >= 0; --a) {
    const Index outer = grid.axis[a].by_size.div(image), at = image - outer * grid.axis[a].size;
    pixel.at += at * grid.axis[a].stride;
    place(a, at);
    image = outer;
  }
  if (rows < 0) {
    if (thread_row == 0) f(pixel);
    return;
  }
  const Index first = tile_row * grid.tile_rows + thread_row * Policy::kThreadRows;
  const Index end = min_of<Index>(first + Policy::kThreadRows, grid.axis[rows].size);
  const Pixel in_column = pixel;
#pragma unroll 1
  for (Index row = first; row < end; ++row) {
    pixel = in_column;
    pixel.at += row * grid.axis[rows].stride;
    place(rows, row);
    f(pixel);
  }
}

// ---- kernels ----

// A block owns tiles of an element, a thread some pixels of a column of each.
// Reads x, the weights, two duals, and the sums of the launch before.
// Writes the third dual, and its sums; the first block of an element its progress.
template <class T, int kAxes, int kChannels>
__global__ void __launch_bounds__(kThreads, Policy::kBlocksPerMultiprocessor<T, kChannels>)
    project_duals(Job<T> job, int launch) {
  const PixelGrid& grid = job.grid;
  const std::int64_t count = grid.elements * grid.blocks;
  for (std::int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const std::int64_t element = index / grid.blocks;
    const Index block = Index(index - element * grid.blocks);
    const Progress<T> progress = job.before(launch, element);
    if (block == 0 && threadIdx.x == 0) job.progress_at(launch, element) = progress;
    if (progress.status != kRunning) continue;
    const std::int64_t samples = std::int64_t(grid.channels) * grid.count;
    T* duals = job.op.state.duals + element * kDualBuffers * grid.axes * samples;
    const auto buffer = [&](int k) { return duals + k % kDualBuffers * grid.axes * samples; };
    const Step<T, kAxes, kChannels> step{grid,
                                         job.op.x + element * samples,
                                         buffer(launch),
                                         buffer(launch + 2),
                                         buffer(launch + 1),
                                         progress.beta,
                                         job.step};
    const bool per_pixel = job.op.per_pixel, tests = job.tests(progress);
    const T* w = job.op.w + element * (per_pixel ? grid.count : 1);
    Sums sums;
    for (Index tile = block; tile < grid.tiles; tile += grid.blocks)
      for_pixels(grid, tile, [&](const Pixel& pixel) {
        const T weight = w[per_pixel ? pixel.at : 0];
        if (tests)
          step.template project<true>(pixel, weight, sums);
        else
          step.template project<false>(pixel, weight, sums);
      });
    sums = Group::total<false>(sums);
    if (threadIdx.x != 0) continue;
    job.sum_at(launch, 0, index) = sums.uphill;
    job.sum_at(launch, 1, index) = sums.gap;
    job.sum_at(launch, 2, index) = sums.variation;
    job.sum_at(launch, 3, index) = sums.fidelity;
  }
}

// A block owns an element. Reads the sums of the last launch. Writes the state's numbers.
template <class T>
__global__ void __launch_bounds__(kThreads) write_state(Job<T> job, int launches) {
  for (std::int64_t element = blockIdx.x; element < job.grid.elements; element += gridDim.x) {
    const Progress<T> progress = job.before(launches, element);
    if (threadIdx.x == 0) job.to_state(progress, element);
  }
}

// ---- launching ----

PixelGrid grid_of(const Pixels& pixels, const PixelTiles& tiles) {
  PixelGrid grid{.elements = pixels.elements,
                 .channels = Index(pixels.channels),
                 .count = Index(pixels.count()),
                 .axes = pixels.axes,
                 .axis = {},
                 .blocks = Index(tiles.blocks),
                 .tiles = Index(tiles.tiles),
                 .tile_columns = tiles.columns,
                 .tile_rows = tiles.rows,
                 .by_tile_columns = Divider(tiles.columns),
                 .by_across = Divider(tiles.across),
                 .by_down = Divider(tiles.down)};
  Index stride = 1;
  for (int a = pixels.axes; a-- > 0; stride *= Index(pixels.sizes[a]))
    grid.axis[a] = {Index(pixels.sizes[a]), stride, Divider(pixels.sizes[a])};
  return grid;
}

template <class T>
auto kernel_for(const Pixels& pixels) {
  if (pixels.axes == 2 && pixels.channels == 1) return project_duals<T, 2, 1>;
  if (pixels.axes == 2 && pixels.channels == 2) return project_duals<T, 2, 2>;
  if (pixels.axes == 2 && pixels.channels == 3) return project_duals<T, 2, 3>;
  if (pixels.axes == 3 && pixels.channels == 1) return project_duals<T, 3, 1>;
  return project_duals<T, 0, 0>;
}

}  // namespace

template <class T>
Status isotropic_steps(cudaStream_t stream, const Pixels& pixels, const IsotropicSteps<T>& op,
                       void* scratch) {
  if (pixels.count() * pixels.channels > kMostIsotropicSamples)
    return "an element of more than 2^31 - 1 samples";
  if (pixels.elements == 0) return nullptr;
  const PixelTiles tiles = pixel_tiles(pixels);
  Job<T> job{.grid = grid_of(pixels, tiles),
             .op = op,
             .step = T(1) / T(4 * pixels.axes),
             .progress = nullptr,
             .sums = static_cast<double*>(scratch)};
  const std::int64_t blocks = pixels.elements * tiles.blocks;
  job.progress = reinterpret_cast<Progress<T>*>(job.sums + 2 * kSums * blocks);
  for (int step = 0; step < Policy::kSteps; ++step)
    if (Status bad = launch("project_duals", kernel_for<T>(pixels), blocks, kThreads,
                            Group::kScratchBytes, stream, job, step))
      return bad;
  return launch("write_state", write_state<T>, pixels.elements, kThreads, Group::kScratchBytes,
                stream, job, Policy::kSteps);
}

#define JAXTV_INSTANTIATE(T) \
  template Status isotropic_steps(cudaStream_t, const Pixels&, const IsotropicSteps<T>&, void*);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cuda
