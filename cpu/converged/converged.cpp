// One element at a time. Names are those of jaxtv/_converged.py, which explains the method, the
// smoothing, the polish (means of y over what the passes have joined) and the stop. Outliers are
// near meanwhile.
#include "converged/converged.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "components.hpp"
#include "converged/gap.hpp"
#include "converged/outliers.hpp"
#include "prox1d.hpp"
#include "scratch.hpp"
#include "union_find.hpp"

namespace jaxtv::cpu {
namespace {

// From this tolerance on y need not be constant on the components that the passes tell.
constexpr double kLooseTol = 1e-4;
// Smoothing takes tol to this power times the weights.
constexpr double kSmoothingPower = 0.7;
// From this iteration on tiles may be held.
constexpr std::int32_t kFirstHold = 16;

// One element, taken out of the batch, centred and scaled by a power of two, its outliers near.
template <class T>
class Problem {
 public:
  Problem(const Pool& pool, const Elements& elements, std::int64_t e, const StopRule& stop,
          const Converged<T>& op)
      : op_(op),
        stop_(stop),
        exact_(stop.tol < kLooseTol),
        axes_(elements.axes.size()),
        shapes_(shapes_of(elements)),
        strips_(shapes_),
        tiles_(strips_, shapes_),
        size_(strips_.size),
        scratch_((4 * axes_ + 2) * Arena::bytes<T>(size_) +
                 (exact_ ? Components::bytes(size_) : 0)),
        memory_(scratch_.template as<void>()) {
    const auto array = [this] { return memory_.take<T>(size_); };
    const ElementLayout all = elements.layout(e);
    x_ = array(), a_ = array(), better_ = array(), other_ = array();
    z_.resize(axes_), p_.resize(axes_);
    for (std::size_t a = 0; a < axes_; ++a) z_[a] = array(), p_[a] = array();
    for (std::size_t a = 1; a < axes_; ++a) last_p_.push_back(array()), point_.push_back(array());
    gather(all, op.x, x_);
    for (std::size_t a = 1; a < axes_; ++a) gather(all, op.start_duals[a - 1], last_p_[a - 1]);
    for (std::size_t a = 0; a < axes_; ++a) {
      const std::int64_t length = op.w[a].length(shapes_[a].n);
      std::vector<T>& w = weights_.emplace_back(size_ / shapes_[a].n * length);
      gather(elements.layout(e, a, length), op.w[a].data, w.data());
    }
    codes_.resize(elements.code_arrays() * size_);
    y_ = axes_ == 2 ? z_[1] : a_;
    normalise(pool);
  }

  bool no_solution() const { return no_solution_; }

  void solve(const Pool& pool, const Solver& inner) {
    for (std::size_t a = 1; a < axes_; ++a)
      std::copy(last_p_[a - 1], last_p_[a - 1] + size_, point_[a - 1]);
    double t = 1;
    for (iterations = 1;; ++iterations) {
      const bool last = iterations == stop_.max_iterations,
                 tests = last || iterations >= next_test_;
      passes(pool, inner, tests);
      if (tests) test(pool, inner, last);
      if (converged || last) break;
      advance(pool, t);
    }
  }

