// What the tests ask of the machine that runs the kernels in place of a GPU, apart from running
// them. There are two: simt.hpp runs them as C++, testing/ptx as nvcc compiled them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#pragma GCC visibility push(default)
namespace machine {

// Starts to record launches. recorded() ends that: a line each of name, blocks, threads, shared.
void record();
const char* recorded();

// Blocks, warps and lanes run from the last to the first, or as usual.
void reverse(bool on);

// Threads take turns at random (0: in the usual order), and host threads share the blocks of a
// launch, where the machine has them.
void take_turns(std::uint64_t seed, int host_threads);

// Refuses kernels the shared memory that they ask for, or not.
void refuse_shared(bool on);
// The launch after the next `others` fails; none if that is negative.
void fail_launch(int others);
// The least shared memory that a kernel was allowed on a device, of those that asked.
std::size_t least_allowed(int device);

// Only these blocks of each launch run, the negative counted from the end; all if there are none.
void run_only(std::vector<std::int64_t> blocks);

// The stream that a call on this device gets; makes the device the current one.
void* stream_on(int device);

// Kernels of this thread may access this memory. A result is writable, and not to be read before.
void allow_memory(void* data, std::size_t bytes, bool writable, bool result);
void forget_memory();

}  // namespace machine
#pragma GCC visibility pop
