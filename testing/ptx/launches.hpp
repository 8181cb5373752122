// The machine: modules of kernels, devices, and how launches run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "warp.hpp"

namespace ptx {

// Of all launches; not to be changed while one runs.
Settings& settings();

// Runs a kernel; what went wrong, or "". `arguments` point to one value per parameter. One launch
// runs at a time, whichever thread asks.
std::string launch(const Kernel& kernel, std::int64_t grid, unsigned threads, std::size_t shared,
                   void** arguments);

// ---- devices: even ones are as of compute capability 9.0, odd ones as of 7.5 ----

constexpr std::size_t kPortableShared = 49152;
std::size_t max_shared(int device);
// Of this host thread: XLA makes the device of a call the current one before it calls a handler.
int& current_device();
void* stream_of(int device);

// From here on kernels have this defect, or none.
void mutate(Mutation m);

// ---- launches that were recorded ----

void record_launch(const Kernel& kernel, std::int64_t grid, unsigned threads, std::size_t shared);

}  // namespace ptx
