// The taut string as an interval finds the cuts of a bundle. Take a segment that begins after a cut
// with dual u. If it has `length` samples with the sum S so far, the dual after them stays between
// plus and minus w when the value of the segment is in
//     [(S - u - w) / length, (S - u + w) / length].
// Samples are read until the intersection of these intervals is empty. Then the segment ends at the
// row that gave the bound which was not passed, and the next one begins (Condat 2013 keeps the same
// bounds as differences). Of the row before, a row needs a sum, a maximum and a minimum: there is
// no branch. Each lane is at its own row and loads several of its own samples at once.
//
// Samples are divided by the λ of their signal here, so that w is 1 in all lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "simd/bundle.hpp"
#include "simd/compact.hpp"
#include "simd/signals.hpp"
#include "simd/transpose.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// No sample is larger, so that a row of kSeparator after a signal is cut off from it, and from the
// next signal of the lane.
template <class T>
constexpr T kLargest = T(1e12);
template <class T>
constexpr T kSeparator = T(1e30);
// Near ties are not cut: to certify an edge that is inside of a segment costs less than to mend a
// cut.
template <class T>
constexpr T kWider = sizeof(T) == 4 ? T(1 + 0x1p-20) : T(1 + 0x1p-48);

// v, whole numbers from 0 to 2^22, as a mask type.
template <class V>
JAXTV_INLINE auto whole(V v) {
  using M = decltype(v == v);
  const V magic = V{} + (sizeof(v[0]) == 4 ? 0x1p23 : 0x1p52);
  return (M)(v + magic) - (M)magic;
}

template <class T, int kVectors>
class IntervalString {
  using V = typename Vectors<T>::V;
  using M = typename Vectors<T>::M;
  using I = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  static constexpr int kSignals = kVectors * kLanes<T>;
  static constexpr int kLogged = 8;  // blocks between two decodings of the log

 public:
  // Lane l begins at x + l * pitch and has `rows` rows; `duals` has one row more than that.
  IntervalString(const T* x, T* duals, std::int64_t rows, std::int64_t pitch)
      : x_(x), duals_(duals), rows_(rows), pitch_(pitch) {
    stop_ = M{} + I(rows_);
    nothing_ = stop_ * (2 * kSignals);
    for (int g = 0; g < kVectors; ++g) {
      for (int l = 0; l < kLanes<T>; ++l) {
        const I lane = g * kLanes<T> + l;
        lane_begin_[g][l] = position_[g][l] = lane * I(pitch_);
        entry_offset_[g][l] = 2 * lane - 2 * kSignals;
      }
      sum_[g] = count_[g] = low_[g] = high_[g] = V{};
      least_[g] = V{} - kInfinite;
      most_[g] = V{} + kInfinite;
      row_[g] = M{};
    }
  }

  // Writes the dual of every cut as plus or minus `weight`. Returns false where other methods are
  // faster.
  bool run(T weight) {
    for (bool longer = true;;) {
      I* end = log_;
      for (int i = 0; i < kLogged; ++i) {
        for (int g = 0; g < kVectors; ++g) end += longer ? block<8>(g, end) : block<4>(g, end);
        if (i % 2 == 0) continue;
        M left = {};
        for (int g = 0; g < kVectors; ++g) left |= stop_ - at_[g];
        if (any(left)) continue;
        decode(end, weight);
        return true;
      }
      decode(end, weight);
      read_ += kLogged * (longer ? 8 : 4) * kSignals;
      if (rereads_too_much()) return false;
      // A cut idles the rest of its block, and a longer block costs less for each sample.
      longer = double(end - log_) < (longer ? 0.80 : 0.48) * kLogged * kSignals;
    }
  }

 private:
  static constexpr T kInfinite = __builtin_huge_valf();

  const T* x_;
  T* duals_;
  std::int64_t rows_, pitch_, read_ = 0;
  // Per lane, of the present segment: C = S - u - w, and its length so far; the bounds of its
  // value, and the lengths that gave them; its first row. Then the next row to read, where that
  // sample is in x, and constants.
  V sum_[kVectors], count_[kVectors], least_[kVectors], most_[kVectors], low_[kVectors],
      high_[kVectors];
  M stop_, nothing_;  // the end of a lane; an entry of the log without effect
  M row_[kVectors], at_[kVectors], lane_begin_[kVectors], entry_offset_[kVectors];
  alignas(kBytes) I position_[kVectors][kLanes<T>];
  alignas(kBytes) I log_[(kLogged + 1) * kSignals];

