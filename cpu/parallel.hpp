// Runs work on a thread pool without ever blocking an idle caller: the caller takes chunks too, and
// waits only for chunks that a pool thread has already begun. A pool that is busy or absent costs
// speed only.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>

namespace jaxtv::cpu {

// What parallel_for needs of a pool; the handlers make one from XLA's.
struct Pool {
  std::int64_t threads;  // the caller included
  std::function<void(std::function<void()>)> schedule;
};

// As many threads of the pool as `work` samples are worth, at `per_thread` samples each. To wake a
// thread takes up to tens of microseconds: kSamplesPerThread take as long to solve by SIMD, or a
// few times as long.
constexpr std::int64_t kSamplesPerThread = 4096;
inline Pool part_of(const Pool& pool, std::int64_t work, std::int64_t per_thread) {
  return {std::clamp<std::int64_t>(work / per_thread, 1, pool.threads), pool.schedule};
}

// Calls f(chunk) for every chunk in [0, chunks). An exception of any of them reaches the caller.
template <class F>
void parallel_for(const Pool& pool, std::int64_t chunks, F f) {
  const std::int64_t helpers = (pool.threads < chunks ? pool.threads : chunks) - 1;
  if (helpers <= 0) {
    for (std::int64_t i = 0; i < chunks; ++i) f(i);
    return;
  }
  struct State {
    std::atomic<std::int64_t> next{0}, done{0};
    std::int64_t chunks;
    F f;  // only called while the caller waits, so what it refers to is alive
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;
    State(std::int64_t chunks, F f) : chunks(chunks), f(std::move(f)) {}
    void work() {
      std::int64_t mine = 0;
      for (std::int64_t i; (i = next.fetch_add(1)) < chunks; ++mine) try {
          f(i);
        } catch (...) {
          std::lock_guard<std::mutex> lock(mutex);
          error = std::current_exception();
        }
      if (mine > 0 && done.fetch_add(mine) + mine == chunks) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_all();
      }
    }
  };
  const auto state = std::make_shared<State>(chunks, std::move(f));
  try {
    for (std::int64_t i = 0; i < helpers; ++i) pool.schedule([state] { state->work(); });
  } catch (const std::bad_alloc&) {  // fewer helpers then; those begun use what the caller owns
  }
  state->work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load() == chunks; });
  if (state->error) std::rethrow_exception(state->error);
}

}  // namespace jaxtv::cpu
