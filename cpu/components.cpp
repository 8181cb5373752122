#include "components.hpp"

#include <numeric>

namespace jaxtv::cpu {

Components::Components(std::int64_t size) {
  parent_.resize(size);
  std::iota(parent_.begin(), parent_.end(), 0);
}

void Components::average(double* v) {
  const std::int64_t size = std::int64_t(parent_.size());
  std::vector<double> sum(size, 0.0);
  std::vector<std::int32_t> count(size, 0);
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int32_t r = parent_[i] = parent_[parent_[i]];  // parents come first: r is the root
    sum[r] += v[i] - v[r];
    ++count[r];
  }
  for (std::int64_t i = 0; i < size; ++i)
    if (parent_[i] == i) sum[i] = v[i] + sum[i] / count[i];
  for (std::int64_t i = 0; i < size; ++i) v[i] = sum[parent_[i]];
}

namespace {

// The codes of one element.
struct ElementCodes {
  std::vector<std::uint8_t> arrays;
  std::int64_t size;

  ElementCodes(const Elements& elements, std::int64_t e, const std::uint8_t* codes)
      : arrays(elements.code_arrays() * elements.size()), size(elements.size()) {
    for (std::int64_t p = 0; p < elements.code_arrays(); ++p)
      gather(elements.code_layout(e, p), codes, &arrays[p * size]);
  }
  EdgeCode at(std::size_t a, std::int64_t i) const {
    return code_at(arrays[code_byte(a) * size + i], code_shift(a));
  }
};

Components components_of(const Elements& elements, const ElementCodes& code_of) {
  Components components(code_of.size);
  for (std::size_t a = 0; a < elements.axes.size(); ++a)
    for_edges(elements.shape(a), false, [&](std::int64_t i, std::int64_t j, std::int64_t) {
      if (code_of.at(a, i) == kInside) components.join(i, j);
    });
  return components;
}

}  // namespace

template <class T>
void components_jvp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* tx, const std::vector<Weights<T>>& tw, T* ty) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  parallel_for(part, elements.count(), [=, &elements, &tw](std::int64_t e) {
    const ElementCodes code_of(elements, e, codes);
    std::vector<double> v(code_of.size), weights;
    gather(elements.layout(e), tx, v.data());
    for (std::size_t a = 0; a < elements.axes.size(); ++a) {
      const Shape s = elements.shape(a);
      const std::int64_t length = tw[a].length(s.n);
      weights.resize(s.outer * length * s.inner);
      gather(elements.layout(e, a, length), tw[a].data, weights.data());
      for_edges(s, tw[a].per_edge, [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        const EdgeCode code = code_of.at(a, i);
        const double dual = code == kJumpUp ? weights[k] : code == kJumpDown ? -weights[k] : 0.0;
        v[i] += dual;
        v[j] -= dual;
      });
    }
    components_of(elements, code_of).average(v.data());
    scatter(elements.layout(e), v.data(), ty);
  });
}

template <class T>
void components_vjp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* g, T* gx, const std::vector<T*>& gw,
                    const std::vector<bool>& per_edge) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  parallel_for(part, elements.count(), [=, &elements, &gw, &per_edge](std::int64_t e) {
    const ElementCodes code_of(elements, e, codes);
    std::vector<double> v(code_of.size), weights;
    gather(elements.layout(e), g, v.data());
    components_of(elements, code_of).average(v.data());
    scatter(elements.layout(e), v.data(), gx);
    for (std::size_t a = 0; a < elements.axes.size(); ++a) {
      const Shape s = elements.shape(a);
      const std::int64_t length = per_edge[a] ? s.n - 1 : 1;
      weights.assign(s.outer * length * s.inner, 0.0);
      for_edges(s, per_edge[a], [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        const EdgeCode code = code_of.at(a, i);
        if (code == kJumpUp) weights[k] -= v[j] - v[i];
        if (code == kJumpDown) weights[k] += v[j] - v[i];
      });
      scatter(elements.layout(e, a, length), weights.data(), gw[a]);
    }
  });
}

#define JAXTV_INSTANTIATE(T)                                                                    \
  template void components_jvp(const Pool&, const Elements&, const std::uint8_t*, const T*,     \
                               const std::vector<Weights<T>>&, T*);                             \
  template void components_vjp(const Pool&, const Elements&, const std::uint8_t*, const T*, T*, \
                               const std::vector<T*>&, const std::vector<bool>&);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
