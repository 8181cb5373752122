// One step of the isotropic prox on lines of samples: the kernels of cpu/isotropic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jaxtv/common.hpp"

namespace jaxtv::cpu {

// The samples of one element, as lines along its last axis. A line has `pitch` samples, the last
// ones of which may be padding, 0 in every array. The arrays of several channels follow each other.
struct Grid {
  int axes;
  std::int64_t channels, lines, pitch;
  const std::int64_t *sizes, *strides;  // of each axis, of each axis but the last in lines

  static constexpr std::int64_t kMultiple = 16;  // of every pitch: no loop over a line has a tail
  JAXTV_INLINE std::int64_t plane() const { return lines * pitch; }
  JAXTV_INLINE std::int64_t index(std::int64_t line, int axis) const {
    return line / strides[axis] % sizes[axis];
  }
};

// Names are those of jaxtv/_fgp.py. A dual has an array of all channels for each axis. It is 0 at
// the last sample of an axis and before its first sample in memory; after the last sample of y
// comes a number.
template <class T>
struct Projection {
  Grid grid;
  const T *x, *w;
  std::int64_t next_w;  // from the weights of a line to those of the next one
  const T* has_next;    // along a line: 1, or 0 for its last sample and padding
  T step, beta;
  const T *y, *last_y, *u;
  T *last_u, *new_y;  // step overwrites last_u by the new dual
};

struct Measures {
  double gap, variation, fidelity;  // fidelity: |x - y|^2
};

// Each works on the lines [begin, end), in the calling thread, and owns scratch_bytes of `scratch`.
template <class T>
struct ProjectionKernel {
  std::size_t (*scratch_bytes)(const Grid& grid);
  // The new dual, and new_y from it on all but the first `deferred` lines, which may need a dual of
  // lines before `begin`. Returns <point - new u, new u - u>.
  double (*step)(const Projection<T>& p, std::int64_t begin, std::int64_t end,
                 std::int64_t deferred, void* scratch);
  // new_y = x - D^T last_u.
  void (*primal)(const Projection<T>& p, std::int64_t begin, std::int64_t end);
  Measures (*measure)(const Projection<T>& p, std::int64_t begin, std::int64_t end, void* scratch);
  // Which samples join: a line of `length` bytes for each line.
  void (*joined)(const Projection<T>& p, std::int64_t begin, std::int64_t end, std::uint8_t* out,
                 std::int64_t length, void* scratch);
};

struct ProjectionTable {
  ProjectionKernel<float> f32;
  ProjectionKernel<double> f64;
};

}  // namespace jaxtv::cpu
