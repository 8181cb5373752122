// Which part of an image late iterations still solve.
//
// The duality gap of a polished iterate is a sum of terms >= 0 of samples and edges. Late in the
// converged mode a few tiles have nearly all of it. Then the others are held: their duals stay, and
// so do those of all edges between a held tile and another one. A pass solves the runs of active
// tiles along its axis, given the duals at their ends. That is block descent on the dual, so the
// certificate stays one of the whole image.
#pragma once

#include <cstdint>
#include <vector>

#include "jaxtv/solver.hpp"
#include "parallel.hpp"
#include "pass.hpp"
#include "strips.hpp"

namespace jaxtv::cpu {

// A strip is a row of tiles. They all are active at first.
class Tiles {
 public:
  // `divisible`: 2D with more than a few strips. Otherwise a tile is a whole strip, and stays
  // active.
  Tiles(const Strips& strips, const std::vector<Shape>& shapes);
  bool divisible() const { return divisible_; }
  std::int64_t rows() const { return strips_.count(); }
  std::int64_t count() const { return rows() * columns_; }
  std::int64_t begin(std::int64_t row) const { return strips_.begin(row); }
  std::int64_t end(std::int64_t row) const { return strips_.end(row); }

  // Calls f(tile, first, last) for the pieces of a row of tiles that are contiguous in memory.
  template <class F>
  void for_pieces(std::int64_t row, F f) const {
    for (std::int64_t i = begin(row); i < end(row); i += width_)
      for (std::int64_t c = 0; c < columns_; ++c)
        f(row * columns_ + c, i + c * tile_width_,
          std::min(end(row), i + std::min(width_, (c + 1) * tile_width_)));
  }

  bool any_held() const { return any_held_; }
  bool held(std::int64_t tile) const { return any_held_ && held_[tile]; }
  void activate_all() { any_held_ = false; }
  // Holds the tiles whose part is at most `most`, if they are not few. `p` are the duals along each
  // axis.
  template <class T>
  void hold(const Pool& pool, const std::vector<double>& parts, double most,
            const std::vector<T*>& p);

  // The pass along axis a, with two arrays that make its input: x - minus[0]. With codes these of
  // all edges inside the runs are replaced.
  template <class T>
  void solve(const Pool& pool, std::size_t a, const Pass<T>& pass, const Solver& solver) const;

 private:
  struct Run {  // samples [r0, r1) x [c0, c1) of the image
    std::int64_t r0, r1, c0, c1;
    std::vector<double> before, after;  // the duals at the ends of each signal; no `after` is 0
  };
  template <class T>
  void solve_run(const Run& run, bool along_rows, const Pass<T>& pass, const Solver& solver) const;
  template <class T>
  void find_runs(std::int64_t line, bool along_rows, const T* p, std::vector<Run>& runs) const;

  Strips strips_;
  bool divisible_;
  std::int64_t width_, tile_height_, tile_width_, columns_;  // samples per row; ..., tiles per row
  std::vector<bool> along_rows_;                             // of each axis
  std::vector<char> held_;
  bool any_held_ = false;
  std::vector<Run> runs_[2];  // along each axis
};

}  // namespace jaxtv::cpu
