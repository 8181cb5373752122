// A loop over the rows of an array, on some threads.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

// Calls f(row) for each row. Every thread has a range of rows; the caller is one of the threads.
template <class F>
void over_rows(std::int64_t rows, int threads, F f) {
  const auto run_range = [=](int t) {
    for (std::int64_t r = rows * t / threads; r < rows * (t + 1) / threads; ++r) f(r);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run_range, t);
  run_range(0);
  for (std::thread& thread : others) thread.join();
}
