// What cuda/prox1d.cu puts together: one function per kind of kernel.
#pragma once

#include "prox1d.hpp"

namespace jaxtv::cuda {

// Scratch in bytes per signal.
constexpr std::int64_t serial_bytes(std::int64_t n) { return n; }
constexpr std::int64_t block_bytes(std::int64_t n) { return 9 * n; }
std::int64_t grid_bytes(std::int64_t n);
JAXTV_HD constexpr std::int64_t newton_bytes(std::int64_t n) { return 8 * (7 * n + (n + 7) / 8); }

// One signal at a time over the whole device.
template <class T>
Status prox_grid(cudaStream_t stream, const Shape& shape, const Prox<T>& op, void* workspace);

// Projected Newton.
template <class T>
Status prox_newton(cudaStream_t stream, const Shape& shape, const Prox<T>& op, const Solver& solver,
                   void* workspace);

}  // namespace jaxtv::cuda
