// Connected components of samples, and means over them, found by strips at the same time
// (union-find). Results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "scratch.hpp"
#include "strips.hpp"

namespace jaxtv::cpu {

using SamplePair = std::pair<std::int32_t, std::int32_t>;

// A component of a strip has its first sample as its root, which holds the sum and the count. More
// edges may be joined at any time; means are of what is joined so far. Strips may be filled and
// joined at the same time.
class Components {
 public:
  // Below 2^31 samples. The memory is the caller's, of `bytes`.
  Components(const Strips& strips, Arena& memory)
      : strips_(strips),
        parent_(memory.take<std::int32_t>(strips.size)),
        count_(memory.take<std::int32_t>(strips.size)),
        group_(memory.take<std::int32_t>(strips.size)),
        sum_(memory.take<double>(strips.size)) {}
  static std::size_t bytes(std::int64_t size) {
    return 3 * Arena::bytes<std::int32_t>(size) + Arena::bytes<double>(size);
  }

  // Fills a strip: every sample of [begin, end) by itself; then the edges from k to k + next with
  // joined(k), which join whole signals or none of them; then the values.
  void separate(std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) parent_[i] = std::int32_t(i), group_[i] = kNoGroup;
  }
  template <class Joined>
  void join_signals(std::int64_t first, std::int64_t last, std::int64_t next, Joined joined) {
    for (std::int64_t i = first; i < last; ++i)
      parent_[i + next] = joined(i) ? parent_[i] : std::int32_t(i + next);
  }
  template <class T>
  void add_values(std::int64_t begin, std::int64_t end, const T* v) {
    for (std::int64_t i = begin; i < end; ++i) sum_[i] = 0, count_[i] = 0;
    for (std::int64_t i = begin; i < end; ++i)
      sum_[parent_[i]] += double(v[i]), ++count_[parent_[i]];
  }
  // Two samples of one strip.
  void join(std::int64_t i, std::int64_t j) {
    if (parent_[i] == parent_[j]) return;
    const std::int32_t p = root(std::int32_t(i)), q = root(std::int32_t(j));
    if (p != q) unite(std::min(p, q), std::max(p, q));
  }
  // means: of every sample, over its component, with `across` the joined edges between strips.
  template <class T>
  void average(const Pool& pool, const std::vector<SamplePair>& across, T* means);

 private:
  static constexpr std::int32_t kNoGroup = -1;
  // Components that edges between strips join.
  struct Group {
    std::int32_t parent;
    std::int64_t count;
    double sum;
  };
  std::int32_t root(std::int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void unite(std::int32_t first, std::int32_t second) {
    parent_[second] = first;
    sum_[first] += sum_[second];
    count_[first] += count_[second];
  }
  std::int32_t group(std::int32_t root);      // of a component; made at the first call
  std::int32_t first_of(std::int32_t group);  // the group that holds the sum
  void join_groups(const std::vector<SamplePair>& across);

  Strips strips_;
  std::int32_t *parent_, *count_, *group_;  // group_: of roots, kNoGroup where they have none
  double* sum_;
  std::vector<Group> groups_;
  std::vector<std::int32_t> roots_;  // of each group
};

}  // namespace jaxtv::cpu
