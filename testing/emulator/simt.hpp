// CUDA's execution model on one CPU thread, so that the kernels in cuda/*/*.cu run, and are
// checked, where no GPU is. A block's threads are fibers: each runs until it reaches a barrier or a
// warp primitive, which is a rendez-vous. The order is fixed, so every run gives the same bits and
// the same reports. At atomics and relaxed accesses lanes take turns, with a seed at random.
//
// What is reported (launch() returns the message): two threads of a block that touch one byte of
// shared memory between barriers, at least one writing; shared memory out of the bounds of its
// array, or read before it was written in this block; threads that wait at different barriers; a
// block or a grid that CUDA would refuse; a launch on another stream than that of the call, or with
// more shared memory than the kernel was allowed on this device, of which there are two kinds.
// Global memory is the host's: build with -fsanitize=address for its bounds, and run in the reverse
// order of blocks, warps and lanes to see races there. Launches can be recorded, and cut down to
// some blocks, for sizes that no test can run whole.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using cudaStream_t = struct SimtStream*;
using cudaError_t = int;

namespace simt {

constexpr int kWarp = 32;
constexpr int kMaxBlock = 1024;
constexpr std::size_t kMaxShared = 232448;  // of one block: compute capability 9.0
constexpr std::size_t kPortableShared = 49152;
constexpr std::size_t kStackBytes = 256 * 1024;

// ---- devices ----

// As XLA does before it calls a handler: its device is the current one of this thread.
inline int& current_device() {
  static thread_local int device = 0;
  return device;
}
// Odd devices are smaller: 7.5 instead of 9.0.
inline std::size_t max_shared(int device) { return device % 2 == 0 ? kMaxShared : 65536; }

// The stream that handlers get on a device: not the default one.
inline cudaStream_t stream_of(int device) {
  return reinterpret_cast<cudaStream_t>(std::uintptr_t(0x57 + 0x100 * device));
}
inline const cudaStream_t kStream = stream_of(0);

// Shared memory that a kernel may have on a device, where more was asked for than all have.
struct Allowed {
  std::mutex mutex;
  std::map<std::pair<int, const void*>, std::size_t> bytes;
};
inline Allowed& allowed() {
  static Allowed a;
  return a;
}

// The host threads that share the blocks of a launch.
inline int& host_threads() {
  static int count = 1;
  return count;
}
// Not 0: at random, a thread goes on where it would let others go first.
inline std::uint64_t& seed() {
  static std::uint64_t value = 0;
  return value;
}
// Whether kernels are refused what they ask for.
inline bool& refusing() {
  static bool on = false;
  return on;
}
// How many launches come before one that fails; negative: none fails.
inline int& launches_before_failure() {
  static int count = -1;
  return count;
}
// Of this host thread, until it asks for it: what a function of the runtime returned last, if that
// was an error.
inline cudaError_t& last_status() {
  static thread_local cudaError_t status = 0;
  return status;
}

// Whether blocks, warps and lanes run from the last to the first.
inline bool& reversed() {
  static bool on = false;
  return on;
}
inline std::int64_t in_order(std::int64_t i, std::int64_t count) {
  return reversed() ? count - 1 - i : i;
}

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// ---- switching stacks ----

#if defined(__x86_64__)
// Saves the callee-saved registers on this stack and goes on with another.
__attribute__((naked, noinline)) inline void switch_stack(void** /*save*/, void* /*to*/) {
  asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15;"
      "mov %rsp, (%rdi); mov %rsi, %rsp;"
      "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret");
}
struct Context {
  void* stack_pointer = nullptr;
  void prepare(char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;  // where entry would return to; also the alignment at its start
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_pointer = top;
  }
  static void swap(Context& from, Context& to) {
    switch_stack(&from.stack_pointer, to.stack_pointer);
  }
};
#else
struct Context {
  ucontext_t context;
  void prepare(char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  static void swap(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
};
#endif

// ---- who touched a byte of shared memory since the last barrier ----

struct Cell {
  std::uint64_t epoch = 0;    // of the block; what follows is void when it is an older one
  std::uint64_t written = 0;  // the block run that last wrote it
  int writer = -1;
  unsigned write_clock = 0;
  int reader_warp = -1;  // -2: several
  unsigned readers = 0;  // lanes of reader_warp
  unsigned read_clock = 0;
};

enum class Wait : unsigned char { kNone, kBlock, kWarp, kDone };
enum class Op : unsigned char { kSyncWarp, kShuffle, kBallot, kReduce };

struct Fiber {
  Context context;
  Wait wait = Wait::kNone;
  Op op = Op::kSyncWarp;
  unsigned mask = 0;
  unsigned exchanges = 0;  // warp primitives so far: their parity picks a slot
  unsigned clock = 0;      // __syncwarp so far
  int vote = 0;            // what __syncthreads_or and its kin combine
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

struct Warp {
  std::uint64_t slot[2][kWarp];
  unsigned seen[kWarp][kWarp];  // [t][u]: clock of u when it last met t in __syncwarp
};

// Everything of the block that runs on this host thread.
class Machine {
 public:
  Index thread, block, block_dim, grid_dim;
  std::vector<unsigned char> memory = std::vector<unsigned char>(kMaxShared + 64);
  std::size_t shared_bytes = 0;
  std::vector<std::int64_t> only;  // the blocks to run, negative: from the end; empty: all

  static Machine& here() {
    static thread_local std::unique_ptr<Machine> machine(new Machine);
    return *machine;
  }

  unsigned char* shared_base() {
    return reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) /
                                            64 * 64);
  }

  // Runs every `step`-th block from `first` on. Empty when all is well.
  std::string run(const std::function<void()>& kernel, std::int64_t grid, int threads,
                  std::size_t shared, std::int64_t first = 0, std::int64_t step = 1) {
    if (grid < 1 || grid > 2147483647) return "bad grid of " + std::to_string(grid) + " blocks";
    if (threads < 1 || threads > kMaxBlock) return "bad block of " + std::to_string(threads);
    if (shared > max_shared(current_device()))
      return "too much shared memory: " + std::to_string(shared);
    body_ = &kernel;
    error_.clear();
    random_ = seed() + std::uint64_t(first);
    shared_bytes = shared;
    grid_dim = {unsigned(grid), 1, 1};
    block_dim = {unsigned(threads), 1, 1};
    if (cells_.size() < shared) cells_.resize(shared);
    if (only.empty())
      for (std::int64_t b = first; b < grid && error_.empty(); b += step)
        run_block(unsigned(in_order(b, grid)));
    for (std::int64_t b : only)
      if (error_.empty() && b < grid) run_block(unsigned(b < 0 ? std::max(grid + b, 0l) : b));
    if (!error_.empty()) forget_frames();
    return error_;
  }

  // Ends the block: the fiber that calls it is left where it is.
  [[noreturn]] void fail(const std::string& what) {
    error_ = what + " (thread " + std::to_string(current_) + " of block " +
             std::to_string(block.x) + ")";
    leave();
    std::abort();
  }

  // The fiber waits until the others of the block (or, kWarp, of its mask) wait too.
  void wait(Wait kind, Op op = Op::kSyncWarp, unsigned mask = ~0u) {
    Fiber& f = fibers_[current_];
    f.wait = kind;
    f.op = op;
    f.mask = mask;
    leave();
  }

  // Lets the other lanes of the warp and other host threads go on first; with a seed, or not.
  void yield() {
    if (seed() != 0) {
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      if (random_ >> 62 != 0) return;
    }
    if (host_threads() > 1) std::this_thread::yield();
    leave();
  }

  int vote(int value, int kind) {  // 0: or, 1: and, 2: count
    const int me = current_;
    fibers_[me].vote = value != 0;
    wait(Wait::kBlock);
    int count = 0, live = 0;
    for (int t = 0; t < threads(); ++t) {
      if (fibers_[t].wait == Wait::kDone) continue;
      count += fibers_[t].vote;
      live += 1;
    }
    wait(Wait::kBlock);  // nobody votes again before all have counted
    return kind == 0 ? count > 0 : (kind == 1 ? count == live : count);
  }

  // Every lane of mask gives a value; f sees the slots of the warp.
  template <class F>
  auto exchange(Op op, unsigned mask, std::uint64_t value, F f) {
    const int me = current_, lane = me % kWarp;
    if (!(mask >> lane & 1)) fail("a lane calls a warp primitive with a mask without itself");
    Warp& warp = warps_[me / kWarp];
    std::uint64_t* slot = warp.slot[fibers_[me].exchanges++ % 2];
    slot[lane] = value;
    wait(Wait::kWarp, op, mask);
    return f(static_cast<const std::uint64_t*>(slot), lane);
  }
  void sync_warp(unsigned mask) {
    if (!(mask >> (current_ % kWarp) & 1)) fail("__syncwarp with a mask without the lane itself");
    wait(Wait::kWarp, Op::kSyncWarp, mask);
  }

  void touch(const void* address, std::size_t bytes, bool write) {
    const std::size_t at = static_cast<const unsigned char*>(address) - shared_base();
    for (std::size_t i = at; i < at + bytes; ++i) write ? on_write(i) : on_read(i);
  }

 private:
  std::vector<Fiber> fibers_ = std::vector<Fiber>(kMaxBlock);
  std::vector<Warp> warps_ = std::vector<Warp>(kMaxBlock / kWarp);
  std::vector<char*> stacks_;
  std::vector<Cell> cells_;
  Context scheduler_;
  const std::function<void()>* body_ = nullptr;
  std::string error_;
  int current_ = 0;
  std::uint64_t epoch_ = 0, first_epoch_ = 0, random_ = 0;
#if defined(__SANITIZE_ADDRESS__)
  const void* main_stack_ = nullptr;
  std::size_t main_size_ = 0;
#endif

  Machine() = default;

 public:
  ~Machine() {
    for (char* s : stacks_) munmap(s - kGuard, kStackBytes + kGuard);
  }

 private:
  static constexpr std::size_t kGuard = 4096;  // unmapped below each stack

  int threads() const { return int(block_dim.x); }
  int lanes_of(int warp) const { return std::min(kWarp, threads() - warp * kWarp); }

  char* stack(int t) {
    while (int(stacks_.size()) <= t) {
      void* p = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) {
        std::perror("simt: stack");
        std::abort();
      }
      mprotect(p, kGuard, PROT_NONE);
      stacks_.push_back(static_cast<char*>(p) + kGuard);
    }
    return stacks_[t];
  }

