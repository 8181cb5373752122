// The Python module that hands the handlers of the CPU kernels to JAX.
#define JAXTV_MODULE_HANDLERS JAXTV_CPU_HANDLERS
#include "module.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <string>
#include <utility>

#include "isa.hpp"
#include "long_signal/long_signal.hpp"

NB_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of jaxtv as XLA FFI handlers.";
  jaxtv::describe(m);
  m.def(
      "isa", [] { return std::string(jaxtv::cpu::isa_name()); }, "Vector instruction set in use.");
  m.def(
      "long_signals",
      [] {
        const jaxtv::cpu::LongSignalCounts solved = jaxtv::cpu::long_signal_counts();
        return std::pair(solved.by_taut_strings, solved.by_windows);
      },
      "Long signals this process has solved: by taut strings, by windows.");
}
