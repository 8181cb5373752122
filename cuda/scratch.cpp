#include "scratch.hpp"

#include <stdexcept>
#include <string>

#include "dykstra/image_tiling.hpp"
#include "prox1d/kernels.hpp"
#include "segments/segment_tiling.hpp"

namespace jaxtv::cuda {

// ---- calls ----

// Bytes per sample: of the decomposition a double and a cut, by the whole device also a mark; of
// projected Newton three doubles and two cuts; of one thread per signal a cut. Taut string takes
// the last where signals fit no tile, which only those beyond kFewestSamples may do.
std::int64_t prox1d_scratch(const Shape& shape, Method method) {
  const std::int64_t n = shape.n, signals = shape.signals();
  if (method == Method::kTautString) return n <= tuning::Tiles::kFewestSamples ? 0 : signals * n;
  if (n <= Crossovers::kLongestInSharedMemory) return 0;
  if (method == Method::kProjectedNewton) return signals * 26 * n;
  if (!for_grid(shape)) return signals * 9 * n;
  return signals * (10 * n + grid_tiles(n) * kTileSummaryBytes + kSignalProgressBytes);
}

// A double and a cut per sample.
std::int64_t prox1d_data_weight_scratch(const Shape& shape) {
  return shape.signals() * 9 * shape.n;
}

template <class T>
std::int64_t segment_scratch(const Shape& shape) {
  if (shape.signals() == 0 || shape.n == 0) return 0;
  const std::int64_t chunks = segment_tiles<T>(shape).chunks;
  return chunks == 1 ? 0 : shape.signals() * chunks * kChunkSummaryBytes;
}

std::int64_t prox_pass_scratch(const Iteration& it, Method inner) {
  std::int64_t most = 0;
  for (int a = 0; a < it.axes; ++a) most = max_of(most, prox1d_scratch(it.shapes[a], inner));
  return ceil_div(most, 16) * 16;
}

// A state per axis, the weights of a pass, and a byte per element; half types also need a float z.
template <class Sample>
std::int64_t dykstra_scratch(const Iteration& it, Method inner, bool with_codes,
                             std::size_t max_shared) {
  using T = Compute<Sample>;
  if (image_tiles_of<T>(it, inner, with_codes, max_shared).tiles > 0) return 0;
  const std::int64_t arrays = it.axes + (kHalf<Sample> ? 2 : 1);
  return prox_pass_scratch(it, inner) + arrays * it.batch * it.size * std::int64_t(sizeof(T)) +
         it.batch;
}

template <class T>
std::int64_t segment_pass_scratch(const Iteration& it) {
  std::int64_t most = 0;
  for (int a = 0; a < it.axes; ++a) most = max_of(most, segment_scratch<T>(it.shapes[a]));
  return most;
}

// A state per axis; half types also add up gx in float. A single axis needs none of these.
template <class Sample>
std::int64_t dykstra_derivative_scratch(const Iteration& it, std::size_t max_shared) {
  using T = Compute<Sample>;
  if (image_tiles(it, kImageDerivativeBytes<T>, max_shared).tiles > 0) return 0;
  const std::int64_t arrays = it.axes == 1 ? 0 : it.axes + (kHalf<Sample> ? 1 : 0);
  return segment_pass_scratch<T>(it) + arrays * it.batch * it.size * std::int64_t(sizeof(T));
}

std::int64_t summed_signals(const Grid& grid, const bool* per_edge) {
  std::int64_t most = 0;
  for (int a = 0; per_edge && a < grid.axes; ++a)
    if (!per_edge[a] && grid.shapes[a].n > 1) most = max_of(most, grid.shapes[a].signals());
  return most * arrays_at_once(grid);
}

std::int64_t components_scratch(const Grid& grid, const bool* per_edge) {
  if (grid.size > kMostSamples) return 0;  // an error of the call
  const std::int64_t samples = arrays_at_once(grid) * grid.size;
  return samples * (kComponentSumBytes + kLabelBytes) +
         summed_signals(grid, per_edge) * kComponentSumBytes;
}

// Sums of every block, and the progress of every element, both twice.
std::int64_t isotropic_scratch(const Pixels& pixels) {
  const std::int64_t blocks = pixel_tiles(pixels).blocks;
  return pixels.elements * (blocks * kFgpSumsBytes + kFgpProgressBytes);
}

// ---- what Python asks ----

namespace {

Shape shape_along(std::span<const std::int64_t> dims, std::int64_t axis) {
  if (axis < 0 || axis >= std::int64_t(dims.size()))
    throw std::invalid_argument("jaxtv: axis out of range");
  Shape shape{1, 1, dims[axis], 1};
  for (std::int64_t i = 0; i < std::int64_t(dims.size()); ++i) {
    if (i < axis) shape.outer *= dims[i];
    if (i > axis) shape.inner *= dims[i];
  }
  return shape;
}

// The samples of one batch element, and their shape along every axis.
template <class Problem>
Problem problem_of(const ScratchRequest& r) {
  if (r.axes.empty() || r.axes.size() > std::size_t(kMaxAxes))
    throw std::invalid_argument("jaxtv: bad number of axes");
  Problem p{};
  p.batch = p.size = 1;
  for (const std::int64_t d : r.shape) p.size *= d;
  p.axes = int(r.axes.size());
  for (int a = 0; a < p.axes; ++a) p.shapes[a] = shape_along(r.shape, r.axes[a]);
  return p;
}

// The shape is that of the duals: buffers, axes, channels, sizes.
Pixels pixels_of(const ScratchRequest& r) {
  const std::int64_t axes = std::int64_t(r.shape.size()) - 3;
  if (axes < 1 || axes > kMaxAxes) throw std::invalid_argument("jaxtv: bad number of axes");
  Pixels pixels{.elements = 1, .channels = r.shape[2], .axes = int(axes), .sizes = {}};
  for (std::int64_t a = 0; a < axes; ++a) pixels.sizes[a] = r.shape[3 + a];
  return pixels;
}

// Sample: the type of a sample.
template <class Sample>
std::int64_t bytes_of(const ScratchRequest& r) {
  const std::string_view target = r.target;
  if (target == "jaxtv_prox1d" || target == "jaxtv_prox1d_info")
    return prox1d_scratch(shape_along(r.shape, r.axes[0]), r.method);
  if (target == "jaxtv_prox1d_data_weight")
    return prox1d_data_weight_scratch(shape_along(r.shape, r.axes[0]));
  if (target == "jaxtv_segment_jvp" || target == "jaxtv_segment_vjp")
    return segment_scratch<Compute<Sample>>(shape_along(r.shape, r.axes[0]));
  if (target == "jaxtv_components_jvp") return components_scratch(problem_of<Grid>(r), nullptr);
  if (target == "jaxtv_components_vjp") {
    bool per_edge[kMaxAxes];
    for (int a = 0; a < kMaxAxes; ++a) per_edge[a] = r.per_edge >> a & 1;
    return components_scratch(problem_of<Grid>(r), per_edge);
  }
  if (target == "jaxtv_isotropic_steps") return isotropic_scratch(pixels_of(r));
  Iteration it = problem_of<Iteration>(r);
  it.iterations = 1;  // scratch does not depend on their number
  const bool with_codes = target == "jaxtv_dykstra_with_codes";
  if (target == "jaxtv_dykstra" || with_codes)
    return dykstra_scratch<Sample>(it, r.method, with_codes, kLeastMaxShared);
  if (target == "jaxtv_dykstra_jvp" || target == "jaxtv_dykstra_vjp")
    return dykstra_derivative_scratch<Sample>(it, kLeastMaxShared);
  throw std::invalid_argument("jaxtv: no scratch size of " + std::string(target));
}

}  // namespace

std::int64_t scratch_bytes(const ScratchRequest& r) {
  if (r.axes.empty()) throw std::invalid_argument("jaxtv: no axes");
  const std::int64_t bytes = r.itemsize == 8   ? bytes_of<double>(r)
                             : r.itemsize == 4 ? bytes_of<float>(r)
                                               : bytes_of<BFloat16>(r);
  return max_of(bytes, std::int64_t(8));
}

template std::int64_t segment_scratch<float>(const Shape&);
template std::int64_t segment_scratch<double>(const Shape&);
template std::int64_t segment_pass_scratch<float>(const Iteration&);
template std::int64_t segment_pass_scratch<double>(const Iteration&);
#define JAXTV_INSTANTIATE(Sample)                                                             \
  template std::int64_t dykstra_scratch<Sample>(const Iteration&, Method, bool, std::size_t); \
  template std::int64_t dykstra_derivative_scratch<Sample>(const Iteration&, std::size_t);
JAXTV_FOR_EACH_DATA_TYPE(JAXTV_INSTANTIATE)

}  // namespace jaxtv::cuda
