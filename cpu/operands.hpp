// XLA's thread pool and buffers as the CPU kernels take them.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "elements.hpp"
#include "parallel.hpp"
#include "pass.hpp"

namespace jaxtv::cpu {

inline Pool pool_of(ffi::ThreadPool& pool) {
  return {pool.num_threads(), [&pool](std::function<void()> task) {
            pool.Schedule([task = std::move(task)] { task(); });
          }};
}

inline Elements elements_of(Buffer x, Axes axes) {
  require(axes.size() >= 2, "two axes at least");
  first_axis_of(x, axes, 1);
  const Dims d = x.dimensions();
  Elements elements{{d.begin(), d.end()}, {axes.begin(), axes.end()}};
  require(elements.size() <= std::numeric_limits<std::int32_t>::max(),  // labels are int32
          "more than 2^31 - 1 samples along the prox axes");
  return elements;
}

// A result of the shape and type of x.
template <class T>
T* shaped_as(Buffer x, Result r) {
  check_same(*r, x);
  return out<T>(r);
}

template <class T>
Weights<T> weights_of(Buffer w, Buffer like, std::int64_t axis) {
  return {in<T>(w), check_weights(w, like, axis)};
}

template <class T>
std::vector<Weights<T>> all_weights(ffi::RemainingArgs args, Buffer x, Axes axes) {
  require(args.size() == axes.size(), "one weight operand per axis");
  std::vector<Weights<T>> w;
  for (std::size_t a = 0; a < axes.size(); ++a)
    w.push_back(weights_of<T>(args.get<Buffer>(a).value(), x, axes[a]));
  return w;
}

template <class T>
std::pair<std::vector<T*>, std::vector<bool>> all_weight_results(ffi::RemainingRets rets, Buffer g,
                                                                 Axes axes) {
  require(rets.size() == axes.size(), "one weight result per axis");
  std::pair<std::vector<T*>, std::vector<bool>> results;
  for (std::size_t a = 0; a < axes.size(); ++a) {
    Result r = rets.get<Buffer>(a).value();
    results.first.push_back(out<T>(r));
    results.second.push_back(check_weights(*r, g, axes[a]));
  }
  return results;
}

}  // namespace jaxtv::cpu
