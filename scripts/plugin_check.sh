#!/usr/bin/env bash
# Installs a wheel of jaxtv and one of its CUDA plugins into an empty virtual environment of a machine
# without a GPU or a driver: both import, `jaxtv info` names the plugin, and XLA compiles every primitive
# for an H100 with its kernels (testing/aot.py).
#
#   scripts/plugin_check.sh JAXTV_WHEEL PLUGIN_WHEEL [REQUIREMENT ...]
#
# REQUIREMENT: beside them, such as jax==0.10.2. $PYTHON: the interpreter (python3). $CUDA_HOME: a folder
# with bin/ptxas and nvvm/libdevice; by default those of nvcc's wheel from PyPI.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
jaxtv=$(realpath "$1")
plugin=$(realpath "$2")
shift 2
version=$(basename "$plugin" | sed -E 's/^jaxtv_cuda([0-9]+)_plugin-.*/\1/')
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

"${PYTHON:-python3}" -m venv "$here/venv"
python="$here/venv/bin/python"
"$python" -m pip install -q "$jaxtv[demo]" "$plugin" "$@"
"$python" -m pip check
mkdir "$here/away"
git -C "$root" archive HEAD testing | tar -x -C "$here/away"
cd "$here/away"
"$here/venv/bin/jaxtv" info
"$python" -c "
from jaxtv import _native
status = _native.status()
assert status['cuda']['module'] == 'jaxtv_cuda${version}_plugin._cuda', status
only_cuda = set(status['cuda']['kernels']) - set(status['cpu']['kernels'])
assert only_cuda == {'jaxtv_isotropic_steps'}, status"

# jax's own plugin in a folder apart: an environment that has it counts as one with a GPU.
jax=$("$python" -c "import jax; print(jax.__version__)")
"$python" -m pip install -q --no-deps --target "$here/jax" "jax-cuda$version-plugin==$jax" "jax-cuda$version-pjrt==$jax"
if [ -z "${CUDA_HOME:-}" ]; then
  nvcc=nvidia-cuda-nvcc
  [ "$version" = 12 ] && nvcc=nvidia-cuda-nvcc-cu12
  "$python" -m pip install -q --no-deps --target "$here/nvcc" "$nvcc"
  CUDA_HOME=$(dirname "$(dirname "$(find "$here/nvcc" -path '*/bin/ptxas')")")
  export CUDA_HOME
fi
JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH="$here/jax" "$python" -m testing.aot
