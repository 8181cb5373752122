// Several taut strings on one signal at once, one per lane: the kernel of cpu/long_signal.
#pragma once

#include <cstdint>

namespace jaxtv::cpu {

// A taut string from sample `begin` on, over samples before `end`.
struct TautString {
  std::int64_t begin, end;
  signed char sign_before;  // of the jump before `begin`; 0 at the start of a problem
  // Null: its cuts go into the problem's `sign`. Else it ends where it makes a cut that is there
  // already, from which on it would repeat the string that made that cut; its own cuts before go
  // here, of a jump down as ~e.
  std::int64_t* cuts;
  std::int64_t num_cuts = 0;  // in `cuts`
  // Its last cut, -1 without one. With `cuts`: the one that was there already, n - 1 where it came
  // to the end of the signal, -1 where it came to an `end` before.
  std::int64_t last_cut = -1;
};
constexpr std::int64_t kMostCuts = 256;  // in `cuts`

template <class T>
struct TautStringProblem {
  std::int64_t n;
  const T* x;
  double bound;       // of the dual: λ
  signed char* sign;  // of the jumps at cuts, 0 where there is no cut
  // Patience: how many samples a string may read again, as a taut string does where it ends a
  // segment, besides kMostRereads per sample that it has solved.
  std::int64_t patience;
};
constexpr std::int64_t kMostRereads = 4;

// Runs strings of one problem, up to `lanes` at once. False when one of them is out of patience, or
// has more than kMostCuts cuts.
template <class T>
struct TautStringKernel {
  int lanes;
  bool (*run)(const TautStringProblem<T>& problem, TautString* strings, int count);
};

struct TautStringTable {
  TautStringKernel<float> f32;
  TautStringKernel<double> f64;
};

}  // namespace jaxtv::cpu
