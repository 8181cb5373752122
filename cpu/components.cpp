#include "components.hpp"

#include <numeric>

namespace jaxtv::cpu {

std::int64_t Elements::count() const {
  std::int64_t product = 1;
  for (std::int64_t d : dims) product *= d;
  return product == 0 ? 0 : product / size();
}

std::int64_t Elements::size() const {
  std::int64_t product = 1;
  for (std::int64_t a : axes) product *= dims[a];
  return product;
}

Shape Elements::shape(std::size_t a) const {
  Shape s{1, dims[axes[a]], 1};
  for (std::int64_t b : axes) {
    if (b < axes[a]) s.outer *= dims[b];
    if (b > axes[a]) s.inner *= dims[b];
  }
  return s;
}

Layout Elements::layout(std::int64_t e) const { return layout(e, 0, dims[axes[0]]); }

Layout Elements::layout(std::int64_t e, std::size_t a, std::int64_t length) const {
  Layout l{0, {}, {}};
  std::int64_t stride = 1;
  for (std::int64_t d = std::int64_t(dims.size()); d-- > 0;) {
    const std::int64_t n = d == axes[a] ? length : dims[d];
    if (std::find(axes.begin(), axes.end(), d) != axes.end()) {
      l.dims.push_back(n);
      l.strides.push_back(stride);
    } else {
      l.base += e % n * stride;
      e /= n;
    }
    stride *= n;
  }
  std::reverse(l.dims.begin(), l.dims.end());
  std::reverse(l.strides.begin(), l.strides.end());
  return l;
}

Layout Elements::plane(std::int64_t e, std::int64_t plane) const {
  Layout l = layout(e);
  std::int64_t block = 1;  // samples behind the batch dims
  for (auto d = dims.begin() + *std::min_element(axes.begin(), axes.end()); d != dims.end(); ++d)
    block *= *d;
  l.base = (l.base / block * planes() + plane) * block + l.base % block;
  return l;
}

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

// The masks of one element.
struct Codes {
  std::vector<std::uint8_t> planes;
  std::int64_t size;

  Codes(const Elements& elements, std::int64_t e, const std::uint8_t* masks)
      : planes(elements.planes() * elements.size()), size(elements.size()) {
    for (std::int64_t p = 0; p < elements.planes(); ++p)
      gather(elements.plane(e, p), masks, &planes[p * size]);
  }
  EdgeCode at(std::size_t a, std::int64_t i) const {
    return code_at(planes[code_byte(a) * size + i], code_shift(a));
  }
};

Components components_of(const Elements& elements, const Codes& codes) {
  Components components(codes.size);
  for (std::size_t a = 0; a < elements.axes.size(); ++a)
    each_edge(elements.shape(a), false, [&](std::int64_t i, std::int64_t j, std::int64_t) {
      if (codes.at(a, i) == kInside) components.join(i, j);
    });
  return components;
}

}  // namespace

template <class T>
void components_push(const Pool& pool, const Elements& elements, const std::uint8_t* masks,
                     const T* tx, const std::vector<Weights<T>>& tw, T* ty) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  parallel_for(part, elements.count(), [=, &elements, &tw](std::int64_t e) {
    const Codes codes(elements, e, masks);
    std::vector<double> v(codes.size), weights;
    gather(elements.layout(e), tx, v.data());
    for (std::size_t a = 0; a < elements.axes.size(); ++a) {
      const Shape s = elements.shape(a);
      const std::int64_t length = tw[a].length(s.n);
      weights.resize(s.outer * length * s.inner);
      gather(elements.layout(e, a, length), tw[a].data, weights.data());
      each_edge(s, tw[a].per_edge, [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        const EdgeCode code = codes.at(a, i);
        const double push = code == kJumpUp ? weights[k] : code == kJumpDown ? -weights[k] : 0.0;
        v[i] += push;
        v[j] -= push;
      });
    }
    components_of(elements, codes).average(v.data());
    scatter(elements.layout(e), v.data(), ty);
  });
}

template <class T>
void components_pull(const Pool& pool, const Elements& elements, const std::uint8_t* masks,
                     const T* g, T* gx, const std::vector<T*>& gw,
                     const std::vector<bool>& per_edge) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  parallel_for(part, elements.count(), [=, &elements, &gw, &per_edge](std::int64_t e) {
    const Codes codes(elements, e, masks);
    std::vector<double> v(codes.size), weights;
    gather(elements.layout(e), g, v.data());
    components_of(elements, codes).average(v.data());
    scatter(elements.layout(e), v.data(), gx);
    for (std::size_t a = 0; a < elements.axes.size(); ++a) {
      const Shape s = elements.shape(a);
      const std::int64_t length = per_edge[a] ? s.n - 1 : 1;
      weights.assign(s.outer * length * s.inner, 0.0);
      each_edge(s, per_edge[a], [&](std::int64_t i, std::int64_t j, std::int64_t k) {
        const EdgeCode code = codes.at(a, i);
        if (code == kJumpUp) weights[k] -= v[j] - v[i];
        if (code == kJumpDown) weights[k] += v[j] - v[i];
      });
      scatter(elements.layout(e, a, length), weights.data(), gw[a]);
    }
  });
}

#define JAXTV_INSTANTIATE(T)                                                                     \
  template void components_push(const Pool&, const Elements&, const std::uint8_t*, const T*,     \
                                const std::vector<Weights<T>>&, T*);                             \
  template void components_pull(const Pool&, const Elements&, const std::uint8_t*, const T*, T*, \
                                const std::vector<T*>&, const std::vector<bool>&);
JAXTV_INSTANTIATE(float)
JAXTV_INSTANTIATE(double)

}  // namespace jaxtv::cpu
