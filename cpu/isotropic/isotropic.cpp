// One element at a time. Names are those of jaxtv/_fgp.py.
#include "isotropic/isotropic.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "elements.hpp"
#include "isa.hpp"
#include "scratch.hpp"

namespace jaxtv::cpu {
namespace {

// One element, centred and scaled by a power of two, in padded lines
// (simd/gradient_projection.hpp).
template <class T>
class Problem {
 public:
  Problem(const Pool& pool, const Pixels& pixels, std::int64_t e, const Isotropic<T>& op)
      : op_(op),
        kernel_(projection_kernel<T>()),
        e_(e),
        sizes_(pixels.sizes),
        strides_(sizes_.size(), 1),
        count_(pixels.count()),
        length_(sizes_.back()),
        pool_(part_of(pool, pixels.channels * count_, kSamplesPerThread)) {
    constexpr std::int64_t kStripSamples = 16384, kSlices = 4, k = Grid::kMultiple;
    for (std::size_t a = sizes_.size() - 1; a-- > 1;) strides_[a - 1] = strides_[a] * sizes_[a];
    const std::int64_t pitch = (length_ + k - 1) / k * k;
    p_.grid = {int(sizes_.size()), pixels.channels, count_ / length_, pitch,
               sizes_.data(),      strides_.data()};
    p_.step = T(1) / T(4 * sizes_.size());
    // Strips are whole slices along the first axis, and do not depend on the number of threads.
    slice_ = sizes_.size() > 1 ? strides_[0] : 1;
    strip_ = slice_ * std::max(kSlices, kStripSamples / (slice_ * pitch));
  }

  void solve(const StopRule& stop) {
    const Grid& g = p_.grid;
    const std::int64_t plane = g.plane(), arrays = g.channels * plane;
    const std::int64_t weights = op_.per_pixel ? plane : g.pitch;
    const std::int64_t duals = g.axes * arrays;
    // A y is read beyond its end, where none may be written.
    const std::int64_t padded = arrays + Grid::kMultiple;
    OperationScratch scratch(Arena::bytes<T>(Grid::kMultiple) + 2 * Arena::bytes<T>(duals) +
                             3 * Arena::bytes<T>(padded) + Arena::bytes<T>(arrays) +
                             Arena::bytes<T>(weights) + Arena::bytes<T>(g.pitch));
    Arena memory(scratch.template as<void>());
    const auto zeros = [&](std::int64_t size) {
      T* array = memory.take<T>(size);
      std::memset(array, 0, size * sizeof(T));
      return array;
    };
    zeros(Grid::kMultiple);  // before the first dual
    u_ = zeros(duals), p_.last_u = zeros(duals);
    y_ = zeros(padded), last_y_ = zeros(padded), p_.new_y = zeros(padded);
    x_ = zeros(arrays), w_ = zeros(weights);
    T* has_next = zeros(g.pitch);
    std::fill(has_next, has_next + length_ - 1, T(1));
    p_.x = x_, p_.w = w_, p_.next_w = op_.per_pixel ? g.pitch : 0, p_.has_next = has_next;
    normalise();
    if (!no_solution_) {
      constant_ = constant_is_optimal();
      if (!constant_) iterate(stop);
    }
    write();
  }

 private:
  // Calls f(strip, first line, end) for all strips.
  template <class F>
  void for_strips(F f) const {
    parallel_for(pool_, strips(), [&](std::int64_t s) {
      f(s, s * strip_, std::min(p_.grid.lines, (s + 1) * strip_));
    });
  }
  std::int64_t strips() const { return (p_.grid.lines + strip_ - 1) / strip_; }

  // Sum of f(first line, end) over the strips, in order.
  template <class F>
  double sum_strips(F f) const {
    std::vector<double> parts(strips());
    for_strips(
        [&](std::int64_t s, std::int64_t begin, std::int64_t end) { parts[s] = f(begin, end); });
    double total = 0;
    for (double part : parts) total += part;
    return total;
  }

