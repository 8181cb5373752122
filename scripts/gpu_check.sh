#!/usr/bin/env bash
# Everything that needs a GPU, in one go and within 8 minutes: build, the test suite on CUDA,
# compute-sanitizer, benchmarks. One stage that fails does not stop the others (only without a build
# nothing can run); the results come last, and the exit status is 1 if any stage failed.
# Logs and JSON go to RESULT_FOLDER, else to $OUT, else to benchmarks/results. Works offline: needs
# python3 with jax[cuda], flax, nanobind and pytest, plus nvcc, cmake and ninja.
# Usage: scripts/gpu_check.sh [RESULT_FOLDER]
set -uo pipefail
cd "$(dirname "$0")/.."
results=${1:-${OUT:-benchmarks/results}}
mkdir -p "$results"
results=$(cd "$results" && pwd)
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
export PYTHONUNBUFFERED=1 JAXTV_REQUIRE_CUDA=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr -c 'A-Za-z0-9.\n' _)
[ -n "$device" ] || { echo "no NVIDIA device"; exit 1; }

failed=0
stage() {  # stage NAME SECONDS COMMAND...: at most that long, whatever comes of it
  local name=$1 limit=$2 start=$SECONDS status verdict=ok
  shift 2
  printf '== %s\n' "$name"
  timeout -k 5 "$limit" "$@" > "$log/$name.txt" 2>&1
  status=$?
  case $status in
    0) ;;
    124 | 137) verdict="FAILED (stopped after $limit s)" ;;
    *) verdict="FAILED ($status)" ;;
  esac
  [ "$verdict" = ok ] || { failed=1; tail -n 25 "$log/$name.txt"; }
  printf '%-11s %4d s  %s\n' "$name" $((SECONDS - start)) "$verdict" >> "$log/summary"
  return $status
}
finish() {  # the results, compact and last
  for name in "$log"/*.txt; do printf '\n#### %s\n' "$(basename "$name" .txt)"; cat "$name"; done \
    > "$results/$device.log"
  printf '\n%s\n' "$device"
  [ ! -f "$log/benchmark.txt" ] || cat "$log/benchmark.txt"
  [ ! -f "$log/tests.txt" ] || tail -n 1 "$log/tests.txt"
  cat "$log/summary"
  exit $failed
}

# A process of its own, so that `timeout` can stop all of it.
stage build 120 bash -ec '
  cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DJAXTV_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES=native -DPython_EXECUTABLE="$(command -v python3)" \
    -Dnanobind_DIR="$(python3 -m nanobind --cmake_dir)"
  cmake --build build/gpu
  cmake --install build/gpu --prefix build/gpu/site
  cp -r jaxtv build/gpu/site/' || finish
export PYTHONPATH=$PWD/build/gpu/site

stage benchmark 110 python3 -P benchmarks/gpu.py --seconds 90 --output "$results/$device.json"
stage tests 110 python3 -P -m pytest -q --maxfail=20 --no-header \
  tests/test_prox1d.py tests/test_prox2d.py tests/test_derivatives.py
for tool in memcheck racecheck initcheck synccheck; do
  stage "$tool" 25 compute-sanitizer --tool "$tool" --error-exitcode 9 \
    python3 -P scripts/sanitizer_run.py
done
finish
