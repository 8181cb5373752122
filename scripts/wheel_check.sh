#!/usr/bin/env bash
# Installs a wheel or an sdist into an empty virtual environment and tests it away from the sources.
#
#   scripts/wheel_check.sh PACKAGE [REQUIREMENT ...] [-- PYTEST_ARGUMENT ...]
#
# PACKAGE: a file of `python -m build`. REQUIREMENT: beside it, such as jax==0.10.2. $PYTHON: the
# interpreter (python3). Without arguments to pytest, all tests of what a wheel has: no emulated
# CUDA kernels, no tools of the repository.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
package=$(realpath "$1")
shift
requirements=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  requirements+=("$1")
  shift
done
[ $# -gt 0 ] && shift
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

du -h --apparent-size "$package"
"${PYTHON:-python3}" -m venv "$here/venv"
python="$here/venv/bin/python"
"$python" -m pip install -q "$package[test]" "${requirements[@]}"
"$python" -m pip check
"$python" -m pip list | grep -E "^(jax|jaxlib|flax|numpy|jaxtv) "

mkdir "$here/away"
git -C "$root" archive HEAD | tar -x -C "$here/away"
cd "$here/away"
rm -r jaxtv cpu cuda ffi include
rm -r tests/{kernels,tools}
"$python" - << 'END'
import subprocess, sys, time


def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


rounds = [(seconds("import jax"), seconds("import jax, jaxtv")) for _ in range(5)]
jax, both = map(min, zip(*rounds))
print(f"import jax: {jax:.2f} s, jaxtv on top of it: {both - jax:.2f} s", flush=True)
END
"$python" -m pytest -q "$@"
