// How signals and their weights lie in arrays.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jaxtv/common.hpp"

namespace jaxtv::cpu {

// An (outer, n, inner) array of outer * inner signals of n samples: signal s = o * inner + i has
// its sample k at offset (o * n + k) * inner + i.
struct Shape {
  std::int64_t outer, n, inner;
  JAXTV_INLINE std::int64_t signals() const { return outer * inner; }
  JAXTV_INLINE std::int64_t size() const { return outer * n * inner; }
  // The first of `length` values of signal s in an (outer, length, inner) array.
  JAXTV_INLINE std::int64_t offset(std::int64_t s, std::int64_t length) const {
    return (s / inner) * length * inner + s % inner;
  }
};

// Weights have the layout of the array, with one (λ per signal) or n - 1 (per edge) values along n.
template <class T>
struct Weights {
  const T* data;
  bool per_edge;
  // The signals are windows of one long signal: they share its λ, and its edges between two windows
  // have weights too.
  bool of_windows = false;
  JAXTV_INLINE std::int64_t length(std::int64_t n) const { return per_edge ? n - 1 : 1; }
  // From the first weight of a signal to that of the next one, in values along n.
  JAXTV_INLINE std::int64_t pitch(std::int64_t n) const {
    return length(n) + (of_windows ? (per_edge ? 1 : -1) : 0);
  }
};

}  // namespace jaxtv::cpu
