// Several taut strings on one signal at once, one per lane: the kernel of cpu/long_signal.
#pragma once

#include <cstdint>

namespace jaxtv::cpu {

// A taut string over the samples [begin, end) of a signal. There are two kinds:
//   `cuts` null: it writes its cuts to the problem's `sign`.
//   `cuts` not null: it writes its cuts there and leaves `sign` as it is. It stops as soon as it
//     makes a cut that `sign` has, with its sign: from there on it would repeat the string that
//     made that cut.
struct TautString {
  std::int64_t begin, end;
  signed char sign_before;  // of the jump before `begin`; 0 at the start of a problem
  std::int64_t* cuts;       // null, or room for kMostCuts: edge e for a jump up, ~e for a jump down
  std::int64_t num_cuts = 0;  // in `cuts`
  // `cuts` null: its last cut, or -1. Else the cut of `sign` at which it stopped; n - 1 if it came
  // to the end of the signal; -1 if it came to an `end` before that.
  std::int64_t last_cut = -1;
};
constexpr std::int64_t kMostCuts = 256;  // in `cuts`

template <class T>
struct TautStringProblem {
  std::int64_t n;
  const T* x;
  double bound;       // of the dual: λ
  signed char* sign;  // of the jumps at cuts, 0 where there is no cut
  // A taut string goes back where it ends a segment and reads samples again. It may do so for this
  // many samples, plus kMostRereads for each sample that it has solved.
  std::int64_t patience;
};
constexpr std::int64_t kMostRereads = 4;

// Runs strings of one problem, up to `lanes` at once, in the calling thread. Returns false if one
// of them ran out of patience or of room for its cuts.
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
