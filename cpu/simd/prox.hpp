// The 1D prox of groups of signals: all steps, in order.
#pragma once

#include <cstdint>
#include <cstring>

#include "pass.hpp"
#include "serial.hpp"
#include "simd/certify.hpp"
#include "simd/decomposition.hpp"
#include "simd/edge_codes.hpp"
#include "simd/signals.hpp"
#include "simd/values.hpp"

namespace jaxtv::cpu::JAXTV_ISA {
namespace {

// Solves the signals that vectors could not, one by one in double. `prepare` has set their samples
// to 0 or subtracted an offset, so the samples are computed again from the pass.
template <class T, int kVectors>
void solve_unsolved(const Pass<T>& pass, const SignalOffsets& offsets,
                    SignalGroup<T, kVectors>& group) {
  constexpr int L = SignalGroup<T, kVectors>::kSignals;
  const std::int64_t n = group.n;
  for (int l = 0; l < offsets.count; ++l) {
    if (!group.unsolved[l]) continue;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t at = offsets.at[l] + k * offsets.stride;
      T a = pass.x[at];
      for (int j = 0; j < pass.num_minus; ++j) a -= pass.minus[j][at];
      group.samples[k * L + l] = a;
    }
    solve_strided<T>({.n = n,
                      .stride = L,
                      .x = group.samples + l,
                      .w = group.weights + l,
                      .per_edge = group.per_edge,
                      .y = group.messages + l});
  }
  const int last = offsets.count - 1;
  if (group.unsolved[last])  // also its copies in the lanes beyond: scatter stores them over it
    for (std::int64_t k = 0; k < n; ++k)
      for (int l = offsets.count; l < L; ++l)
        group.messages[k * L + l] = group.messages[k * L + last];
}

// Writes what the pass asks for, from the solution of the group. `input` has the rows of A
// (pass.hpp) and is overwritten by the residual.
template <class T, int kVectors>
void store_results(const Pass<T>& pass, const SignalOffsets& offsets,
                   const SignalGroup<T, kVectors>& group, T* input) {
  constexpr int L = SignalGroup<T, kVectors>::kSignals;
  const std::int64_t n = group.n;
  const T* z = group.messages;
  if (pass.y) scatter<L>(z, offsets, n, pass.y);
  if (pass.residual) {
    for (std::int64_t i = 0; i < n * L; ++i) input[i] -= z[i];
    scatter<L>(input, offsets, n, pass.residual);
  }
  if (pass.codes) {
    std::uint8_t* rows = reinterpret_cast<std::uint8_t*>(group.values);
    for (std::int64_t k = 0; k + 1 < n; ++k) row_codes(group, k, pass.code_shift, rows + k * L);
    std::memset(rows + (n - 1) * L, kSeparate << pass.code_shift, L);
    add_codes<L>(rows, offsets, n, pass.codes);
  }
}

// The signals [begin, end), at most as many as a group has lanes.
template <class T, int kVectors, bool kPerEdge>
void prox_group(const Pass<T>& pass, std::int64_t begin, std::int64_t end, void* scratch) {
  constexpr int L = SignalGroup<T, kVectors>::kSignals;
  const std::int64_t n = pass.shape.n;
  SignalGroup<T, kVectors> group(n, kPerEdge, scratch);
  const SignalOffsets offsets(pass.shape, n, begin, end, L);
  gather<L>(pass.x, offsets, n, group.samples);
  for (int j = 0; j < pass.num_minus; ++j)
    gather<L>(pass.minus[j], offsets, n, group.samples,
              [](auto& row, auto value) { row -= value; });
  gather<L>(pass.w.data, SignalOffsets(pass.shape, pass.w.pitch(n), begin, end, L),
            pass.w.length(n), group.weights);

  T* input = prepare(group, group.weights + (kPerEdge && n > 1 ? n - 1 : 1) * L);
  decompose<T, kVectors, kPerEdge>(group);
  for (int lane = 0; lane < L; lane += kDoubleLanes) segment_values(group, lane);
  typename Vectors<T>::M failed[kVectors];
  for (int g = 0; g < kVectors; ++g)
    failed[g] = uncertified<T, kVectors, kPerEdge>(group, g,
                                                   write_solution<T, kVectors, kPerEdge>(group, g));
  for (int g = 0; g < kVectors; ++g)
    if (any(failed[g])) repair<T, kVectors, kPerEdge>(group, g, failed[g]);
  for (int g = 0; g < kVectors; ++g) copy_unjoined_samples<T, kVectors, kPerEdge>(group, g);
  solve_unsolved(pass, offsets, group);
  store_results(pass, offsets, group, input);
}

template <class T, int kVectors>
void prox_group(const Pass<T>& pass, std::int64_t begin, std::int64_t end, void* scratch) {
  if (pass.w.per_edge)
    prox_group<T, kVectors, true>(pass, begin, end, scratch);
  else
    prox_group<T, kVectors, false>(pass, begin, end, scratch);
}

// Fewer vectors for longer signals: the scratch should stay in the second-level cache.
template <class T>
int signals_per_group(std::int64_t n) {
  constexpr std::int64_t kCache = 2 << 20;
  constexpr std::int64_t kPerSample = 4 * sizeof(T);  // samples, messages, values, duals
  const auto fits = [n](int signals) { return n * signals * kPerSample <= kCache; };
  if (fits(kMostVectors * kLanes<T>)) return kMostVectors * kLanes<T>;
  if (fits(2 * kLanes<T>)) return 2 * kLanes<T>;
  return kLanes<T>;
}

// The rows of a SignalGroup with weights per edge, and n rows for the copy that `prepare` makes.
template <class T>
std::size_t prox_scratch_bytes(std::int64_t n) {
  return (6 * n + 4) * signals_per_group<T>(n) * sizeof(T);
}

// Solves the signals [begin, end), at most as many as signals_per_group(n). Reads x, minus and w of
// the pass, writes y, residual and codes. For few signals it takes fewer vectors.
template <class T>
void prox(const Pass<T>& pass, std::int64_t begin, std::int64_t end, void* scratch) {
  if (end - begin > 2 * kLanes<T>)
    prox_group<T, kMostVectors>(pass, begin, end, scratch);
  else if (end - begin > kLanes<T>)
    prox_group<T, 2>(pass, begin, end, scratch);
  else
    prox_group<T, 1>(pass, begin, end, scratch);
}

}  // namespace
}  // namespace jaxtv::cpu::JAXTV_ISA
