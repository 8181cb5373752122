// XLA's thread pool and weight buffers as the CPU kernels take them.
#pragma once

#include <utility>
#include <vector>

#include "checks.hpp"
#include "prox.hpp"

namespace jaxtv::cpu {

inline Pool pool_of(ffi::ThreadPool& pool) {
  return {pool.num_threads(), [&pool](std::function<void()> task) {
            pool.Schedule([task = std::move(task)] { task(); });
          }};
}

template <class T>
Weights<T> weights_of(Buffer w, Buffer like, std::int64_t axis) {
  return {in<T>(w), per_edge(w, like, axis)};
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
    results.second.push_back(per_edge(*r, g, axes[a]));
  }
  return results;
}

}  // namespace jaxtv::cpu
