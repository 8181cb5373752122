#!/usr/bin/env bash
# Builds jaxtv with its CUDA kernels for a machine that runs Python 3.12 or newer and has GPUs of one
# architecture, into build/gpu/site: that folder travels there, and scripts/gpu_check.sh then builds
# nothing. Needs nvcc and a Python 3.12, no GPU.
# Usage: PYTHON=python3.12 scripts/gpu_module.sh [ARCHITECTURE], by default 90: H100 and H200.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.12}
wheel=$(mktemp -d)
"$python" -m pip wheel -q --no-deps --wheel-dir "$wheel" -C cmake.define.JAXTV_CUDA=ON \
  -C cmake.define.CMAKE_CUDA_ARCHITECTURES="${1:-90}-real" .
rm -rf build/gpu/site
"$python" -m pip install -q --no-deps --no-compile --target build/gpu/site "$wheel"/*.whl
rm -r "$wheel"
bash scripts/native_sources.sh > build/gpu/site/native_sources
du -sh build/gpu/site