  // Calls f(line, i, k) for these lines of a channel: where they begin in the element, and padded.
  template <class F>
  void for_lines(std::int64_t begin, std::int64_t end, std::int64_t c, F f) const {
    for (std::int64_t line = begin; line < end; ++line)
      f(line, c * count_ + line * length_, c * p_.grid.plane() + line * p_.grid.pitch);
  }
  // Calls f(i, k) for the samples of these lines in a channel, or in all of them.
  template <class F>
  void for_pixels(std::int64_t begin, std::int64_t end, std::int64_t c, F f) const {
    for_lines(begin, end, c, [&](std::int64_t, std::int64_t from, std::int64_t to) {
      for (std::int64_t i = 0; i < length_; ++i) f(from + i, to + i);
    });
  }
  template <class F>
  void for_samples(std::int64_t begin, std::int64_t end, F f) const {
    for (std::int64_t c = 0; c < p_.grid.channels; ++c) for_pixels(begin, end, c, f);
  }

  const T* element(const T* array) const { return array + e_ * p_.grid.channels * count_; }

  void normalise() {
    const Grid& g = p_.grid;
    const T* x = element(op_.x);
    std::vector<T> largest(strips());
    std::vector<char> bad(strips());
    for_strips([&](std::int64_t s, std::int64_t begin, std::int64_t end) {
      T most = 0;
      bool finite = true;
      for_samples(begin, end, [&](std::int64_t i, std::int64_t) {
        const T size = std::abs(x[i]);
        finite &= size - size == 0;
        most = size > most ? size : most;
      });
      largest[s] = most, bad[s] = !finite;
    });
    no_solution_ = std::count(bad.begin(), bad.end(), 1) > 0;
    const std::int64_t weights = op_.per_pixel ? count_ : 1;
    const T* w = op_.w + e_ * weights;
    weightless_ = true;
    for (std::int64_t i = 0; i < weights; ++i)
      no_solution_ |= !(w[i] >= 0), weightless_ &= w[i] == 0;
    if (no_solution_) return;
    std::frexp(*std::max_element(largest.begin(), largest.end()), &exponent_);
    exponent_ = std::clamp(exponent_, -1000, 1000);  // so that both factors are normal numbers
    const double down = std::ldexp(1.0, -exponent_);
    double deviation = 0;
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const double mean = sum_strips([&](std::int64_t begin, std::int64_t end) {
        double sum = 0;
        for_pixels(begin, end, c,
                   [&](std::int64_t i, std::int64_t) { sum += double(x[i]) * down; });
        return sum / double(count_);
      });
      mean_.push_back(mean);
      deviation += sum_strips([&](std::int64_t begin, std::int64_t end) {
        double sum = 0;
        for_pixels(begin, end, c, [&](std::int64_t i, std::int64_t k) {
          x_[k] = T(double(x[i]) * down - mean);
          sum += std::abs(double(x_[k]));
        });
        return sum;
      });
    }
    // No pixel jumps at a weight above this.
    const double bound = deviation > 0 ? double(g.axes * g.channels) * deviation : 1;
    const auto bounded = [=](T v) { return T(std::min(double(v) * down, bound)); };
    if (!op_.per_pixel) return std::fill(w_, w_ + g.pitch, bounded(w[0]));
    for_strips([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for_pixels(begin, end, 0, [&](std::int64_t i, std::int64_t k) { w_[k] = bounded(w[i]); });
    });
  }

