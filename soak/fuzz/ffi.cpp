// Fuzz target of the CPU handlers: no input makes them touch memory that is not theirs, hang or
// end the process; a valid call succeeds, writes every result, finite ones for finite samples, and
// gives the same bits for any number of threads.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "calls.hpp"

namespace jaxtv::fuzz {
namespace {

[[noreturn]] void fail(const Call& call, const char* what, const std::string& detail = "") {
  std::fprintf(stderr, "%s: %s %s\n", call.name, what, detail.c_str());
  const auto shapes = [](const std::vector<OwnedArray>& arrays) {
    for (const OwnedArray& a : arrays) {
      std::fprintf(stderr, " %d(", int(a.dtype));
      for (std::int64_t d : a.dims) std::fprintf(stderr, "%lld,", static_cast<long long>(d));
      std::fprintf(stderr, ")");
    }
  };
  shapes(call.ins);
  std::fprintf(stderr, " ->");
  shapes(call.outs);
  std::fprintf(stderr, "\n");
  std::abort();
}

// Bits, but any NaN for a NaN.
template <class T>
bool same_floats(const OwnedArray& a, const OwnedArray& b) {
  const T *p = reinterpret_cast<const T*>(a.data.data()),
          *q = reinterpret_cast<const T*>(b.data.data());
  for (std::size_t i = 0; i < a.data.size() / sizeof(T); ++i)
    if (std::memcmp(p + i, q + i, sizeof(T)) != 0 && !(std::isnan(p[i]) && std::isnan(q[i])))
      return false;
  return true;
}
bool same(const OwnedArray& a, const OwnedArray& b) {
  if (a.dtype == XLA_FFI_DataType_F32) return same_floats<float>(a, b);
  if (a.dtype == XLA_FFI_DataType_F64) return same_floats<double>(a, b);
  return a.data == b.data;
}

template <class T>
bool all_finite(const OwnedArray& a) {
  const T* p = reinterpret_cast<const T*>(a.data.data());
  for (std::size_t i = 0; i < a.data.size() / sizeof(T); ++i)
    if (!std::isfinite(p[i])) return false;
  return true;
}

// Results start as bytes 0xff: a NaN, -1, no bool.
void check_written(const Call& call) {
  for (const OwnedArray& out : call.outs) {
    if (out.dtype == XLA_FFI_DataType_F32 && call.tame && !all_finite<float>(out))
      fail(call, "a float32 result that is not finite, or not written");
    if (out.dtype == XLA_FFI_DataType_F64 && call.tame && !all_finite<double>(out))
      fail(call, "a float64 result that is not finite, or not written");
    if (out.dtype == XLA_FFI_DataType_PRED || out.dtype == XLA_FFI_DataType_S32)
      for (char c : out.data)
        if (c == char(0xff)) fail(call, "a result that is not written");
  }
}

void check_threads(Call& call) {
  const std::vector<OwnedArray> before = call.outs;
  callframe::set_threads(1);
  if (call.run().code != XLA_FFI_Error_Code_OK) fail(call, "an error with one thread only");
  callframe::set_threads(3);
  for (std::size_t i = 0; i < before.size(); ++i)
    if (!same(before[i], call.outs[i])) fail(call, "other bits with one thread");
}

void run(Bytes& bytes) {
  Call call = draw(bytes);
  const int wrong = bytes.pick({0, 0, 0, 1, 1, 2});
  for (int i = 0; i < wrong; ++i) spoil(bytes, call, wrong == 1);
  const bool starve = call.valid && bytes.below(4) == 0;
  callframe::set_threads(3);
  const Status status = call.run(starve ? bytes.below(64) : -1);
  if (!call.valid) return;
  if (status.code == XLA_FFI_Error_Code_OK) {
    check_written(call);
    if (!starve) check_threads(call);
  } else if (!starve || status.code != XLA_FFI_Error_Code_RESOURCE_EXHAUSTED) {
    fail(call, "a valid call is an error:", status.message);
  }
}

}  // namespace
}  // namespace jaxtv::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool registered = (jaxtv::fuzz::register_handlers(), true);
  jaxtv::fuzz::Bytes bytes(data, size);
  try {
    jaxtv::fuzz::run(bytes);
  } catch (const jaxtv::fuzz::TooLarge&) {
    return -1;
  }
  return registered ? 0 : -1;
}
