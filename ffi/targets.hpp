// The handlers of a native module, by the names that every platform has. To add a target: define it
// with XLA_FFI_DEFINE_HANDLER_SYMBOL in cpu/ and in cuda/, and add a line here.
#pragma once

#include "xla/ffi/api/c_api.h"

#define JAXTV_HANDLERS(X)     \
  X(jaxtv_prox1d)             \
  X(jaxtv_prox1d_info)        \
  X(jaxtv_prox1d_data_weight) \
  X(jaxtv_segment_jvp)        \
  X(jaxtv_segment_vjp)        \
  X(jaxtv_dykstra)            \
  X(jaxtv_dykstra_with_codes) \
  X(jaxtv_dykstra_jvp)        \
  X(jaxtv_dykstra_vjp)        \
  X(jaxtv_components_jvp)     \
  X(jaxtv_components_vjp)

// Targets that only the CPU module has: elsewhere these primitives are plain JAX.
#define JAXTV_CPU_HANDLERS(X) X(jaxtv_converged) X(jaxtv_isotropic)
// And only the CUDA module: a JAX loop calls it.
#define JAXTV_CUDA_HANDLERS(X) X(jaxtv_isotropic_steps)

#define JAXTV_DECLARE(name) extern "C" XLA_FFI_Error* name(XLA_FFI_CallFrame*);
JAXTV_HANDLERS(JAXTV_DECLARE)
JAXTV_CPU_HANDLERS(JAXTV_DECLARE)
JAXTV_CUDA_HANDLERS(JAXTV_DECLARE)
#undef JAXTV_DECLARE
