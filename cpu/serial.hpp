// Solves one signal at a time, by one thread, in double.
#pragma once

#include <cstdint>

#include "pass.hpp"

namespace jaxtv::cpu {

// Solves signals [begin, end) of a pass with its named method, one after the other.
template <class T>
void prox_serial(const Pass<T>& pass, const Solver& solver, std::int64_t begin, std::int64_t end);

// One signal of a SIMD group: samples x[k * stride], weights w[e * stride] (or one); y[k * stride]
// receives the solution.
template <class T>
struct StridedSignal {
  std::int64_t n, stride;
  const T *x, *w;
  bool per_edge;
  T* y;
};
template <class T>
void solve_strided(const StridedSignal<T>& signal);

// Samples [begin, end) of a signal between two cuts.
struct Piece {
  std::int64_t begin, end;
  signed char sign_before, sign_after;  // of the jumps at its two cuts; 0 at the ends of the signal
};

// Solves a piece, with the duals that its cuts fix, and writes it to z, laid out as the arrays of
// the pass. False, and nothing written, where it has no solution.
template <class T>
bool prox_piece(const Pass<T>& pass, std::int64_t signal, const Piece& piece, T* z);

// Fills the gap of signals [begin, end) from x, w and y of the pass.
template <class T>
void report_gap(const Pass<T>& pass, std::int64_t begin, std::int64_t end);

}  // namespace jaxtv::cpu
