// The Python module that hands the handlers of the CPU kernels to JAX.
#define JAXTV_OWN_HANDLERS JAXTV_CPU_HANDLERS
#include "module.hpp"

#include <nanobind/stl/string.h>

#include <string>

#include "sweep.hpp"

NB_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of jaxtv as XLA FFI handlers.";
  jaxtv::describe(m);
  m.def(
      "isa", [] { return std::string(jaxtv::cpu::isa().name); }, "Vector instruction set in use.");
}
