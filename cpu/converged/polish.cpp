#include "converged/polish.hpp"

#include <cmath>
#include <limits>

#include "converged/gap.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::uint8_t kNotJoined = kClasses;

// codes[k - first]: the class of the edge from k to k + next, at least `least`, or kNotJoined.
template <class T, class Weight>
void classify(std::int64_t first, std::int64_t last, std::int64_t next, const T* z, const T* y,
              Weight weight, int least, std::uint8_t* codes) {
  for (std::int64_t k = first; k < last; ++k) {
    const T jump = std::abs(y[k] - y[k + next]), w = weight(k);
    int c = 0;
    for (int i = 0; i + 1 < kClasses; ++i) c += jump > w * T(kJumps[i]);
    codes[k - first] =
        std::uint8_t(z[k] == z[k + next] && w > 0 ? std::max(c, least) : int(kNotJoined));
  }
}

}  // namespace

template <class T>
void Polish<T>::start(const Pool& pool, const Iterate<T>& it, int first) {
  parallel_for(pool, strips_.count(), [&](std::int64_t strip) {
    const std::int64_t begin = strips_.begin(strip), end = strips_.end(strip);
    components_.separate(begin, end);
    if (it.y == it.z.back()) {
      const std::int64_t next = it.shapes.back().inner;
      for_weighted_edges(it.shapes.back(), it.w.back(), begin, end - next,
                         [&](std::int64_t i, std::int64_t last, auto weight) {
                           components_.join_signals(i, last, next, [=, y = it.y](std::int64_t k) {
                             return y[k] == y[k + next] && weight(k) > 0;
                           });
                         });
    }
    components_.add_values(begin, end, it.y);
    StripEdges& edges = edges_[strip];
    for (int c = 0; c < kClasses; ++c) edges.inside[c].clear(), edges.across[c].clear();
    std::vector<std::uint8_t> codes(end - begin);
    for (std::size_t a = 0; a < it.z.size(); ++a) {
      const std::int64_t next = it.shapes[a].inner;
      const bool joined = it.y == it.z[a];  // inside the strip
      for_weighted_edges(it.shapes[a], it.w[a], joined ? end - next : begin, end,
                         [&](std::int64_t k, std::int64_t last, auto weight) {
                           classify(k, last, next, it.z[a], it.y, weight, first, codes.data());
                           for (const std::uint8_t* code = codes.data(); k < last; ++k, ++code) {
                             if (*code == kNotJoined) continue;
                             if (k + next >= end)
                               edges.across[*code].emplace_back(k, k + next);
                             else if (*code == first)
                               components_.join(k, k + next);
                             else
                               edges.inside[*code].emplace_back(k, k + next);
                           }
                         });
    }
  });
}

template <class T>
double Polish<T>::solve(const Pool& pool, const Iterate<T>& it, int first, int last,
                        double enough) {
  start(pool, it, first);
  Edges across;
  double least = std::numeric_limits<double>::infinity();
  for (int c = first; c <= last; ++c) {
    for (const StripEdges& e : edges_)
      across.insert(across.end(), e.across[c].begin(), e.across[c].end());
    parallel_for(pool, strips_.count(), [&](std::int64_t strip) {
      for (const auto& [i, j] : edges_[strip].inside[c]) components_.join(i, j);
    });
    components_.average(pool, across, candidate_);
    const double gap = gap_of(pool, strips_, it, candidate_);
    if (gap < least) {
      least = gap;
      std::swap(candidate_, best_);
    }
    if (least <= enough) break;
  }
  return least;
}

template class Polish<float>;
template class Polish<double>;

}  // namespace jaxtv::cpu
