#!/usr/bin/env bash
# Everything that needs a GPU, in one go and within 7 minutes: the kernels' first calls inside of CUDA
# graphs, the test suite on CUDA, compute-sanitizer's four tools, benchmarks. Every stage has its own
# time limit and none takes the results of another along; the table comes last, and JSON goes to
# benchmarks/results/. Logs go to $OUT where it is set.
#
# build/gpu/site, which scripts/gpu_module.sh makes elsewhere, is used where it fits; else the kernels
# are built here, which takes 3 minutes. The modules then lie in jaxtv/, from which everything runs. Works offline: needs python3 with jax[cuda], flax and pytest,
# for the build nanobind, nvcc, cmake and ninja; uses pytest-xdist where it is.
# Usage: scripts/gpu_check.sh [RESULT_FOLDER]
set -uo pipefail
cd "$(dirname "$0")/.."
results=${1:-benchmarks/results}
logs=${OUT:-$(mktemp -d)} # at most 9 files
outcomes=$(mktemp -d)
total=410 # seconds, of which the benchmark gets what the others leave, at least:
for_benchmark=110
stages="module graphs tests memcheck racecheck initcheck synccheck benchmark"
export PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1
export JAXTV_REQUIRE_CUDA=1 XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONPATH=$PWD
mkdir -p "$results"

stage() { # stage NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS status=0 verdict=ok
  shift 2
  # Interrupted rather than killed: pytest then still says what failed.
  { timeout -v -s INT -k 10 "$limit" env --default-signal=INT "$@"; } > "$logs/$name.txt" 2>&1 || status=$?
  case $status in
    0) ;;
    124) verdict="OUT OF TIME" ;;
    137) # by timeout, which says so, or by the system, for memory
      grep -q 'timeout: sending signal KILL' "$logs/$name.txt" && verdict="OUT OF TIME" || verdict=KILLED ;;
    *) verdict="FAILED ($status)" ;;
  esac
  printf '%-11s %-12s %4d s\n' "$name" "$verdict" $((SECONDS - start)) | tee "$outcomes/$name"
  return $status
}

finish() { # what went wrong, then the benchmark's table, then a line per stage
  local log
  for log in $stages; do
    grep -qs ' ok ' "$outcomes/$log" && continue
    [ -e "$outcomes/$log" ] || { printf '%-11s NOT RUN\n' "$log" > "$outcomes/$log"; continue; }
    [ "$log" = benchmark ] && continue # all of it follows
    printf -- '-- %s\n' "$log"
    grep -E '^(FAILED|ERROR) |========= .*[Ee]rror' "$logs/$log.txt" | cut -c1-150 | head -n 15
    tail -n 8 "$logs/$log.txt" | cut -c1-150
  done
  printf -- '\n-- %s\n' "$device"
  grep -q 'NOT RUN' "$outcomes/benchmark" || cat "$logs/benchmark.txt"
  (cd "$outcomes" && cat $stages)
  echo "$SECONDS s in all"
  ! grep -qv ' ok ' "$outcomes"/*
  exit
}

device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr -c '[:alnum:]\n' _)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
[ -n "$device" ] || { echo "no NVIDIA device"; exit 1; }

site=build/gpu/site
loads() { # jaxtv, with the modules next to its Python code: for this device, which jax sees
  cp $site/jaxtv/*.so jaxtv/ && python3 -P - "$1" << 'END'
import sys
import jax
from jaxtv import _native
print(jax.__version__, jax.devices(), _native.status())
assert jax.default_backend() == "gpu"
assert sys.argv[1] in _native.status()["cuda"]["architectures"]
END
}
module() {
  if cmp -s $site/native_sources <(bash scripts/native_sources.sh) && loads "$1"; then
    echo "the module that came along"
    return
  fi
  echo "building: no module of these sources for sm_$1 came along"
  rm -rf $site && mkdir -p $site &&
  cmake -S . -B build/gpu/cmake -G Ninja -DCMAKE_BUILD_TYPE=Release -DJAXTV_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$1" -DPython_EXECUTABLE="$(command -v python3)" \
    -Dnanobind_DIR="$(python3 -m nanobind --cmake_dir)" &&
    cmake --build build/gpu/cmake &&
    cmake --install build/gpu/cmake --prefix $site &&
    loads "$1"
}
stage module 200 bash -c "site=$site; $(declare -f loads module); module $capability" || finish

# Each call is recorded into a CUDA graph when it is made first: a kernel is loaded during the capture.
XLA_FLAGS="--xla_gpu_graph_min_graph_size=1 --xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL" \
  stage graphs 90 python3 -P scripts/sanitizer_run.py

# The sanitizers next to the tests: other processes on the same device. Every buffer is an allocation
# of its own there, so that its bounds are known.
limit=$((total - for_benchmark - SECONDS - 10))
[ "$limit" -gt 60 ] || limit=60
for tool in memcheck racecheck initcheck synccheck; do
  XLA_PYTHON_CLIENT_ALLOCATOR=platform stage "$tool" "$limit" compute-sanitizer --tool "$tool" \
    --error-exitcode 9 --print-limit 20 python3 -P scripts/sanitizer_run.py &
done
# Most tests compile for a second or so on the host.
workers=$(python3 -c 'import os, xdist; print("-n", max(1, os.cpu_count() - 4))' 2> /dev/null)
# shellcheck disable=SC2086
stage tests "$limit" python3 -P -m pytest -q -ra --no-header --tb=short -o faulthandler_timeout=60 $workers \
  tests/kernels tests/api/test_prox*.py tests/transforms/test_{derivatives,transforms}.py \
  tests/api/test_{half,functional,converged,layers}.py tests/lowering/test_fallback.py
wait

left=$((total - SECONDS))
rm -f "$logs/$device.json" # of an earlier run
stage benchmark "$left" python3 -P benchmarks/gpu.py --output "$logs/$device.json" --seconds $((left - 20))
[ ! -e "$logs/$device.json" ] || cp "$logs/$device.json" "$results/"
finish
