// The kernels of the 1D prox that have a file of their own, and what all of them share.
#pragma once

#include "prox1d/prox1d.hpp"
#include "tuning.hpp"

namespace jaxtv::cuda {

using Crossovers = tuning::Prox1dCrossovers;

// A group of threads works on one signal: a warp (kWarps = 1; several of them in a block), or a
// block of kWarps warps.
template <int kWarps>
constexpr int kGroupThreads =
    (kWarps == 1 ? tuning::GroupPerSignal::kWarpsWithASignalEach : kWarps) * kWarp;
template <int kWarps>
constexpr int kGroupSignals = kWarps == 1 ? tuning::GroupPerSignal::kWarpsWithASignalEach : 1;
constexpr int kBlockWarps = tuning::GroupPerSignal::kBlockWarps;
constexpr int kWideWarps = tuning::GroupPerSignal::kWideWarps;

// What the whole device keeps of a signal between its launches (grid.cu): a summary of every tile
// of kGridTile samples, and its progress; in bytes.
constexpr int kGridTile =
    tuning::GridDecomposition::kBlockThreads * tuning::GridDecomposition::kThreadSamples;
constexpr std::int64_t grid_tiles(std::int64_t n) { return (n + kGridTile - 1) / kGridTile; }
constexpr int kTileSummaryBytes = 120, kSignalProgressBytes = 72;

// Whether the whole device works on each of these signals, rather than a block.
constexpr bool for_grid(const Shape& shape) {
  return shape.n >= Crossovers::kShortestForGrid &&
         shape.signals() <= Crossovers::kMostSignalsForGrid;
}

// One signal at a time over the whole device (grid.cu).
template <class Sample>
Status prox_grid(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op, void* scratch);

// Projected Newton (newton.cu).
template <class Sample>
Status prox_newton(cudaStream_t stream, const Shape& shape, const Prox<Sample>& op,
                   const Solver& solver, void* scratch);

}  // namespace jaxtv::cuda