  // Whether the mean is the solution: sums along one axis after the other are a dual for it. It is
  // left in u_ then.
  bool constant_is_optimal() {
    const Grid& g = p_.grid;
    const std::int64_t plane = g.plane(), size = g.channels * plane;
    const T most = *std::max_element(x_, x_ + size), least = *std::min_element(x_, x_ + size);
    const T w = *std::max_element(w_, w_ + (op_.per_pixel ? plane : g.pitch));
    if (2 * g.axes * w < std::max(most, -least)) return false;  // |D^T u| is at most that
    std::vector<double> rest(x_, x_ + size);
    for (int a = 0; a < g.axes; ++a) {
      const bool last = a + 1 == g.axes;
      const std::int64_t n = sizes_[a], stride = last ? 1 : strides_[a] * g.pitch;
      const std::int64_t block = last ? g.pitch : n * stride;
      for (std::int64_t k = 0; k < size; k += block)
        for (std::int64_t j = k; j < k + stride; ++j) {
          double mean = 0, sum = 0;
          for (std::int64_t i = 0; i < n; ++i) mean += rest[j + i * stride] / double(n);
          for (std::int64_t i = 0; i < n; ++i) {
            sum -= rest[j + i * stride] - mean;
            u_[a * size + j + i * stride] = i + 1 < n ? T(sum) : T(0);
            rest[j + i * stride] = mean;
          }
        }
    }
    bool feasible = true;
    for_pixels(0, g.lines, 0, [&](std::int64_t, std::int64_t k) {
      feasible &= norm(k) <= w_[op_.per_pixel ? k : 0];
    });
    if (!feasible) std::fill(u_, u_ + g.axes * size, T(0));
    return feasible;
  }

  // |u_p| at a sample of the first channel.
  T norm(std::int64_t k) const {
    T square = 0;
    for (std::int64_t a = 0; a < p_.grid.axes * p_.grid.channels; ++a)
      square += u_[a * p_.grid.plane() + k] * u_[a * p_.grid.plane() + k];
    return std::sqrt(square);
  }

  // The dual that is nearest to the start, whatever is in it.
  void load_start() {
    const Grid& g = p_.grid;
    const double down = std::ldexp(1.0, -exponent_);
    const double most = std::pow(double(std::numeric_limits<T>::max()), 0.25);
    const auto load = [=](T v) {
      return v - v == 0 ? T(std::clamp(double(v) * down, -most, most)) : T(0);
    };
    for_strips([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      bool any = false;
      for (std::int64_t array = 0; array < g.axes * g.channels; ++array) {
        const int a = int(array / g.channels);
        const T* start = element(op_.start[a]);
        T* u = u_ + a * g.channels * g.plane();
        const auto line_of = [&](std::int64_t line, std::int64_t from, std::int64_t to) {
          const bool is_last = a + 1 == g.axes;
          if (!is_last && g.index(line, a) + 1 == sizes_[a]) return;
          for (std::int64_t i = 0; i < length_ - is_last; ++i)
            any |= (u[to + i] = load(start[from + i])) != 0;
        };
        for_lines(begin, end, array % g.channels, line_of);
      }
      if (any) project(begin, end);
    });
  }

  void project(std::int64_t begin, std::int64_t end) {
    for_pixels(begin, end, 0, [&](std::int64_t, std::int64_t k) {
      const T size = norm(k), w = w_[op_.per_pixel ? k : 0];
      if (!(size > w)) return;
      for (std::int64_t a = 0; a < p_.grid.axes * p_.grid.channels; ++a)
        u_[a * p_.grid.plane() + k] *= w / size;
    });
  }

  void iterate(const StopRule& stop) {
    load_start();
    std::swap(u_, p_.last_u);  // primal is of last_u
    for_strips([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      kernel_.primal(p_, begin, end);
    });
    std::swap(u_, p_.last_u), std::swap(y_, p_.new_y);
    double t = 1;
    p_.beta = 0;
    std::int32_t next_test = 1;
    for (iterations_ = 1;; ++iterations_) {
      const double uphill = step();
      const bool last = iterations_ == stop.max_iterations;
      if (iterations_ >= next_test || last) {
        test(stop.tol);
        next_test = iterations_ + 1 + iterations_ / 16;
      }
      if (converged_ || last) return;
      const double next = (1 + std::sqrt(1 + 4 * t * t)) / 2;
      p_.beta = T(uphill > 0 ? 0 : (t - 1) / next);
      t = uphill > 0 ? 1 : next;
    }
  }

