// The kernels of the best instruction set that this machine has; the environment variable
// JAXTV_ISA=baseline|avx2|avx512 forces one.
#pragma once

#include "simd/gradient_projection.hpp"
#include "simd/kernels.hpp"
#include "simd/taut_strings.hpp"

namespace jaxtv::cpu {

const char* isa_name();
template <class T>
const SimdKernels<T>& simd_kernels();
template <class T>
const TautStringKernel<T>& taut_string_kernel();
template <class T>
const ProjectionKernel<T>& projection_kernel();

}  // namespace jaxtv::cpu
