// The Python module that hands the handlers of the CUDA kernels to JAX, and tells their scratch.
#define JAXTV_MODULE_HANDLERS JAXTV_CUDA_HANDLERS
#include "module.hpp"

#include <cuda_runtime_api.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "scratch.hpp"

namespace {

std::int64_t scratch_bytes(const std::string& target, const std::vector<std::int64_t>& shape,
                           const std::vector<std::int64_t>& axes, int itemsize, int method,
                           const std::vector<bool>& per_edge) {
  unsigned edges = 0;
  for (std::size_t a = 0; a < per_edge.size(); ++a) edges |= unsigned(per_edge[a]) << a;
  return jaxtv::cuda::scratch_bytes({.target = target,
                                     .shape = shape,
                                     .axes = axes,
                                     .itemsize = itemsize,
                                     .method = jaxtv::Method(method),
                                     .per_edge = edges});
}

}  // namespace

NB_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of jaxtv as XLA FFI handlers.";
  jaxtv::describe(m);
  m.def("scratch_bytes", &scratch_bytes,
        "Bytes of scratch per batch element of a call (target, shape, axes, itemsize, method, "
        "per_edge).");
  m.attr("cuda_version") = nanobind::make_tuple(CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  m.attr("architectures") = JAXTV_CUDA_ARCHITECTURES;
}
