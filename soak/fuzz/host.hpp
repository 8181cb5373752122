// As much of XLA as the CPU handlers need: errors, and a thread pool of real threads. No jaxlib and
// no Python, so that a sanitizer sees all the code that runs.
#pragma once

#include <cstdint>
#include <string>

#include "xla/ffi/api/c_api.h"

namespace jaxtv::fuzz {

const XLA_FFI_Api& host_api();

// Code and message of an error that the handler returned, which is destroyed; code 0 for null.
struct Status {
  XLA_FFI_Error_Code code = XLA_FFI_Error_Code_OK;
  std::string message;
};
Status take(XLA_FFI_Error* error);

// The number of threads that handlers see, the caller not included: those of the pool or fewer.
void set_threads(std::int64_t threads);
// Waits until the pool has no task left.
void drain();

// From now on the allocation number `countdown` (from 0) fails once, on whatever thread; -1: none.
void fail_allocation(std::int64_t countdown);

}  // namespace jaxtv::fuzz
