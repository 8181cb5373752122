// Solves one signal at a time, in double.
#pragma once

#include "jaxtv/edge_code.hpp"
#include "sweep.hpp"

namespace jaxtv::cpu {

// Solves signals [begin, end) of a sweep with its named method, one after the other.
template <class T>
void prox_serial(const Sweep<T>& sweep, const Solver& solver, std::int64_t begin, std::int64_t end);

// Samples [begin, end) of a signal between two cuts; left, right: the signs of their jumps, 0 at
// the ends of the signal.
struct Piece {
  std::int64_t begin, end;
  signed char left, right;
  double scale;  // max |sample| of the whole signal, to which round-off is relative
};

// Solves a piece, with the duals that its cuts fix, and writes it to z, laid out as the sweep's
// arrays. False, and nothing written, where it has no solution.
template <class T>
bool prox_piece(const Sweep<T>& sweep, std::int64_t signal, const Piece& piece, T* z);

// Fills gap, iterations and converged of signals [begin, end) from x, w and y of the sweep.
template <class T>
void report_gap(const Sweep<T>& sweep, std::int64_t begin, std::int64_t end);

}  // namespace jaxtv::cpu
