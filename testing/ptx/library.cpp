// The interpreter as a shared library, for ctypes (testing/ptx/__init__.py).
#include <string>

#include "counts.hpp"
#include "launches.hpp"
#include "machine/machine.hpp"

#define PTX_API extern "C" __attribute__((visibility("default")))

struct PtxSettings {
  int order, slice, resident, ulps;
  bool global_races, counted;
  std::uint64_t seed, most_steps;
};

PTX_API void ptx_configure(PtxSettings s) {
  ptx::settings() = {.order = ptx::Order(s.order),
                     .seed = s.seed,
                     .slice = s.slice,
                     .resident = s.resident,
                     .ulps = s.ulps,
                     .global_races = s.global_races,
                     .counted = s.counted,
                     .most_steps = s.most_steps};
  ptx::seed_random(s.seed);
}

// Runs one kernel of a text; what went wrong, or "". Valid until this thread calls again.
PTX_API const char* ptx_run(const char* text, const char* name, std::int64_t grid, unsigned threads,
                            std::size_t shared, void** arguments) {
  static thread_local std::string wrong;
  try {
    ptx::Module module(text);
    const ptx::Kernel* kernel = module.find(name);
    wrong = kernel ? ptx::launch(*kernel, grid, threads, shared, arguments) : "no such kernel";
  } catch (const std::exception& e) {
    wrong = e.what();
  }
  return wrong.c_str();
}

// Puts a defect into kernels (Mutation), or with at = -1 none; how many places the last one had.
PTX_API int ptx_mutate(const char* kernel, const char* from, const char* to, int at) {
  const int found = ptx::mutation().found;
  ptx::mutate({.kernel = kernel, .from = from, .to = to, .at = at, .found = 0});
  return found;
}

PTX_API void ptx_allow(void* data, std::size_t bytes, bool writable, bool result) {
  machine::allow_memory(data, bytes, writable, result);
}
PTX_API void ptx_forget() { machine::forget_memory(); }

// JSON: what ran since the last call, by kernel.
PTX_API const char* ptx_counts() {
  static const char* const kinds[] = {"integer", "float",  "double",    "move",   "folded",
                                      "convert", "branch", "parameter", "global", "shared",
                                      "local",   "atomic", "warp",      "barrier"};
  static thread_local std::string json;
  json = "{";
  for (const auto& [kernel, c] : ptx::counts()) {
    const auto number = [](const char* name, std::uint64_t value) {
      return "\"" + std::string(name) + "\": " + std::to_string(value) + ", ";
    };
    json += (json.size() > 1 ? ", \"" : "\"") + kernel + "\": {";
    for (std::size_t k = 0; k < c.issued.size(); ++k) json += number(kinds[k], c.issued[k]);
    json += number("lanes", c.lanes) + number("launches", c.launches) + number("blocks", c.blocks) +
            number("warps", c.warps) + number("divisions", c.divisions) +
            number("sectors", c.sectors) + number("sectors_read", c.sectors_read) +
            number("sectors_written", c.sectors_written);
    json += number("wavefronts", c.wavefronts) + "\"lines\": {";
    for (const auto& [line, issued] : c.lines)
      json += (json.back() == '{' ? "\"" : ", \"") + line + "\": " + std::to_string(issued);
    json += "}}";
  }
  json += "}";
  ptx::reset_counts();
  return json.c_str();
}
