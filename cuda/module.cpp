// The Python module that hands the handlers of the CUDA kernels to JAX.
#include <cuda_runtime_api.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "handlers.hpp"

namespace nb = nanobind;

namespace {

nb::dict targets() {
  nb::dict d;
#define JAXTV_ADD(name) d[#name] = nb::capsule(reinterpret_cast<void*>(&name));
  JAXTV_HANDLERS(JAXTV_ADD)
#undef JAXTV_ADD
  return d;
}

}  // namespace

NB_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of jaxtv as XLA FFI handlers.";
  m.def("targets", &targets, "Target name -> handler capsule.");
  m.attr("ffi_api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  m.attr("cuda_version") = nb::make_tuple(CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  m.attr("architectures") = JAXTV_CUDA_ARCHITECTURES;
}
