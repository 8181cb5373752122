// The Python module that hands the handlers of the CPU kernels to JAX.
#define JAXTV_OWN_HANDLERS JAXTV_CPU_HANDLERS
#include "module.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <string>
#include <utility>

#include "sweep.hpp"
#include "windows.hpp"

NB_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of jaxtv as XLA FFI handlers.";
  jaxtv::describe(m);
  m.def(
      "isa", [] { return std::string(jaxtv::cpu::isa().name); }, "Vector instruction set in use.");
  m.def(
      "long_signals",
      [] {
        const jaxtv::cpu::LongSignals solved = jaxtv::cpu::long_signals();
        return std::pair(solved.strings, solved.windows);
      },
      "Long signals this process has solved: by coupled taut strings, by joined windows.");
}
