// Random inputs where the compiler has no libFuzzer: fuzz_ffi RUNS [SEED].
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int count, char** arguments) {
  const std::uint64_t runs = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1000;
  const std::uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  for (std::uint64_t run = 0; run < runs; ++run) {
    std::mt19937_64 random(seed + run);
    std::vector<std::uint8_t> data(160);
    for (std::uint8_t& b : data) b = std::uint8_t(random());
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::printf("%llu runs\n", static_cast<unsigned long long>(runs));
}
