// One long signal by many taut strings.
#pragma once

#include "parallel.hpp"
#include "pass.hpp"

namespace jaxtv::cpu {

// Solves the one signal of a pass, of samples side by side and one weight, into z. False, and
// nothing of use in z, where taut strings are not the method for this signal.
template <class T>
bool prox_by_taut_strings(const Pool& pool, const Pass<T>& pass, T* z);

}  // namespace jaxtv::cpu
