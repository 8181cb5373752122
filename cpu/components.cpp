#include "components.hpp"

#include "strips.hpp"
#include "union_find.hpp"

namespace jaxtv::cpu {

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

// v: its means over the components.
void average(const Pool& pool, const Elements& elements, const ElementCodes& code_of,
             std::vector<double>& v) {
  std::vector<Shape> shapes;
  for (std::size_t a = 0; a < elements.axes.size(); ++a) shapes.push_back(elements.shape(a));
  const Strips strips(shapes);
  const OperationScratch scratch(Components::bytes(strips.size));
  Arena memory(scratch.as<void>());
  Components components(strips, memory);
  std::vector<std::vector<SamplePair>> across(strips.count());
  parallel_for(pool, strips.count(), [&](std::int64_t strip) {
    const std::int64_t begin = strips.begin(strip), end = strips.end(strip);
    components.separate(begin, end);
    components.add_values(begin, end, v.data());
    for (std::size_t a = 0; a < shapes.size(); ++a)
      for_edge_runs(shapes[a], begin, end, [&](std::int64_t i, std::int64_t last, std::int64_t) {
        for (std::int64_t j = i + shapes[a].inner; i < last; ++i, ++j) {
          if (code_of.at(a, i) != kInside) continue;
          if (j < end)
            components.join(i, j);
          else
            across[strip].emplace_back(i, j);
        }
      });
  });
  for (std::size_t s = 1; s < across.size(); ++s)
    across[0].insert(across[0].end(), across[s].begin(), across[s].end());
  components.average(pool, across[0], v.data());
}

}  // namespace

template <class T>
void components_jvp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* tx, const std::vector<Weights<T>>& tw, T* ty) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  for_elements(part, elements.count(), [=, &elements, &tw](std::int64_t e, const Pool& inside) {
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
    average(inside, elements, code_of, v);
    scatter(elements.layout(e), v.data(), ty);
  });
}

template <class T>
void components_vjp(const Pool& pool, const Elements& elements, const std::uint8_t* codes,
                    const T* g, T* gx, const std::vector<T*>& gw,
                    const std::vector<bool>& per_edge) {
  const Pool part = part_of(pool, elements.count() * elements.size(), 4096);
  for_elements(part, elements.count(),
               [=, &elements, &gw, &per_edge](std::int64_t e, const Pool& inside) {
                 const ElementCodes code_of(elements, e, codes);
                 std::vector<double> v(code_of.size), weights;
                 gather(elements.layout(e), g, v.data());
                 average(inside, elements, code_of, v);
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
