// The decomposition for eight signals at once and nothing else: all in float, signals side by side
// already, no decision checked, so that some of them are wrong.
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr std::int64_t kLanes = 8;
using Vec = float __attribute__((vector_size(4 * kLanes)));

Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
Vec clamp(Vec v, Vec bound) {
  v = v < bound ? v : bound;
  return v > -bound ? v : -bound;
}

struct Scratch {
  explicit Scratch(std::int64_t n) : message(n), mean(n), jump(n) {}
  std::vector<Vec> message, mean, jump;  // jump of k: sign of the cut before sample k, 0 for none
};

// Splits every segment where the labels (up or down from its mean) change, until none does.
void decompose(const float* x, float* y, std::int64_t stride, std::int64_t n, float lam,
               Scratch& s) {
  const Vec zero{}, one = zero + 1, bound = zero + lam;
  const auto at = [=](std::int64_t k) { return load(x + k * stride); };
  Vec sum = zero;
  for (std::int64_t k = 0; k < n; ++k) sum += at(k) - at(0), s.jump[k] = zero;
  s.mean[0] = at(0) + sum / float(n);
  for (bool split = true; split;) {
    Vec level = s.mean[0], message = s.message[0] = level - at(0);
    for (std::int64_t k = 1; k < n; ++k) {
      const Vec jump = s.jump[k];
      const auto cut = jump != 0;
      level = cut ? s.mean[k] : level;
      message = (cut ? jump * bound : clamp(message, bound)) + (level - at(k));
      s.message[k] = message;
    }
    Vec up = message < 0 ? one : zero, count = one, pull = zero, changed = zero;
    sum = at(n - 1);
    for (std::int64_t k = n - 1; k > 0; --k) {
      const Vec before = s.message[k - 1], old = s.jump[k];
      const auto was_cut = old != 0;
      const Vec inside = before > bound ? zero : (before < -bound ? one : up);
      const Vec label = was_cut ? (before < old * bound ? one : zero) : inside;
      const Vec fresh = was_cut ? zero : up - inside, jump = old + fresh;
      const auto cut = jump != 0;
      changed += fresh * fresh;
      s.jump[k] = jump;
      s.mean[k] = (sum + pull - jump * bound) / count;
      pull = cut ? jump * bound : pull;
      sum = (cut ? zero : sum) + at(k - 1), count = (cut ? zero : count) + 1, up = label;
    }
    s.mean[0] = (sum + pull) / count;
    split = false;
    for (int lane = 0; lane < kLanes; ++lane) split |= changed[lane] != 0;
  }
  Vec level = s.mean[0];
  for (std::int64_t k = 0; k < n; ++k) {
    level = s.jump[k] != 0 ? s.mean[k] : level;
    std::memcpy(y + k * stride, &level, sizeof level);
  }
}

}  // namespace

// x and y: (n, rows), contiguous, rows a multiple of 8.
extern "C" void plain_lanes(const float* x, double lam, float* y, std::int64_t n, std::int64_t rows,
                            int) {
  Scratch scratch(n);
  for (std::int64_t r = 0; r < rows; r += kLanes) {
    decompose(x + r, y + r, rows, n, float(lam), scratch);
  }
}
