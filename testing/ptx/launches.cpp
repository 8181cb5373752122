#include "launches.hpp"

#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "counts.hpp"
#include "machine/machine.hpp"

namespace ptx {
namespace {

struct Record {
  bool on = false;
  std::string lines;
};
Record& the_record() {
  static Record r;
  return r;
}
std::vector<std::int64_t>& only() {
  static std::vector<std::int64_t> blocks;
  return blocks;
}

std::vector<std::uint32_t> blocks_of(std::int64_t grid) {
  std::vector<std::uint32_t> ids;
  if (only().empty()) {
    ids.resize(std::size_t(grid));
    for (std::size_t k = 0; k < ids.size(); ++k) ids[k] = std::uint32_t(k);
  }
  for (const std::int64_t b : only()) {
    const std::int64_t id = b < 0 ? std::max<std::int64_t>(grid + b, 0) : b;
    if (id < grid) ids.push_back(std::uint32_t(id));
  }
  return ids;
}

std::vector<std::uint8_t> packed_parameters(const Kernel& kernel, void** arguments) {
  std::vector<std::uint8_t> bytes(kernel.parameter_bytes);
  for (std::size_t k = 0; k < kernel.parameters.size(); ++k)
    std::memcpy(bytes.data() + kernel.parameters[k].offset, arguments[k],
                kernel.parameters[k].bytes);
  return bytes;
}

}  // namespace

Settings& settings() {
  static Settings s;
  return s;
}

std::string launch(const Kernel& kernel, std::int64_t grid, unsigned threads, std::size_t shared,
                   void** arguments) try {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  Launch l{.kernel = &kernel,
           .grid = std::uint32_t(grid),
           .threads = threads,
           .shared_bytes = shared,
           .parameters = packed_parameters(kernel, arguments),
           .settings = &settings(),
           .global = {}};
  if (settings().counted) {
    l.count = &counts()[kernel.function];
    Buffers::here().forget_sectors();
  }
  run(l, blocks_of(grid));
  if (settings().counted) add_counts(l);
  return "";
} catch (const std::exception& e) {
  return e.what();
}

std::size_t max_shared(int device) { return device % 2 == 0 ? 232448 : 65536; }
int& current_device() {
  static thread_local int device = 0;
  return device;
}
void* stream_of(int device) {
  return reinterpret_cast<void*>(std::uintptr_t(0x57 + 0x100 * device));
}

void record_launch(const Kernel& kernel, std::int64_t grid, unsigned threads, std::size_t shared) {
  if (!the_record().on) return;
  the_record().lines += kernel.function.substr(0, kernel.function.find('<')) + " " +
                        std::to_string(grid) + " " + std::to_string(threads) + " " +
                        std::to_string(shared) + "\n";
}

}  // namespace ptx

namespace machine {

namespace {

// For a while another order than the usual one.
void use_order(bool on, ptx::Order order) {
  static std::optional<ptx::Order> usual;
  if (!usual) usual = ptx::settings().order;
  ptx::settings().order = on ? order : *usual;
  if (!on) usual.reset();
}

}  // namespace

void record() { ptx::the_record() = {true, ""}; }
const char* recorded() {
  ptx::the_record().on = false;
  return ptx::the_record().lines.c_str();
}

void reverse(bool on) { use_order(on, ptx::Order::kReverse); }
void take_turns(std::uint64_t seed, int) {
  use_order(seed != 0, ptx::Order::kThreads);
  ptx::seed_random(seed != 0 ? seed : ptx::settings().seed);
}
void run_only(std::vector<std::int64_t> blocks) { ptx::only() = std::move(blocks); }
void* stream_on(int device) {
  ptx::current_device() = device;
  return ptx::stream_of(device);
}
void allow_memory(void* data, std::size_t bytes, bool writable, bool result) {
  ptx::Buffers::here().add(data, bytes, writable, !result);
}
void forget_memory() { ptx::Buffers::here().clear(); }

}  // namespace machine
