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

// Fills the strip [begin, end) and joins its edges. Returns those that leave it.
template <class V>
std::vector<SamplePair> join_strip(const std::vector<Shape>& shapes, const std::uint8_t* codes,
                                   std::int64_t size, const V* v, std::int64_t begin,
                                   std::int64_t end, Components& components) {
  std::vector<SamplePair> leaving;
  components.separate(begin, end);
  for (std::size_t a = shapes.size(); a-- > 0;) {
    const bool first = a + 1 == shapes.size();
    const std::int64_t next = shapes[a].inner;
    const auto inside = [of = codes + code_byte(a) * size, shift = code_shift(a)](std::int64_t i) {
      return code_at(of[i], shift) == kInside;
    };
    for_edge_runs(shapes[a], begin, end, [&](std::int64_t i, std::int64_t last, std::int64_t) {
      if (first) {
        components.join_signals(i, std::min(last, end - next), next, inside);
        i = std::max(i, end - next);
      }
      for (; i < last; ++i) {
        if (!inside(i)) continue;
        if (i + next < end)
          components.join(i, i + next);
        else
          leaving.emplace_back(i, i + next);
      }
    });
    if (first) components.add_values(begin, end, v);
  }
  return leaving;
}

// v: its means over the components.
void average(const Pool& pool, const Elements& elements, const ElementCodes& code_of,
             std::vector<double>& v) {
  std::vector<Shape> shapes;
  for (std::size_t a = 0; a < elements.axes.size(); ++a) shapes.push_back(elements.shape(a));
  const OperationScratch scratch(Components::bytes(code_of.size));
  component_means(pool, shapes, code_of.arrays.data(), v.data(), Arena(scratch.as<void>()),
                  v.data());
}

}  // namespace

template <class V>
void component_means(const Pool& pool, const std::vector<Shape>& shapes, const std::uint8_t* codes,
                     const V* v, Arena memory, V* means) {
  const Strips strips(shapes);
  Components components(strips, memory);
  std::vector<std::vector<SamplePair>> across(strips.count());
  parallel_for(pool, strips.count(), [&](std::int64_t s) {
    across[s] =
        join_strip(shapes, codes, strips.size, v, strips.begin(s), strips.end(s), components);
  });
  for (std::size_t s = 1; s < across.size(); ++s)
    across[0].insert(across[0].end(), across[s].begin(), across[s].end());
  components.average(pool, across[0], means);
}

template void component_means(const Pool&, const std::vector<Shape>&, const std::uint8_t*,
                              const float*, Arena, float*);
template void component_means(const Pool&, const std::vector<Shape>&, const std::uint8_t*,
                              const double*, Arena, double*);

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
      // As conjugate gradients for the isotropic prox have it, in every step.
      if (std::all_of(weights.begin(), weights.end(), [](double w) { return w == 0; })) continue;
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
