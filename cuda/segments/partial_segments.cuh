// Sums of segments that reach over the ends of a range of samples.
//
// A signal is divided into the ranges of its threads; a long one is first divided into chunks. A
// range holds most of its segments completely. The segments at its two ends may go on outside of
// it, so the range has only a piece of them: these two are its open segments. Joining the pieces of
// neighbouring ranges completes them.
//
//   Example: samples 0..9; segments [0..3], [4..6], [7..9]; ranges 0..4 and 5..9.
//                left piece                      right piece
//     range 0..4   [0..3], ended: 4 is another     [4..4], ended: 3 is another
//     range 5..9   [5..6], ended: 7 is another     [7..9], ended: 6 is another
//   join([4..4], [5..6]) is the segment [4..6].
#pragma once

#include "block/arena.cuh"

namespace jaxtv::cuda {

// The samples at one end of a range, up to the first end of a segment as seen from there.
struct PartialSegment {
  double sum = 0;
  // Twice the number of samples, plus 1 where an end of the segment was met: then the samples
  // further away belong to other segments.
  std::int64_t count_and_end = 0;
  JAXTV_DEVICE std::int64_t count() const { return count_and_end >> 1; }
  JAXTV_DEVICE bool ended() const { return count_and_end & 1; }
};

// The piece that `near` and the samples behind it, `far`, make together: `near` alone where the
// segment ended in it.
JAXTV_DEVICE PartialSegment join(const PartialSegment& far, const PartialSegment& near) {
  if (near.ended()) return near;
  return {far.sum + near.sum, far.count_and_end + near.count_and_end};
}
// The sum and count of both, where `far` is known to belong to the same segment. Unlike join it
// does not ask whether they have ended.
JAXTV_DEVICE PartialSegment append(const PartialSegment& far, const PartialSegment& near) {
  return {far.sum + near.sum, (far.count_and_end & ~std::int64_t(1)) + near.count_and_end};
}

// Two meanings, told by the variable's name. `open` of a range: its own pieces at its left and at
// its right end. `around` a range: the pieces outside it that touch its left and its right end.
struct OpenSegments {
  PartialSegment left, right;
};

// What one kernel leaves in scratch about a chunk for the next kernel.
struct ChunkSummary {
  // After summarise_chunks the open segments of the chunk; after scan_chunks the pieces around it.
  OpenSegments open;
  double gw;  // the chunk's part of the cotangent of the signal's λ
};

// sum / count. In float by quotient(), which omits the slow path for divisors that are not counts.
JAXTV_DEVICE float mean_of(double sum, float count) {
  const float total = float(sum), mean = quotient(total, count, reciprocal(count));
  return mean == mean ? mean : total;  // quotient() of an infinite sum is NaN
}
JAXTV_DEVICE double mean_of(double sum, double count) { return sum / count; }

template <class T>
JAXTV_DEVICE T mean_of(const PartialSegment& segment) {
  return mean_of(segment.sum, T(segment.count()));
}

}  // namespace jaxtv::cuda