  static void entry() {
    Machine& m = here();
    m.arrived();
    (*m.body_)();
    m.fibers_[m.current_].wait = Wait::kDone;
    m.leave();
    std::abort();
  }

  void enter(int t) {
    current_ = t;
    thread.x = unsigned(t);
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stacks_[t], kStackBytes);
    Context::swap(scheduler_, fibers_[t].context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    Context::swap(scheduler_, fibers_[t].context);
#endif
  }
  void leave() {
    Fiber& f = fibers_[current_];
#if defined(__SANITIZE_ADDRESS__)
    const bool over = f.wait == Wait::kDone || !error_.empty();
    __sanitizer_start_switch_fiber(over ? nullptr : &f.fake_stack, main_stack_, main_size_);
#endif
    Context::swap(f.context, scheduler_);
    arrived();
  }
  void arrived() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fibers_[current_].fake_stack, &main_stack_, &main_size_);
#endif
  }

  // An error leaves fibers in the middle of their functions. AddressSanitizer must not take what it
  // knows of those frames for the ones of the next launch on the same stacks.
  void forget_frames() {
#if defined(__SANITIZE_ADDRESS__)
    for (char* s : stacks_) ASAN_UNPOISON_MEMORY_REGION(s, kStackBytes);
#endif
  }

  void run_block(unsigned b) {
    block = {b, 0, 0};
    first_epoch_ = ++epoch_;
    for (int t = 0; t < threads(); ++t) {
      fibers_[t] = Fiber{};
      fibers_[t].context.prepare(stack(t), entry);
    }
    for (int w = 0; w * kWarp < threads(); ++w) std::memset(&warps_[w], 0, sizeof(Warp));
    while (error_.empty()) {
      const int warps = (threads() + kWarp - 1) / kWarp;
      for (int w = 0; w < warps && error_.empty(); ++w) run_warp(int(in_order(w, warps)));
      if (!error_.empty() || !release_block()) return;
    }
  }

  // Runs the warp until all its lanes are at a block barrier or done.
  void run_warp(int w) {
    const int first = w * kWarp, lanes = lanes_of(w);
    bool ran;
    do {
      ran = false;
      for (int i = 0; i < lanes; ++i) {
        const int l = int(in_order(i, lanes));
        if (fibers_[first + l].wait != Wait::kNone) continue;
        ran = true;
        enter(first + l);
        if (!error_.empty()) return;
      }
    } while (ran || release_warp(w));
    for (int l = 0; l < lanes; ++l)
      if (fibers_[first + l].wait == Wait::kWarp) {
        error_ = "lanes of warp " + std::to_string(w) + " of block " + std::to_string(block.x) +
                 " wait for lanes that are elsewhere";
        return;
      }
  }

  bool release_warp(int w) {
    Fiber* f = &fibers_[w * kWarp];
    const int lanes = lanes_of(w);
    bool released = false;
    for (int l = 0; l < lanes; ++l) {
      if (f[l].wait != Wait::kWarp) continue;
      const unsigned mask = f[l].mask;
      const Op op = f[l].op;
      bool all = true;
      for (int u = 0; u < lanes; ++u)
        if (mask >> u & 1)
          all &= f[u].wait == Wait::kDone ||
                 (f[u].wait == Wait::kWarp && f[u].mask == mask && f[u].op == op);
      if (!all) continue;
      for (int u = 0; u < lanes; ++u) {
        if (!(mask >> u & 1) || f[u].wait == Wait::kDone) continue;
        f[u].wait = Wait::kNone;
        if (op == Op::kSyncWarp) ++f[u].clock;
      }
      if (op == Op::kSyncWarp) meet(w, mask, lanes);
      released = true;
    }
    return released;
  }
  void meet(int w, unsigned mask, int lanes) {
    for (int t = 0; t < lanes; ++t)
      if (mask >> t & 1)
        for (int u = 0; u < lanes; ++u)
          if (mask >> u & 1) warps_[w].seen[t][u] = fibers_[w * kWarp + u].clock;
  }

  bool release_block() {
    bool any = false;
    for (int t = 0; t < threads(); ++t) {
      any |= fibers_[t].wait == Wait::kBlock;
      if (fibers_[t].wait == Wait::kBlock) fibers_[t].wait = Wait::kNone;
    }
    ++epoch_;
    return any;
  }

  // Whether lane u's access at `clock` comes before what thread t of the same warp does now.
  bool ordered(int t, int u, unsigned clock) const {
    return warps_[t / kWarp].seen[t % kWarp][u % kWarp] > clock;
  }
  Cell& cell(std::size_t i) {
    Cell& c = cells_[i];
    if (c.epoch != epoch_) {
      const std::uint64_t written = c.written;
      c = Cell{};
      c.epoch = epoch_;
      c.written = written;
    }
    return c;
  }
  [[noreturn]] void race(std::size_t i, const char* what, int other) {
    fail("race on shared memory byte " + std::to_string(i) + ": " + what + " thread " +
         std::to_string(other) + " without a barrier between");
  }
  void check_writer(const Cell& c, std::size_t i, const char* what) {
    if (c.writer < 0 || c.writer == current_) return;
    if (c.writer / kWarp == current_ / kWarp && ordered(current_, c.writer, c.write_clock)) return;
    race(i, what, c.writer);
  }
  // Whether the running thread has met all readers of its warp since they read.
  bool met_all(const Cell& c) const {
    for (unsigned left = c.readers; left != 0; left &= left - 1)
      if (!ordered(current_, __builtin_ctz(left), c.read_clock)) return false;
    return true;
  }
  void on_read(std::size_t i) {
    Cell& c = cell(i);
    if (c.written < first_epoch_)
      fail("shared memory byte " + std::to_string(i) + " is read before it is written");
    check_writer(c, i, "read after a write by");
    const int warp = current_ / kWarp;
    if (c.reader_warp == -1) c.reader_warp = warp;
    if (c.reader_warp != warp) c.reader_warp = -2;
    if (c.reader_warp == warp && met_all(c))
      c.readers = 0;  // who waits for this one waits for them
    c.readers |= 1u << (current_ % kWarp);
    c.read_clock = std::max(c.read_clock, fibers_[current_].clock);
  }
  void on_write(std::size_t i) {
    Cell& c = cell(i);
    check_writer(c, i, "written after a write by");
    if (c.reader_warp == -2) race(i, "written after a read by other warps than that of", current_);
    if (c.reader_warp >= 0)
      for (int l = 0; l < kWarp; ++l) {
        const int other = c.reader_warp * kWarp + l;
        if (!(c.readers >> l & 1) || other == current_) continue;
        if (c.reader_warp == current_ / kWarp && ordered(current_, other, c.read_clock)) continue;
        race(i, "written after a read by", other);
      }
    c.writer = current_;
    c.write_clock = fibers_[current_].clock;
    c.reader_warp = -1;
    c.readers = 0;
    c.read_clock = 0;
    c.written = epoch_;
  }
};

