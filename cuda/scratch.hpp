// The scratch of every operation: the handlers check it, Python asks for it. Plain C++.
//
// CUDA handlers do not allocate: their scratch is one more result of the call, an array of bytes
// with one row per batch element. The functions below give the bytes of a call. B batch elements
// never need more than B times the bytes of one, so Python asks for one element, and a call is
// right however XLA divides the batch.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "components/components.hpp"
#include "dykstra/dykstra.hpp"
#include "isotropic/isotropic.hpp"

namespace jaxtv::cuda {

std::int64_t prox1d_scratch(const Shape& shape, Method method);
std::int64_t prox1d_data_weight_scratch(const Shape& shape);

// T: what is computed in, as in the next two; 0 for signals that fit in one tile.
template <class T>
std::int64_t segment_scratch(const Shape& shape);

// max_shared: the shared memory that a block may ask for. Images that fit need no scratch.
template <class Sample>
std::int64_t dykstra_scratch(const Iteration& it, Method inner, bool with_codes,
                             std::size_t max_shared);
template <class Sample>
std::int64_t dykstra_derivative_scratch(const Iteration& it, std::size_t max_shared);
// What the parts of a pass need before the states: aligned for any type.
std::int64_t prox_pass_scratch(const Iteration& it, Method inner);
template <class T>
std::int64_t segment_pass_scratch(const Iteration& it);

// per_edge: of gw, by axis; null for the JVP.
std::int64_t components_scratch(const Grid& grid, const bool* per_edge);
// The part of it that sums over signals need.
std::int64_t summed_signals(const Grid& grid, const bool* per_edge);

std::int64_t isotropic_scratch(const Pixels& pixels);

// A call, as Python knows it.
struct ScratchRequest {
  std::string_view target;              // of XLA, for example jaxtv_dykstra
  std::span<const std::int64_t> shape;  // of the samples of one batch element
  std::span<const std::int64_t> axes;   // of the prox, in `shape`
  int itemsize;                         // bytes of a sample; 2: a half type
  Method method;                        // of the (inner) 1D solver
  unsigned per_edge;                    // bit a: gw of axes[a] has a value per edge
};

// Bytes of scratch per batch element on any device, at least 8: a result is never empty. Throws
// std::invalid_argument for targets that it does not know.
std::int64_t scratch_bytes(const ScratchRequest& request);

}  // namespace jaxtv::cuda
