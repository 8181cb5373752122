// The Python module that hands the handlers of the CUDA kernels to JAX.
#include "module.hpp"

#include <cuda_runtime_api.h>

NB_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of jaxtv as XLA FFI handlers.";
  jaxtv::describe(m);
  m.attr("cuda_version") = nanobind::make_tuple(CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  m.attr("architectures") = JAXTV_CUDA_ARCHITECTURES;
}