  template <int kBlock>
  JAXTV_INLINE int block(int g, I* log) {
    constexpr int kQuad = kQuadSamples<T>;
    const V zero = {}, one = zero + T(1), width = zero + 2 * kWider<T>,
            nan = zero + T(__builtin_nanf(""));
    I* position = position_[g];
    asm volatile("" : "+m"(position_[g]));  // loads from memory cost less than extractions
    V sample[kBlock];
    JAXTV_UNROLL
    for (int q = 0; q < kBlock; q += kQuad) {
      V v[kQuad];
      for (int i = 0; i < kQuad; ++i) v[i] = Quads<T>::load(x_ + q, position + i);
      transpose_quads(v);
      for (int i = 0; i < kQuad; ++i) sample[q + i] = v[i];
    }
    V sum = sum_[g], count = count_[g], least = least_[g], most = most_[g], low = low_[g],
      high = high_[g];
    JAXTV_UNROLL
    for (int j = 0; j < kBlock; ++j) {
      sum += sample[j];
      count += one;
      const V r = one / count, lower = sum * r, upper = (sum + width) * r;
      low = lower >= least ? count : low;
      high = upper <= most ? count : high;
      least = vmax(lower, least);  // of a NaN and a number, these give the second operand
      most = vmin(upper, most);
      if (j + 1 == kBlock) break;
      const V old_least = least;  // NaN from here on where it is empty: nothing changes any more
      least = most < old_least ? nan : least;
      most = most < old_least ? nan : most;
    }
    const M open = least <= most;
    // The bound that was passed is that of the last row read: the other one is of an earlier row.
    const V length = vmin(low, high);
    const M down = high > low;
    const M next = row_[g] + whole(open < 0 ? count : length);
    const M entry = next * (2 * kSignals) + entry_offset_[g] - down;
    row_[g] = open < 0 ? row_[g] : next;
    const M at = next < stop_ ? next : stop_;
    at_[g] = at;
    const M place = at + lane_begin_[g];
    std::memcpy(position, &place, kBytes);
    sum_[g] = open < 0 ? sum : (V)((M)(zero - T(2)) & ~down);
    count_[g] = (V)((M)count & open);
    least_[g] = open < 0 ? least : zero - kInfinite;
    most_[g] = open < 0 ? most : zero + kInfinite;
    low_[g] = low;
    high_[g] = high;
    return compact(log, entry, ~open);
  }

  // On ramps, each sample is read again and again; the decomposition takes the same time for any
  // data, about that of ten readings. Long segments of photos are read eight times.
  bool rereads_too_much() const {
    constexpr std::int64_t kPerSegment = 8, kPerSample = 2, kPatience = 48;
    std::int64_t segments = 0, reached = 0;
    for (int g = 0; g < kVectors; ++g)
      for (int l = 0; l < kLanes<T>; ++l) {
        segments += row_[g][l];
        reached += at_[g][l];
      }
    return read_ - reached > kPerSegment * segments + kPerSample * reached + kPatience * kSignals;
  }

  // Scatters the duals of the logged cuts.
  void decode(I* end, T weight) {
    const M bits = (M)(V{} + weight);
    std::memcpy(end, &nothing_, kBytes);
    for (const I* at_log = log_; at_log < end; at_log += kLanes<T>) {
      M entry;
      std::memcpy(&entry, at_log, kBytes);
      const M dual = bits | entry << (8 * sizeof(I) - 1), index = entry >> 1;
      alignas(kBytes) T value[kLanes<T>];
      alignas(kBytes) I at[kLanes<T>];
      std::memcpy(value, &dual, kBytes);
      std::memcpy(at, &index, kBytes);
      asm volatile("" : "+m"(value), "+m"(at));
      JAXTV_UNROLL
      for (int l = 0; l < kLanes<T>; ++l) duals_[at[l]] = value[l];
    }
  }
};

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
