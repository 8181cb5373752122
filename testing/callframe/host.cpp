#include "host.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

struct XLA_FFI_Error {
  jaxtv::callframe::Status status;
};

namespace jaxtv::callframe {
namespace {

XLA_FFI_Error* create(XLA_FFI_Error_Create_Args* args) {
  const Scope host(false);
  return new XLA_FFI_Error{{args->errc, args->message}};
}
void message(XLA_FFI_Error_GetMessage_Args* args) {
  args->message = args->error->status.message.c_str();
}
void destroy(XLA_FFI_Error_Destroy_Args* args) { delete args->error; }

class ThreadPool {
 public:
  static constexpr std::int64_t kThreads = 3;

  ThreadPool() {
    for (std::int64_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { serve(); });
  }
  ~ThreadPool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    work_.notify_all();
    for (std::thread& t : threads_) t.join();
  }
  void schedule(XLA_FFI_Task* task, void* data) {
    const Scope host(false);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back({task, data});
      ++open_;
    }
    work_.notify_one();
  }
  void drain() {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [&] { return open_ == 0; });
  }

  std::int64_t visible = kThreads;

 private:
  struct Task {
    XLA_FFI_Task* run;
    void* data;
  };
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [&] { return ended_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const Task task = tasks_.front();
      tasks_.pop_front();
      lock.unlock();
      {
        const Scope handler(true);
        task.run(task.data);
      }
      lock.lock();
      if (--open_ == 0) idle_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::deque<Task> tasks_;
  std::int64_t open_ = 0;
  bool ended_ = false;
  std::vector<std::thread> threads_;
};

ThreadPool& pool() {
  const Scope host(false);
  static ThreadPool instance;
  return instance;
}

XLA_FFI_Error* schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  pool().schedule(args->task, args->data);
  return nullptr;
}
XLA_FFI_Error* num_threads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  *args->num_threads = pool().visible;
  return nullptr;
}

thread_local std::int32_t device = 0;
XLA_FFI_Error* device_ordinal(XLA_FFI_DeviceOrdinal_Get_Args* args) {
  args->device_ordinal = device;
  return nullptr;
}

XLA_FFI_Api made_api() {
  XLA_FFI_Api api{};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR,
                     XLA_FFI_API_MINOR};
  api.XLA_FFI_Error_Create = create;
  api.XLA_FFI_Error_GetMessage = message;
  api.XLA_FFI_Error_Destroy = destroy;
  api.XLA_FFI_ThreadPool_Schedule = schedule;
  api.XLA_FFI_ThreadPool_NumThreads = num_threads;
  api.XLA_FFI_DeviceOrdinal_Get = device_ordinal;
  return api;
}

}  // namespace

const XLA_FFI_Api& host_api() {
  static const XLA_FFI_Api api = made_api();
  return api;
}

Status take(XLA_FFI_Error* error) {
  if (error == nullptr) return {};
  Status status = error->status;
  delete error;
  return status;
}

void set_threads(std::int64_t threads) { pool().visible = std::min(threads, ThreadPool::kThreads); }
void drain() { pool().drain(); }
void set_device(std::int32_t ordinal) { device = ordinal; }

}  // namespace jaxtv::callframe
