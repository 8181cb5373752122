// What both native modules tell jaxtv/_native.py.
#pragma once

#include <nanobind/nanobind.h>

#include "targets.hpp"

#ifndef JAXTV_MODULE_HANDLERS  // targets that only the including module has
#define JAXTV_MODULE_HANDLERS(X)
#endif

namespace jaxtv {

inline nanobind::dict targets() {
  nanobind::dict d;
#define JAXTV_ADD(name) d[#name] = nanobind::capsule(reinterpret_cast<void*>(&name));
  JAXTV_HANDLERS(JAXTV_ADD)
  JAXTV_MODULE_HANDLERS(JAXTV_ADD)
#undef JAXTV_ADD
  return d;
}

inline void describe(nanobind::module_& m) {
  m.def("targets", &targets, "Target name -> handler capsule.");
  m.attr("version") = JAXTV_VERSION;
  m.attr("ffi_api_version") = nanobind::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
}

}  // namespace jaxtv