  void write(const Pool& pool, const Elements& elements, std::int64_t e) {
    const ElementLayout all = elements.layout(e);
    if (no_solution_) {
      std::fill(a_, a_ + size_, std::numeric_limits<T>::quiet_NaN());
    } else if (weightless_) {
      gather(all, op_.x, a_);
    } else {
      constexpr double kMax = std::numeric_limits<T>::max();  // which round-off may exceed
      const double up = std::ldexp(1.0, exponent_);
      for_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const double y = (double(result_[i]) + mean_) * up;
          a_[i] = T(std::clamp(outliers_.any() ? y + outliers_.shift(i) : y, -kMax, kMax));
        }
      });
    }
    scatter(all, a_, op_.y);
    for (std::size_t a = 1; a < axes_; ++a) {
      T* dual = p_[a];
      const T up = no_solution_ ? T(0) : T(std::ldexp(1.0, exponent_));
      for (std::int64_t i = 0; i < size_; ++i) dual[i] = no_solution_ ? T(0) : dual[i] * up;
      scatter(all, dual, op_.duals[a - 1]);
    }
    write_codes(pool, elements, e);
    op_.gap[e] = T(std::ldexp(gap, 2 * exponent_));
    op_.iterations[e] = iterations;
    op_.converged[e] = converged;
  }

  double gap = std::numeric_limits<double>::quiet_NaN();
  std::int32_t iterations = 0;
  bool converged = false;

 private:
  static std::vector<Shape> shapes_of(const Elements& elements) {
    std::vector<Shape> shapes;
    for (std::size_t a = 0; a < elements.axes.size(); ++a) shapes.push_back(elements.shape(a));
    return shapes;
  }
  Weights<T> weights(std::size_t a) const { return {weights_[a].data(), op_.w[a].per_edge}; }
  std::vector<Weights<T>> all_weights() const {
    std::vector<Weights<T>> all;
    for (std::size_t a = 0; a < axes_; ++a) all.push_back(weights(a));
    return all;
  }

  void normalise(const Pool& pool) {
    bool finite = true;
    T low = x_[0], high = x_[0], least_weight = std::numeric_limits<T>::infinity();
    double edges = 0;
    for (std::int64_t i = 0; i < size_; ++i) {
      finite &= x_[i] - x_[i] == 0;
      low = std::min(low, x_[i]), high = std::max(high, x_[i]);
    }
    no_solution_ = !finite;
    weightless_ = true;
    for (const auto& w : weights_)
      for (T v : w) {
        no_solution_ |= !(v >= 0), weightless_ &= v == 0;
        least_weight = std::min(least_weight, v);
      }
    if (no_solution_) return;
    // Edges cross every gap, so this is where one may be far.
    if (!weightless_ && half_gap(low, high) > kFar * double(least_weight)) {
      outliers_.bring_near(shapes_, all_weights(), size_, x_);
      if (outliers_.any()) {
        const auto [first, last] = std::minmax_element(x_, x_ + size_);
        low = *first, high = *last;
      }
    }
    std::frexp(std::max(-low, high), &exponent_);
    exponent_ = std::clamp(exponent_, -1000, 1000);  // so that both factors are normal numbers
    const double down = std::ldexp(1.0, -exponent_);
    mean_ = sum_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
      double sum = 0;
      for (std::int64_t i = begin; i < end; ++i) sum += double(x_[i]) * down;
      return sum / double(size_);
    });
    const double deviation =
        sum_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) x_[i] = T(double(x_[i]) * down - mean_);
          return sum_of(begin, end, [x = x_](std::int64_t i) { return std::abs(x[i]); });
        });
    // No dual exceeds the sum of |x - mean|. Where that is 0 weights still tell which edges join.
    const double bound = deviation > 0 ? deviation : 1;
    for (std::size_t a = 0; a < axes_; ++a) {
      double total = 0;
      for (T& v : weights_[a]) {
        v = T(std::min(double(v) * down, bound));
        total += v;
      }
      edges += total * (op_.w[a].per_edge ? 1.0 : double(shapes_[a].n - 1));
    }
    // Nor does a state, the difference of two duals, exceed twice that: a start may be anything.
    for (T* dual : last_p_)
      for_strips(pool, strips_, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          dual[i] = dual[i] - dual[i] == 0
                        ? T(std::clamp(double(dual[i]) * down, -2 * deviation, 2 * deviation))
                        : T(0);
      });
    roundoff_ = double(std::numeric_limits<T>::epsilon()) * deviation / double(size_) * edges;
  }

  Pass<T> pass(std::size_t a, const T* x) const {
    Pass<T> pass{};
    pass.shape = shapes_[a];
    pass.x = x;
    pass.w = weights(a);
    pass.y = z_[a];
    pass.residual = p_[a];
    return pass;
  }

  // z_a = prox_a(a), p_a = a - z_a: the first axis from x less the other duals at `point`, the
  // others by a gradient step from there. With two axes that is x less the dual of the first, and
  // only a test needs the z_a.
  void passes(const Pool& pool, const Solver& inner, bool tests) {
    Pass<T> first = pass(0, x_);
    for (const T* v : point_) first.minus[first.num_minus++] = v;
    if (axes_ == 2) {
      Pass<T> second = pass(1, x_);
      second.minus[second.num_minus++] = p_[0];
      if (tiles_.any_held()) {
        if (tests) first.codes = second.codes = codes_.data(), second.code_shift = code_shift(1);
        tiles_.solve(pool, 0, first, inner);
        return tiles_.solve(pool, 1, second, inner);
      }
      if (!tests) first.y = second.y = nullptr;
      prox1d(pool, first, inner);
      return prox1d(pool, second, inner);
    }
    prox1d(pool, first, inner);
    const T step = T(1) / T(axes_ - 1);
    for (std::size_t a = 1; a < axes_; ++a) {
      for_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
        const T *point = point_[a - 1], *z = z_[0];
        for (std::int64_t i = begin; i < end; ++i) a_[i] = point[i] + z[i] * step;
      });
      prox1d(pool, pass(a, a_), inner);
    }
    for_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
      std::copy(x_ + begin, x_ + end, y_ + begin);
      for (const T* p : p_)
        for (std::int64_t i = begin; i < end; ++i) y_[i] -= p[i];
    });
  }

  Iterate<T> iterate() const {
    return {
        size_, x_,           shapes_, all_weights(), {z_.begin(), z_.end()}, {p_.begin(), p_.end()},
        y_,    codes_.data()};
  }

  // Whether y, or what smoothing or polish makes of it, is good enough; if not, when to ask again.
  void test(const Pool& pool, const Solver& inner, bool last) {
    const Iterate<T> it = iterate();
    const double optimum = dual_value(pool, strips_, it), enough = stop_.tol * optimum;
    const bool may_hold = exact_ && tiles_.divisible() && iterations >= kFirstHold;
    const double before = gap;
    double wanted = enough, now = 0;
    if (!may_hold) {
      now = gap = gap_of(pool, strips_, it, y_);
      result_ = y_;
      converged = gap <= enough && !exact_;
      if (converged) return;
      // By which polish or smoothing may divide the gap.
      wanted = (exact_ ? 1 + iterations / 3.0 : 2.5) * enough + roundoff_;
    }
    double power = exact_ ? 3 : 2;  // about which, of the iterations, the gap falls like
    if (now <= wanted || last) {
      if (exact_)
        now = polish(pool, may_hold, before, enough);
      else
        smooth(pool, inner), now = gap_of(pool, strips_, it, better_);
      wanted = enough, power *= 2;
      converged = now <= enough;
      if (may_hold || converged || now <= gap) gap = now, result_ = better_;
    }
    const double most = iterations < 16 && wanted > enough ? 2 : 1.2;
    const double factor = std::pow(now / wanted, 1 / power);
    const std::int32_t soonest = iterations + 1 + iterations / 16;
    next_test_ =
        std::max(soonest, std::int32_t(iterations * (factor < most ? factor : most) + 0.5));
    if (exact_ && tiles_.divisible() && iterations < kFirstHold)
      next_test_ = std::min(next_test_, std::max(soonest, kFirstHold));
  }

  // better = the means of y over what the passes have joined. Returns its gap. If `may_hold`, the
  // tiles that have little part in it are held.
  double polish(const Pool& pool, bool may_hold, double before, double enough) {
    if (!tiles_.any_held()) find_codes(pool);
    component_means(pool, shapes_, codes_.data(), y_, memory_, better_);
    const std::vector<double> parts = polished_gap(pool, tiles_, iterate(), better_);
    double total = 0;
    for (double part : parts) total += part;
    if (!may_hold) return total;
    // Where that does not help, what is held may be in the way.
    if (tiles_.any_held() && total > 0.8 * before) {
      tiles_.activate_all();
      return total;
    }
    tiles_.hold(pool, parts, enough / 2 / double(tiles_.count()), p_);
    for (std::int64_t row = 0; row < tiles_.rows(); ++row)
      tiles_.for_pieces(row, [this](std::int64_t tile, std::int64_t first, std::int64_t last) {
        if (!tiles_.held(tile)) return;
        std::copy(p_[1] + first, p_[1] + last, last_p_[0] + first);
        std::copy(p_[1] + first, p_[1] + last, point_[0] + first);
      });
    return total;
  }

  // better = y after a pass with small weights along each axis along which it is no pass's result.
  void smooth(const Pool& pool, const Solver& inner) {
    const T share = T(std::min(1.0, std::pow(stop_.tol, kSmoothingPower)));
    const T* from = y_;
    for (std::size_t a = 0; a < axes_; ++a) {
      if (z_[a] == y_) continue;
      std::vector<T> w = weights_[a];
      for (T& v : w) v *= share;
      std::swap(better_, other_);
      Pass<T> one = pass(a, from);
      one.w.data = w.data(), one.y = better_, one.residual = nullptr;
      prox1d(pool, one, inner);
      from = better_;
    }
  }

  // The edge codes of the last passes. Where all weights are 0 these are those of x, the solution.
  void find_codes(const Pool& pool) {
    for_strips(pool, strips_, [&](std::int64_t begin, std::int64_t end) {
      for (std::size_t byte = 0; byte < codes_.size(); byte += size_)
        std::fill_n(codes_.data() + byte + begin, end - begin, 0);
      for (std::size_t a = 0; a < axes_; ++a) {
        std::uint8_t* of_axis = &codes_[code_byte(a) * size_];
        const int shift = code_shift(a);
        for (std::int64_t i = begin; i < end; ++i) of_axis[i] |= kSeparate << shift;
        if (no_solution_) continue;
        const T* z = weightless_ ? a_ : z_[a];
        const auto encode = [=, next = shapes_[a].inner](std::int64_t first, std::int64_t last,
                                                         auto weight) {
          for (std::int64_t k = first; k < last; ++k) {
            const bool up = z[k]<z[k + next], down = z[k]> z[k + next], joins = weight(k) > 0;
            const int code = up ? kJumpUp : down ? kJumpDown : joins ? kInside : kSeparate;
            of_axis[k] ^= std::uint8_t((code ^ kSeparate) << shift);
          }
        };
        for_weighted_edges(shapes_[a], weights(a), begin, end, encode);
      }
    });
  }

  void write_codes(const Pool& pool, const Elements& elements, std::int64_t e) {
    if (!exact_ || no_solution_ || weightless_) find_codes(pool);
    for (std::int64_t byte = 0; byte < elements.code_arrays(); ++byte)
      scatter(elements.code_layout(e, byte), &codes_[byte * size_], op_.codes);
  }

  // point = p + beta (p - last p); the duals of this iteration become the last ones.
  void advance(const Pool& pool, double& t) {
    double uphill = 0;  // <point - p, p - last p>
    for (std::size_t a = 1; a < axes_; ++a)
      uphill += sum_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
        const T *v = point_[a - 1], *p = p_[a], *q = last_p_[a - 1];
        return sum_of(begin, end, [=](std::int64_t i) { return (v[i] - p[i]) * (p[i] - q[i]); });
      });
    const double next = (1 + std::sqrt(1 + 4 * t * t)) / 2;
    const T beta = T(uphill > 0 ? 0 : (t - 1) / next);
    t = uphill > 0 ? 1 : next;
    for (std::size_t a = 1; a < axes_; ++a) {
      for_strips(pool, strips_, [=, this](std::int64_t begin, std::int64_t end) {
        T* v = point_[a - 1];
        const T *p = p_[a], *q = last_p_[a - 1];
        for (std::int64_t i = begin; i < end; ++i) v[i] = p[i] + beta * (p[i] - q[i]);
      });
      std::swap(p_[a], last_p_[a - 1]);
    }
  }

  const Converged<T>& op_;
  const StopRule& stop_;
  bool exact_;  // y is to be constant on the components that the passes tell
  std::size_t axes_;
  std::vector<Shape> shapes_;  // of each axis, as the next ones
  Strips strips_;
  Tiles tiles_;
  std::int64_t size_;  // samples
  OperationScratch scratch_;
  Arena memory_;  // what the arrays leave is for polish
  Outliers<T> outliers_;
  std::vector<std::vector<T>> weights_;
  std::vector<std::uint8_t> codes_;  // of the edges, in the last polish or at the end
  std::vector<T*> z_, p_;            // results of the passes, and duals
  // Of each axis but the first: the duals of the last iteration, and the point between or beyond
  // them from which an iteration starts.
  std::vector<T*> last_p_, point_;
  T *x_, *a_, *y_;      // samples, input of a pass, x - sum p
  T *better_, *other_;  // of y, by smoothing or polish; where that was before
  const T* result_;     // y_ or better_
  std::int32_t next_test_ = 1;
  bool no_solution_ = false, weightless_ = false;
  int exponent_ = 0;  // x_ = x 2^-exponent_ - mean_
  double mean_ = 0;
  double roundoff_ = 0;  // of the gap
};

}  // namespace

template <class T>
void converged(const Pool& pool, const Elements& elements, const StopRule& stop,
               const Solver& inner, const Converged<T>& op) {
  for_elements(pool, elements.count(),
               [=, &elements, &stop, &inner, &op](std::int64_t e, const Pool& inside) {
                 Problem<T> problem(inside, elements, e, stop, op);
                 if (!problem.no_solution()) problem.solve(inside, inner);
                 problem.write(inside, elements, e);
               });
}

template void converged(const Pool&, const Elements&, const StopRule&, const Solver&,
                        const Converged<float>&);
template void converged(const Pool&, const Elements&, const StopRule&, const Solver&,
                        const Converged<double>&);

}  // namespace jaxtv::cpu