// ---- shared memory ----

// An element of shared memory: reads and writes are recorded.
template <class T>
class Ref {
 public:
  explicit Ref(T* at) : at_(at) {}
  Ref(const Ref&) = default;
  operator T() const {
    Machine::here().touch(at_, sizeof(T), false);
    return *at_;
  }
  const Ref& operator=(T v) const {
    Machine::here().touch(at_, sizeof(T), true);
    *at_ = v;
    return *this;
  }
  const Ref& operator=(const Ref& other) const { return *this = T(other); }
  const Ref& operator+=(T v) const { return *this = T(T(*this) + v); }
  const Ref& operator-=(T v) const { return *this = T(T(*this) - v); }
  const Ref& operator|=(T v) const { return *this = T(T(*this) | v); }

 private:
  T* at_;
};

// A pointer into one array of shared memory: accesses are checked against the array's bounds.
template <class T>
class Pointer {
 public:
  Pointer() = default;
  Pointer(T* begin, std::size_t size) : begin_(begin), at_(begin), size_(std::ptrdiff_t(size)) {}
  Ref<T> operator[](std::ptrdiff_t i) const {
    const std::ptrdiff_t index = at_ - begin_ + i;
    if (index < 0 || index >= size_)
      Machine::here().fail("shared memory out of bounds: element " + std::to_string(index) +
                           " of an array of " + std::to_string(size_));
    return Ref<T>(at_ + i);
  }
  Ref<T> operator*() const { return (*this)[0]; }
  Pointer operator+(std::ptrdiff_t i) const {
    Pointer p = *this;
    p.at_ += i;
    return p;
  }

