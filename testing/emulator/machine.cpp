#include "machine.hpp"

#include <algorithm>
#include <utility>

#include "simt.hpp"

namespace machine {

void record() {
  const std::lock_guard<std::mutex> lock(simt::record().mutex);
  simt::record().on = true;
  simt::record().lines.clear();
}
const char* recorded() {
  simt::record().on = false;
  return simt::record().lines.c_str();
}
void reverse(bool on) { simt::reversed() = on; }
void take_turns(std::uint64_t seed, int host_threads) {
  simt::seed() = seed;
  simt::host_threads() = host_threads;
}
void refuse_shared(bool on) { simt::refusing() = on; }
void fail_launch(int others) { simt::launches_before_failure() = others; }
std::size_t least_allowed(int device) {
  const std::lock_guard<std::mutex> lock(simt::allowed().mutex);
  std::size_t least = simt::kMaxShared;
  for (const auto& [kernel, bytes] : simt::allowed().bytes)
    if (kernel.first == device) least = std::min(least, bytes);
  return least;
}
void run_only(std::vector<std::int64_t> blocks) { simt::Machine::here().only = std::move(blocks); }
void* stream_on(int device) {
  simt::current_device() = device;
  return simt::stream_of(device);
}
// Global memory is the host's: AddressSanitizer knows its bounds.
void allow_memory(void*, std::size_t, bool, bool) {}
void forget_memory() {}

}  // namespace machine
