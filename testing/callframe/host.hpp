// As much of XLA as the handlers need: errors, a thread pool of real threads, the number of the
// device. No jaxlib and no Python, so that a sanitizer sees all the code that runs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "xla/ffi/api/c_api.h"

namespace jaxtv::callframe {

const XLA_FFI_Api& host_api();

// Code and message of an error that a handler returned, which is destroyed; code 0 for null.
struct Status {
  XLA_FFI_Error_Code code = XLA_FFI_Error_Code_OK;
  std::string message;
};
Status take(XLA_FFI_Error* error);

// The number of threads that handlers see, the caller not included: at most those of the pool, 3.
void set_threads(std::int64_t threads);
// Waits until the pool has no task left.
void drain();

// The device that handlers called from this thread see.
void set_device(std::int32_t ordinal);

// Whether this thread runs code of a handler, as opposed to code of the host. The fuzzer lets only
// the allocations of handlers fail.
inline thread_local bool inside_handler = false;
class Scope {
 public:
  explicit Scope(bool of_handler) : before_(std::exchange(inside_handler, of_handler)) {}
  ~Scope() { inside_handler = before_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  bool before_;
};

}  // namespace jaxtv::callframe
