// What prox1d.cu puts together: one function per kind of kernel.
#pragma once

#include "prox1d/prox1d.hpp"

namespace jaxtv::cuda {

// A group of threads works on one signal: a warp of a block of kSmallGroups, up to kWarpLongest
// samples; a block of kBlockWarps up to kShortest, which is what fits into shared memory; a block
// of kWideWarps beyond that. Crossovers are estimated.
constexpr int kSmallGroups = 4, kBlockWarps = 4, kWideWarps = 16;
constexpr std::int64_t kWarpLongest = 256, kShortest = 1024;
template <int kWarps>
constexpr int kGroupThreads = (kWarps == 1 ? kSmallGroups : kWarps) * 32;
template <int kWarps>
constexpr int kGroupSignals = kWarps == 1 ? kSmallGroups : 1;

// Scratch in bytes per signal.
constexpr std::int64_t serial_bytes(std::int64_t n) { return n; }
constexpr std::int64_t block_bytes(std::int64_t n) { return 9 * n; }
std::int64_t grid_bytes(std::int64_t n);
constexpr std::int64_t newton_bytes(std::int64_t n) { return n <= kShortest ? 0 : 26 * n; }

// One signal at a time over the whole device.
template <class D>
Status prox_grid(cudaStream_t stream, const Shape& shape, const Prox<D>& op, void* workspace);

// Projected Newton.
template <class D>
Status prox_newton(cudaStream_t stream, const Shape& shape, const Prox<D>& op, const Solver& solver,
                   void* workspace);

}  // namespace jaxtv::cuda