 private:
  T *begin_ = nullptr, *at_ = nullptr;
  std::ptrdiff_t size_ = 0;
};

// ---- launching ----

inline std::string& last_error() {
  static thread_local std::string error;
  return error;
}

// What was launched, while `on`: a line each.
struct Record {
  std::mutex mutex;
  bool on = false;
  std::string lines;
  void add(const char* name, std::int64_t grid, int block, std::size_t shared) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!on) return;
    lines += std::string(name) + " " + std::to_string(grid) + " " + std::to_string(block) + " " +
             std::to_string(shared) + "\n";
  }
};
inline Record& record() {
  static Record r;
  return r;
}

// The blocks of a launch on host_threads() at once, each with a machine of its own.
inline std::string run_on_threads(const std::function<void()>& kernel, std::int64_t grid, int block,
                                  std::size_t shared) {
  const int count = host_threads(), device = current_device();
  std::vector<std::string> errors(count);
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t)
    threads.emplace_back([&, t] {
      current_device() = device;
      errors[t] = Machine::here().run(kernel, grid, block, shared, t, count);
    });
  for (std::thread& t : threads) t.join();
  return *std::max_element(errors.begin(), errors.end());  // one, where there are any
}

template <class... P, class... A>
const char* launch(const char* name, void (*kernel)(P...), std::int64_t grid, int block,
                   std::size_t shared, cudaStream_t stream, A... args) {
  if (stream != stream_of(current_device()))
    return "launched on another stream than that of the call";
  if (last_status() != 0) return "an error of before the launch would be taken for its own";
  if (shared > kPortableShared) {
    const std::lock_guard<std::mutex> lock(allowed().mutex);
    const auto key = std::pair(current_device(), reinterpret_cast<const void*>(kernel));
    if (allowed().bytes[key] < shared) return "shared memory that the kernel may not have here";
  }
  if (launches_before_failure() >= 0 && launches_before_failure()-- == 0) return "told to fail";
  record().add(name, grid, block, shared);
  const std::function<void()> body = [&] { kernel(args...); };
  std::string& error = last_error();
  error = host_threads() > 1 ? run_on_threads(body, grid, block, shared)
                             : Machine::here().run(body, grid, block, shared);
  if (error.empty()) return nullptr;
  error = std::string(name) + ": " + error;
  return error.c_str();
}

