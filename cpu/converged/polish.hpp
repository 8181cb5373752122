// Polish: means of an iterate over components that its passes tell. jaxtv/_converged.py says why.
#pragma once

#include "converged/iterate.hpp"
#include "union_find.hpp"

namespace jaxtv::cpu {

// The edges inside a segment of some pass are joined if the jump of y is at most this times their
// weight, class by class. A late iterate wants all of them joined. An early one joins too much.
constexpr double kJumps[] = {0.003, 0.01, std::numeric_limits<double>::infinity()};
constexpr int kClasses = 3, kExact = kClasses - 1;  // all edges are joined in the last

template <class T>
class Polish {
 public:
  // The memory is the caller's, of `bytes`.
  Polish(const Strips& strips, Arena& memory)
      : strips_(strips),
        components_(strips, memory),
        edges_(strips.count()),
        candidate_(memory.take<T>(strips.size)),
        best_(memory.take<T>(strips.size)) {}
  static std::size_t bytes(std::int64_t size) {
    return Components::bytes(size) + 2 * Arena::bytes<T>(size);
  }

  // Finds the y with the least gap over the classes [first, last], and returns that gap. Stops at
  // the first that is at most `enough`.
  double solve(const Pool& pool, const Iterate<T>& it, int first, int last, double enough);
  const T* best() const { return best_; }

 private:
  using Edges = std::vector<SamplePair>;
  struct StripEdges {  // of each class, but those that are joined at once
    Edges inside[kClasses], across[kClasses];
  };
  void start(const Pool& pool, const Iterate<T>& it, int first);

  Strips strips_;
  Components components_;
  std::vector<StripEdges> edges_;
  T *candidate_, *best_;
};

}  // namespace jaxtv::cpu
