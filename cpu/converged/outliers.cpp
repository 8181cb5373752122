#include "converged/outliers.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "converged/iterate.hpp"

namespace jaxtv::cpu {
namespace {

constexpr std::int64_t kMostGaps = 16;  // so many far ones at most
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Whether the samples leave at least half of 32 equal parts of their range empty. It spares most
// images the sort.
template <class T>
bool clustered(const T* x, std::int64_t size, T low, T high) {
  const double range = std::max(half_gap(low, high), std::numeric_limits<double>::min());
  std::uint32_t occupied = 0;
  for (std::int64_t i = 0; i < size; ++i)
    occupied |= std::uint32_t(1) << int(half_gap(low, x[i]) / range * 31.9);
  return std::popcount(occupied) <= 16;
}

// The largest sum of the weights at one sample of edges whose half gap is at least `least`.
template <class T>
double crossing_weight(const std::vector<Shape>& shapes, const std::vector<Weights<T>>& w,
                       std::int64_t size, const T* x, double least) {
  std::vector<double> at(size);
  for (std::size_t a = 0; a < shapes.size(); ++a)
    for_weighted_edges(shapes[a], w[a], 0, size,
                       [&, next = shapes[a].inner](std::int64_t i, std::int64_t last, auto weight) {
                         for (; i < last; ++i)
                           if (std::abs(half_gap(x[i], x[i + next])) >= least)
                             at[i] += weight(i), at[i + next] += weight(i);
                       });
  return *std::max_element(at.begin(), at.end());
}

struct FarGaps {
  double least = kInfinity, step = 0;  // half of the smallest; from a cluster to the next one
};

// `gaps` are halves in ascending order, `scale` what counts of the scale besides smaller gaps.
FarGaps far_gaps(const std::vector<double>& gaps, double scale) {
  const std::int64_t count = gaps.size();
  double smaller = 0;
  for (std::int64_t k = 0; k < count; smaller += gaps[k++])
    if (k >= count - kMostGaps && gaps[k] > kFar * (smaller + scale))
      return {gaps[k], 2 * (2 * smaller + scale)};
  return {};
}

}  // namespace

template <class T>
void Outliers<T>::bring_near(const std::vector<Shape>& shapes, const std::vector<Weights<T>>& w,
                             std::int64_t size, T* x) {
  const auto [low, high] = std::minmax_element(x, x + size);
  if (!clustered(x, size, *low, *high)) return;
  std::vector<T> sorted(x, x + size);
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> gaps;
  for (std::int64_t k = 0; k + 1 < size; ++k) gaps.push_back(half_gap(sorted[k], sorted[k + 1]));
  std::sort(gaps.begin(), gaps.end());

  const std::int64_t middle = size / 2;
  const double median = std::abs(double(sorted[middle])) / 2;
  FarGaps far = far_gaps(gaps, median);
  if (far.least == kInfinity) return;
  far = far_gaps(gaps, median + 2 * crossing_weight(shapes, w, size, x, far.least));
  if (far.least == kInfinity) return;

  // The cluster of the median stays. From there the others follow upwards and downwards.
  const auto is_far = [&](std::int64_t k) {
    return half_gap(sorted[k], sorted[k + 1]) >= far.least;
  };
  std::int64_t begin = middle, end = middle;
  while (begin > 0 && !is_far(begin - 1)) --begin;
  while (end + 1 < size && !is_far(end)) ++end;
  clusters_.push_back({sorted[begin], 0, 0, 0});
  double near = sorted[end];
  for (std::int64_t k = end; k + 1 < size; ++k)
    if (is_far(k)) {
      const double first = sorted[k + 1];
      near += far.step;
      clusters_.push_back({sorted[k + 1], first, near, first - near});
    }
  near = sorted[begin];
  for (std::int64_t k = begin; k-- > 0;) {
    if (is_far(k)) {
      const double last = sorted[k];
      near -= far.step;
      clusters_.insert(clusters_.begin(), {sorted[k], last, near, last - near});
    }
    clusters_.front().first = sorted[k];
  }
  of_sample_.resize(size);
  for (std::int64_t i = 0; i < size; ++i) {
    std::size_t c = clusters_.size();
    while (x[i] < clusters_[--c].first) continue;
    of_sample_[i] = std::uint8_t(c);
    const Cluster& cluster = clusters_[c];
    if (cluster.shift != 0) x[i] = T(cluster.near + (double(x[i]) - cluster.anchor));
  }
}

template class Outliers<float>;
template class Outliers<double>;

}  // namespace jaxtv::cpu