  double step() {
    point_at_iterate();
    const std::int64_t deferred = strips() > 1 ? slice_ : 0;
    const double uphill = sum_strips([&](std::int64_t begin, std::int64_t end) {
      return kernel_.step(p_, begin, end, deferred, scratch());
    });
    // The first slices of the strips need the new duals of the strips before; that of the first
    // one reads the end of the last one, in the array of another axis or channel.
    for_strips([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      kernel_.primal(p_, begin, std::min(end, begin + deferred));
    });
    std::swap(u_, p_.last_u);
    T* oldest = std::exchange(last_y_, y_);
    y_ = std::exchange(p_.new_y, oldest);
    return uphill;
  }

  void test(double tol) {
    point_at_iterate();
    std::vector<Measures> parts(strips());
    for_strips([&](std::int64_t s, std::int64_t begin, std::int64_t end) {
      parts[s] = kernel_.measure(p_, begin, end, scratch());
    });
    Measures total{0, 0, 0};
    for (const Measures& part : parts) {
      total.gap += part.gap, total.variation += part.variation, total.fidelity += part.fidelity;
    }
    gap_ = std::max(0.0, total.gap);
    converged_ = gap_ <= tol * (total.variation + total.fidelity / 2);
  }

  void point_at_iterate() { p_.u = u_, p_.y = y_, p_.last_y = last_y_; }
  void* scratch() const { return thread_scratch(kernel_.scratch_bytes(p_.grid)); }

  void write() {
    const Grid& g = p_.grid;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    constexpr double kMax = std::numeric_limits<T>::max();  // which round-off may exceed
    const double up = std::ldexp(1.0, exponent_);
    const std::int64_t offset = e_ * g.channels * count_;
    std::uint8_t* joined = op_.joined + e_ * count_;
    point_at_iterate();
    for_strips([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = 0; c < g.channels; ++c)
        for_pixels(begin, end, c, [&](std::int64_t i, std::int64_t k) {
          T& y = op_.y[offset + i];
          if (no_solution_ || weightless_)
            y = no_solution_ ? nan : element(op_.x)[i];
          else
            y = T(std::clamp((double(y_[k]) + mean_[c]) * up, -kMax, kMax));
        });
      for (int a = 0; a < g.axes; ++a) {
        const T* u = u_ + a * g.channels * g.plane();
        for_samples(begin, end, [&](std::int64_t i, std::int64_t k) {
          op_.dual[a][offset + i] = T(std::clamp(double(u[k]) * up, -kMax, kMax));
        });
      }
      if (no_solution_)
        std::fill(joined + begin * length_, joined + end * length_, 0);
      else
        kernel_.joined(p_, begin, end, joined, length_, scratch());
      if (constant_)
        for_pixels(begin, end, 0, [&](std::int64_t i, std::int64_t k) {
          joined[i] = w_[op_.per_pixel ? k : 0] > 0;
        });
    });
    op_.gap[e_] = no_solution_ ? nan : T(std::ldexp(gap_, 2 * exponent_));
    op_.iterations[e_] = constant_ ? 1 : iterations_;
    op_.converged[e_] = constant_ || converged_;
  }

  const Isotropic<T>& op_;
  const ProjectionKernel<T>& kernel_;
  std::int64_t e_;
  std::vector<std::int64_t> sizes_, strides_;
  std::int64_t count_, length_, slice_, strip_;  // pixels, of a line; lines of a slice, of a strip
  Pool pool_;
  Projection<T> p_{};
  T *x_, *w_, *u_, *y_, *last_y_;
  std::vector<double> mean_;  // of each channel
  int exponent_ = 0;          // x_ = x 2^-exponent_ - mean_
  bool no_solution_ = false, weightless_ = false, constant_ = false, converged_ = false;
  double gap_ = 0;
  std::int32_t iterations_ = 0;
};

}  // namespace

template <class T>
void isotropic(const Pool& pool, const Pixels& pixels, const StopRule& stop,
               const Isotropic<T>& op) {
  for_elements(pool, pixels.elements, [&](std::int64_t e, const Pool& inside) {
    Problem<T>(inside, pixels, e, op).solve(stop);
  });
}

template void isotropic(const Pool&, const Pixels&, const StopRule&, const Isotropic<float>&);
template void isotropic(const Pool&, const Pixels&, const StopRule&, const Isotropic<double>&);

}  // namespace jaxtv::cpu
