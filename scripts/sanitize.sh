#!/usr/bin/env bash
# The native CPU code under sanitizers; a finding is an error. The checkout is left as it is.
#
#   scripts/sanitize.sh address,undefined [TEST ...]
#     builds the module in a copy under build/sanitize and runs tests there: by default those of
#     the kernels.
#   scripts/sanitize.sh thread [RUNS]
#     ThreadSanitizer knows nothing of the locks in jaxlib and Python, which are not built with it,
#     so the handlers run without both: called as XLA calls them by soak/fuzz/, on threads of its own.
#     No finding is suppressed.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:?address,undefined or thread}
shift
build=build/sanitize/$sanitizer

configure() {  # SOURCE [OPTION ...]
  cmake -S "$1" -B "$build" -DCMAKE_BUILD_TYPE=Release -DJAXTV_SANITIZE="$sanitizer" \
    -DJAXTV_CUDA=OFF -DPython_EXECUTABLE="$(command -v python)" \
    -Dnanobind_DIR="$(python -m nanobind --cmake_dir)" "${@:2}" > /dev/null
  cmake --build "$build" -j2
}

if [ "$sanitizer" = thread ]; then
  configure . -DJAXTV_FUZZ=ON
  "$build/fuzz_ffi" "${1:-20000}"
  exit
fi

tree=$build/tree
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree"
configure "$tree"
cmake --install "$build" --prefix "$tree" > /dev/null
cd "$tree"
# Python and jaxlib free at exit, if at all; libstdc++ is named so that exceptions are seen.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
[ $# -gt 0 ] || set -- -k "not cuda" tests/kernels/test_{prox1d,segments,dykstra,components,properties}.py \
  tests/api/test_{prox1d,prox2d,converged,errors,long_signals,half,functional,range}.py tests/lowering/test_ffi.py \
  tests/transforms/test_{derivatives,transforms,sharding}.py
python -m pytest -q -n 2 "$@"