template <class T>
std::uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// `source(lane)` is the lane to read from; outside of the segment of `width` lanes one reads
// oneself.
template <class T, class F>
T shuffle(unsigned mask, T v, int width, F source) {
  return Machine::here().exchange(
      Op::kShuffle, mask, to_bits(v), [&](const std::uint64_t* slot, int lane) {
        const int first = lane / width * width, from = source(lane, first);
        const bool inside = from >= first && from < first + width;
        if (inside && !(mask >> from & 1))
          Machine::here().fail("shuffle from a lane that is not in the mask");
        return from_bits<T>(slot[inside ? from : lane]);
      });
}
template <class F>
auto gather(Op op, unsigned mask, std::uint64_t v, F f) {
  return Machine::here().exchange(op, mask, v, [&](const std::uint64_t* slot, int) {
    std::uint64_t result = f.start;
    for (int l = 0; l < kWarp; ++l)
      if (mask >> l & 1) result = f(result, slot[l], l);
    return result;
  });
}
struct Ballot {
  std::uint64_t start = 0;
  std::uint64_t operator()(std::uint64_t r, std::uint64_t v, int l) const {
    return r | std::uint64_t(v != 0) << l;
  }
};
template <class T, class F>
T reduce(unsigned mask, T v, F f) {
  return Machine::here().exchange(Op::kReduce, mask, to_bits(v),
                                  [&](const std::uint64_t* slot, int lane) {
                                    T result = from_bits<T>(slot[lane]);
                                    for (int l = 0; l < kWarp; ++l)
                                      if ((mask >> l & 1) && l != lane)
                                        result = f(result, from_bits<T>(slot[l]));
                                    return result;
                                  });
}

}  // namespace simt

