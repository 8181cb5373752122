// The kernel table of one instruction set. Where to read:
//
//   vectors, transpose   registers: what the compiler's vector extensions do not offer
//   signals, edge_codes  copies between arrays of any layout and rows, which have a signal per lane
//   bundle               the signals that one thread solves together, and their scratch
//   prox                 the 1D prox of a bundle, step by step: the lane-major copy (fill_lanes),
//                        cuts (interval_string, compact; decomposition where that suits better;
//                        repair where there are old cuts to start from), values and the check in
//                        T, the type of the samples (solution), the check in double of what T
//                        cannot decide (mend)
//   derivatives          JVP and VJP of a tile of signals (tile) by means over segments
//                        (segment_means), whose sums are compensated (sums)
//
// taut_strings.cpp is the other unit: one signal in all lanes.
#include "simd/kernels.hpp"

#include "simd/derivatives.hpp"
#include "simd/prox.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

template <class T>
constexpr SimdKernels<T> kernels_of() {
  return {.signals_per_group = signals_per_group<T>,
          .prox_scratch_bytes = prox_scratch_bytes<T>,
          .duals_length = duals_length<T>,
          .prox = prox<T>,
          .derivative_scratch_bytes = derivative_scratch_bytes<T>,
          .jvp = jvp<T>,
          .vjp = vjp<T>,
          .dykstra_vjp = dykstra_vjp<T>};
}

}  // namespace

#define JAXTV_STRING_(s) #s
#define JAXTV_STRING(s) JAXTV_STRING_(s)
extern const KernelTable kernels;
const KernelTable kernels = {JAXTV_STRING(JAXTV_ISA), kernels_of<float>(), kernels_of<double>()};

}  // namespace jaxtv::cpu::JAXTV_ISA
