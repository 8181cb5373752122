// The handlers of the CUDA kernels, by the names that the CPU kernels have too. To add a target:
// define JAXTV_HANDLER(jaxtv_<name>, ...) in a *_ffi.cpp and add a line here.
#pragma once

#include "xla/ffi/api/c_api.h"

#define JAXTV_HANDLERS(X) \
  X(jaxtv_prox1d)         \
  X(jaxtv_prox1d_info)    \
  X(jaxtv_segment_jvp)    \
  X(jaxtv_segment_vjp)    \
  X(jaxtv_dykstra)        \
  X(jaxtv_dykstra_masked) \
  X(jaxtv_dykstra_jvp)    \
  X(jaxtv_dykstra_vjp)

#define JAXTV_DECLARE(name) extern "C" XLA_FFI_Error* name(XLA_FFI_CallFrame*);
JAXTV_HANDLERS(JAXTV_DECLARE)
#undef JAXTV_DECLARE