// ---- the runtime's functions that launches need ----

constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = simt::current_device();
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  *value = int(simt::max_shared(device));
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_status(), cudaSuccess); }
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int bytes) {
  const int device = simt::current_device();
  if (simt::refusing() || std::size_t(bytes) > simt::max_shared(device))
    return simt::last_status() = cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> lock(simt::allowed().mutex);
  simt::allowed().bytes[{device, reinterpret_cast<const void*>(kernel)}] = std::size_t(bytes);
  return cudaSuccess;
}

#define threadIdx (::simt::Machine::here().thread)
#define blockIdx (::simt::Machine::here().block)
#define blockDim (::simt::Machine::here().block_dim)
#define gridDim (::simt::Machine::here().grid_dim)

inline void __syncthreads() { simt::Machine::here().wait(simt::Wait::kBlock); }
inline int __syncthreads_or(int v) { return simt::Machine::here().vote(v, 0); }
inline int __syncthreads_and(int v) { return simt::Machine::here().vote(v, 1); }
inline int __syncthreads_count(int v) { return simt::Machine::here().vote(v, 2); }
inline void __syncwarp(unsigned mask = ~0u) { simt::Machine::here().sync_warp(mask); }
template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  return simt::shuffle(mask, v, width,
                       [=](int, int first) { return first + (from & (width - 1)); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return simt::shuffle(mask, v, width, [=](int lane, int) { return lane - int(by); });
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return simt::shuffle(mask, v, width, [=](int lane, int) { return lane + int(by); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32) {
  return simt::shuffle(mask, v, width, [=](int lane, int) { return lane ^ by; });
}
inline unsigned __ballot_sync(unsigned mask, int v) {
  return unsigned(simt::gather(simt::Op::kBallot, mask, std::uint64_t(v != 0), simt::Ballot{}));
}
inline int __any_sync(unsigned mask, int v) { return __ballot_sync(mask, v) != 0; }
inline int __all_sync(unsigned mask, int v) { return (__ballot_sync(mask, v) & mask) == mask; }
template <class T>
T __reduce_add_sync(unsigned mask, T v) {
  return simt::reduce(mask, v, [](T a, T b) { return T(a + b); });
}
template <class T>
T __reduce_min_sync(unsigned mask, T v) {
  return simt::reduce(mask, v, [](T a, T b) { return std::min(a, b); });
}
template <class T>
T __reduce_max_sync(unsigned mask, T v) {
  return simt::reduce(mask, v, [](T a, T b) { return std::max(a, b); });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v) {
  return simt::reduce(mask, v, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v) {
  return simt::reduce(mask, v, [](unsigned a, unsigned b) { return a & b; });
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)v); }
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (v >> i & 1) << (31 - i);
  return r;
}

// Atomics of global memory. Where a lane comes to one, the others of its warp overtake it: what it
// has read before may be old by then.
template <class T>
T atomicCAS(T* at, T expected, T desired) {
  simt::Machine::here().yield();
  __atomic_compare_exchange_n(at, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;  // what was there
}
template <class T>
T atomicAdd(T* at, T v) {
  simt::Machine::here().yield();
  return __atomic_fetch_add(at, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicMax(T* at, T v) {
  simt::Machine::here().yield();
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < v &&
         !__atomic_compare_exchange_n(at, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
