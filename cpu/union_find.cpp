#include "union_find.hpp"

namespace jaxtv::cpu {

std::int32_t Components::group(std::int32_t root) {
  if (group_[root] == kNoGroup) {
    group_[root] = std::int32_t(groups_.size());
    groups_.push_back({group_[root], count_[root], sum_[root]});
    roots_.push_back(root);
  }
  return group_[root];
}

std::int32_t Components::first_of(std::int32_t g) {
  while (groups_[g].parent != g) g = groups_[g].parent = groups_[groups_[g].parent].parent;
  return g;
}

void Components::join_groups(const std::vector<SamplePair>& across) {
  for (std::int32_t root : roots_) group_[root] = kNoGroup;
  groups_.clear();
  roots_.clear();
  for (const auto& [i, j] : across) {
    const std::int32_t p = first_of(group(root(i))), q = first_of(group(root(j)));
    if (p == q) continue;
    Group &first = groups_[std::min(p, q)], &second = groups_[std::max(p, q)];
    second.parent = std::min(p, q);
    first.sum += second.sum;
    first.count += second.count;
  }
}

template <class T>
void Components::average(const Pool& pool, const std::vector<SamplePair>& across, T* means) {
  join_groups(across);
  for_strips(pool, strips_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) parent_[i] = parent_[parent_[i]];   // to the root
    for (std::int64_t i = begin; i < end; ++i) means[i] = T(sum_[i] / count_[i]);  // of roots
  });
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Group& first = groups_[first_of(std::int32_t(g))];
    means[roots_[g]] = T(first.sum / double(first.count));
  }
  for_strips(pool, strips_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) means[i] = means[parent_[i]];
  });
}

template void Components::average(const Pool&, const std::vector<SamplePair>&, float*);
template void Components::average(const Pool&, const std::vector<SamplePair>&, double*);

}  // namespace jaxtv::cpu
