#include "elements.hpp"

#include <algorithm>

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

ElementLayout Elements::layout(std::int64_t e) const { return layout(e, 0, dims[axes[0]]); }

ElementLayout Elements::layout(std::int64_t e, std::size_t a, std::int64_t length) const {
  ElementLayout l{0, {}, {}};
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

ElementLayout Elements::code_layout(std::int64_t e, std::int64_t byte) const {
  ElementLayout l = layout(e);
  std::int64_t block = 1;  // samples after the batch dims
  for (auto d = dims.begin() + *std::min_element(axes.begin(), axes.end()); d != dims.end(); ++d)
    block *= *d;
  l.base = (l.base / block * code_arrays() + byte) * block + l.base % block;
  return l;
}

}  // namespace jaxtv::cpu
