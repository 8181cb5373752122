#!/usr/bin/env bash
# Everything that needs a GPU, in one go and within 8 minutes: build, the test suite on CUDA,
# compute-sanitizer, benchmarks. Results come last and as JSON under benchmarks/results/. Works
# offline: needs python3 with jax[cuda], flax, nanobind and pytest, plus nvcc, cmake and ninja.
# Usage: scripts/gpu_check.sh [RESULT_FOLDER]
set -uo pipefail
cd "$(dirname "$0")/.."
results=${1:-benchmarks/results}
log=$(mktemp -d)
mkdir -p "$results"
export PYTHONUNBUFFERED=1 JAXTV_REQUIRE_CUDA=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr ' /' '__')
[ -n "$device" ] || { echo "no NVIDIA device"; exit 1; }

summary=""
stage() {  # stage NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  printf '== %s\n' "$name"
  timeout "$limit" "$@" > "$log/$name.txt" 2>&1
  status=$?
  tail -n 25 "$log/$name.txt"
  summary+=$(printf '%-12s %s  %4d s' "$name" "$([ $status = 0 ] && echo ok || echo "FAILED ($status)")" $((SECONDS - start)))$'\n'
  return $status
}

build() {
  cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DJAXTV_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES=native -DPython_EXECUTABLE="$(command -v python3)" \
    -Dnanobind_DIR="$(python3 -m nanobind --cmake_dir)" &&
    cmake --build build/gpu &&
    cmake --install build/gpu --prefix build/gpu/site &&
    cp -r jaxtv build/gpu/site/
}
stage build 150 build || exit 1
export PYTHONPATH=$PWD/build/gpu/site

stage tests 150 python3 -P -m pytest -q -x --no-header \
  tests/test_cuda.py tests/test_prox1d.py tests/test_prox2d.py tests/test_derivatives.py
for tool in memcheck racecheck initcheck synccheck; do
  stage "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 \
    python3 -P scripts/sanitizer_run.py
done
stage benchmark 120 python3 -P benchmarks/gpu.py --output "$results/$device.json"
printf '\n%s\n' "$device"
cat "$log/benchmark.txt"
printf '%s' "$summary"
case $summary in *FAILED*) exit 1 ;; esac
