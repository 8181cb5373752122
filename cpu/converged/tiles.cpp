#include "converged/tiles.hpp"

#include <memory>

#include "jaxtv/edge_code.hpp"
#include "prox1d.hpp"

namespace jaxtv::cpu {

Tiles::Tiles(const Strips& strips, const std::vector<Shape>& shapes) : strips_(strips) {
  constexpr std::int64_t kFewStrips = 4, kSamples = 1024;
  std::int64_t row = 1;
  for (const Shape& s : shapes) {
    along_rows_.push_back(s.outer > 1);
    if (s.outer == 1) row = std::max(row, s.inner);
  }
  divisible_ = shapes.size() == 2 && strips.count() >= kFewStrips && row > 1;
  width_ = divisible_ ? row : strips.length;
  tile_height_ = strips.length / width_;
  tile_width_ = divisible_ ? std::max<std::int64_t>(16, kSamples / tile_height_) : width_;
  columns_ = (width_ + tile_width_ - 1) / tile_width_;
  held_.resize(count());
}

// The runs of line `line` of the tiles, in order, with the sums of p up to their ends.
template <class T>
void Tiles::find_runs(std::int64_t line, bool along_rows, const T* p,
                      std::vector<Run>& runs) const {
  const std::int64_t height = strips_.size / width_, tiles = along_rows ? columns_ : rows();
  const std::int64_t length = along_rows ? width_ : height;  // of a signal
  const std::int64_t step = along_rows ? tile_width_ : tile_height_;
  const std::int64_t across = along_rows ? tile_height_ : tile_width_;
  const std::int64_t first = line * across;
  const std::int64_t last = std::min(along_rows ? height : width_, first + across);
  std::vector<double> dual(last - first);  // after the samples so far
  const auto add = [&](std::int64_t begin, std::int64_t end) {
    if (along_rows) {
      for (std::int64_t r = first; r < last; ++r)
        for (std::int64_t c = begin; c < end; ++c) dual[r - first] -= double(p[r * width_ + c]);
    } else {
      for (std::int64_t r = begin; r < end; ++r)
        for (std::int64_t c = first; c < last; ++c) dual[c - first] -= double(p[r * width_ + c]);
    }
  };
  const auto is_held = [&](std::int64_t t) {
    return held_[along_rows ? line * columns_ + t : t * columns_ + line];
  };
  for (std::int64_t t = 0; t < tiles;) {
    const bool held = is_held(t);
    const std::int64_t begin = t * step;
    while (t < tiles && is_held(t) == held) ++t;
    const std::int64_t end = std::min(length, t * step);
    const std::vector<double> before = dual;
    add(begin, end);
    if (held) continue;
    const std::vector<double> after = end < length ? dual : std::vector<double>();
    if (along_rows)
      runs.push_back({first, last, begin, end, before, after});
    else
      runs.push_back({begin, end, first, last, before, after});
  }
}

template <class T>
void Tiles::hold(const Pool& pool, const std::vector<double>& parts, double most,
                 const std::vector<T*>& p) {
  std::int64_t held = 0;
  for (std::int64_t t = 0; t < count(); ++t) held += held_[t] = parts[t] <= most;
  any_held_ = held > count() / 8;
  if (!any_held_) return;
  for (std::size_t a = 0; a < 2; ++a) {
    std::vector<std::vector<Run>> lines(along_rows_[a] ? rows() : columns_);
    parallel_for(pool, lines.size(),
                 [&](std::int64_t i) { find_runs(i, along_rows_[a], p[a], lines[i]); });
    runs_[a].clear();
    for (auto& line : lines)
      for (Run& run : line) runs_[a].push_back(std::move(run));
  }
}

template <class T>
void Tiles::solve_run(const Run& run, bool along_rows, const Pass<T>& pass,
                      const Solver& solver) const {
  const std::int64_t rows = run.r1 - run.r0, columns = run.c1 - run.c0, size = rows * columns;
  const std::int64_t n = along_rows ? columns : rows, signals = along_rows ? rows : columns;
  const std::int64_t next = along_rows ? 1 : columns;
  const auto memory = std::make_unique_for_overwrite<T[]>(2 * size);
  T *a = memory.get(), *z = a + size;
  // Calls f(k, i): row k of the run begins at sample i of the image.
  const auto for_rows = [&](auto f) {
    for (std::int64_t r = 0; r < rows; ++r) f(r * columns, (run.r0 + r) * width_ + run.c0);
  };
  for_rows([&](std::int64_t k, std::int64_t i) {
    const T *x = pass.x + i, *minus = pass.minus[0] + i;
    for (std::int64_t c = 0; c < columns; ++c) a[k + c] = x[c] - minus[c];
  });
  for (std::int64_t s = 0; s < signals; ++s) {
    const std::int64_t first = along_rows ? s * n : s;
    a[first] -= T(run.before[s]);
    if (!run.after.empty()) a[first + (n - 1) * next] += T(run.after[s]);
  }
  Pass<T> one{};
  one.shape = along_rows ? Shape{rows, columns, 1} : Shape{1, rows, columns};
  one.x = a, one.y = z, one.w = pass.w;
  std::vector<T> w;
  if (pass.w.per_edge) {
    const std::int64_t pitch = along_rows ? width_ - 1 : width_;
    for (std::int64_t r = 0; r < rows - !along_rows; ++r)
      for (std::int64_t c = 0; c < columns - along_rows; ++c)
        w.push_back(pass.w.data[(run.r0 + r) * pitch + run.c0 + c]);
    one.w.data = w.data();
  } else {
    one.w.data += along_rows ? run.r0 : run.c0;
  }
  std::vector<std::uint8_t> codes;
  if (pass.codes) codes.resize(size), one.codes = codes.data(), one.code_shift = pass.code_shift;
  prox1d(Pool{1, nullptr}, one, solver);
  for_rows([&](std::int64_t k, std::int64_t i) {
    const T *x = pass.x + i, *minus = pass.minus[0] + i;
    for (std::int64_t c = 0; c < columns; ++c) pass.residual[i + c] = x[c] - minus[c] - z[k + c];
    std::copy(z + k, z + k + columns, pass.y + i);
    if (!pass.codes) return;
    // The edge after the last sample of a signal leaves the run: its dual and code stay.
    const std::int64_t edges = along_rows ? columns - 1 : k + columns < size ? columns : 0;
    for (std::int64_t c = 0; c < edges; ++c) {
      std::uint8_t& byte = pass.codes[i + c];
      byte = std::uint8_t((byte & ~(kCodeMask << pass.code_shift)) | codes[k + c]);
    }
  });
}

template <class T>
void Tiles::solve(const Pool& pool, std::size_t a, const Pass<T>& pass,
                  const Solver& solver) const {
  parallel_for(pool, runs_[a].size(),
               [&](std::int64_t i) { solve_run(runs_[a][i], along_rows_[a], pass, solver); });
}

#define JAXTV_INSTANTIATE(T)                                                 \
  template void Tiles::hold(const Pool&, const std::vector<double>&, double, \
                            const std::vector<T*>&);                         \
  template void Tiles::solve(const Pool&, std::size_t, const Pass<T>&, const Solver&) const;
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
