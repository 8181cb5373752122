// Exact 1D prox with data weights, by threshold decomposition: a warp or a block per signal, in
// global memory.
#include "block/launch.cuh"
#include "block/tiling.hpp"
#include "prox1d/kernels.hpp"
#include "prox1d/parallel_decomposition.cuh"

namespace jaxtv::cuda {
namespace {

// A group of kWarps warps owns a signal, a thread a range of it.
// Reads samples, masses and weights in global memory, in every pass.
// Writes y; region_values (8 n bytes) and cuts (n bytes) of each signal are scratch.
template <class T, int kWarps>
__global__ void __launch_bounds__(kGroupThreads<kWarps>,
                                  tuning::DataWeightPerSignal::kBlocksPerMultiprocessor)
    prox_data_weight(Shape shape, DataWeightProx<T> op, double* region_values, signed char* cuts) {
  using Index = std::int64_t;
  using State = WeightedSignalState<Index, const T*, const T*, signed char*, double*>;
  constexpr int kSignals = kGroupSignals<kWarps>;
  const int group = kWarps == 1 ? int(threadIdx.x) / kWarp : 0;
  const Index signals = shape.signals(), step = Index(gridDim.x) * kSignals;
  for (Index i = Index(blockIdx.x) * kSignals + group; i < signals; i += step) {
    const Index outer = i / shape.inner, inner = i - outer * shape.inner;
    const Index first = outer * shape.n * shape.inner + inner;
    const T* w = op.per_edge ? op.w + outer * (shape.n - 1) * shape.inner + inner : op.w + i;
    solve<T, ThreadGroup<kWarps>, Index>(
        State{{shape.n, op.x + first, shape.inner, w, op.per_edge ? shape.inner : 0,
               cuts + i * shape.n, region_values + i * shape.n, 1.0},
              op.mass + first},
        op.y + first);
    ThreadGroup<kWarps>::sync();
  }
}

template <class T, int kWarps>
Status run(cudaStream_t stream, const Shape& shape, const DataWeightProx<T>& op, void* scratch) {
  double* region_values = static_cast<double*>(scratch);
  return launch("prox_data_weight", prox_data_weight<T, kWarps>,
                ceil_div(shape.signals(), kGroupSignals<kWarps>), kGroupThreads<kWarps>,
                ThreadGroup<kWarps>::kScratchBytes, stream, shape, op, region_values,
                reinterpret_cast<signed char*>(region_values + shape.signals() * shape.n));
}

}  // namespace

template <class T>
Status prox1d_data_weight(cudaStream_t stream, const Shape& shape, const DataWeightProx<T>& op,
                          void* scratch) {
  if (shape.signals() == 0 || shape.n == 0) return nullptr;
  if (shape.n <= Crossovers::kLongestForWarp) return run<T, 1>(stream, shape, op, scratch);
  if (shape.n <= Crossovers::kLongestInSharedMemory)
    return run<T, kBlockWarps>(stream, shape, op, scratch);
  return run<T, kWideWarps>(stream, shape, op, scratch);
}

template Status prox1d_data_weight(cudaStream_t, const Shape&, const DataWeightProx<float>&, void*);
template Status prox1d_data_weight(cudaStream_t, const Shape&, const DataWeightProx<double>&,
                                   void*);

}  // namespace jaxtv::cuda
