"""PyPI `prox_tv` 3.2.1 (Barbero & Sra's proxTV) as an independent peer.

It exists as source only, and its build wants LAPACKE's header and a LAPACK library. Of LAPACK it
calls two tridiagonal routines. So where it is not installed, it is built once into pytest's cache
with these two routines written here: all that takes is pip, g++ and the `cffi` of the test extra.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "3.2.1"

# proxTV defines lapack_int as long before it includes the header.
LAPACKE_H = """
#pragma once
#ifdef __cplusplus
extern "C" {
#endif
void dpttrf_(long *n, double *d, double *e, long *info);
void dpttrs_(long *n, long *nrhs, double *d, double *e, double *b, long *ldb, long *info);
#ifdef __cplusplus
}
#endif
"""

# L D L^T of a symmetric positive definite tridiagonal matrix, and the solve with it.
LAPACK_CPP = """
#include "lapacke.h"
void dpttrf_(long *n, double *d, double *e, long *info) {
  *info = 0;
  for (long i = 0; i < *n; ++i) {
    if (d[i] <= 0) { *info = i + 1; return; }
    if (i + 1 == *n) return;
    const double coupling = e[i];
    e[i] = coupling / d[i];
    d[i + 1] -= e[i] * coupling;
  }
}
void dpttrs_(long *n, long *nrhs, double *d, double *e, double *b, long *ldb, long *info) {
  *info = 0;
  for (long column = 0; column < *nrhs; ++column, b += *ldb) {
    for (long i = 1; i < *n; ++i) b[i] -= e[i - 1] * b[i - 1];
    for (long i = *n - 1; i >= 0; --i) b[i] = b[i] / d[i] - (i + 1 < *n ? e[i] * b[i + 1] : 0);
  }
}
"""


def prox_tv(cache):
    """The module `prox_tv`, installed or else built into the folder that `cache()` names."""
    try:
        return importlib.import_module("prox_tv")
    except ImportError:
        pass
    home = Path(cache()) / f"prox_tv-{VERSION}-{sys.implementation.cache_tag}"
    if not home.exists():
        _build(home)
    return [_load(name, home) for name in ("_prox_tv", "prox_tv")][-1]


def _load(name, folder):
    spec = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(home):
    work = Path(tempfile.mkdtemp(prefix="build-", dir=home.parent))
    try:
        _lapack(work)
        environment = os.environ | {"CPATH": str(work), "LIBRARY_PATH": str(work)}
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-cache-dir"]
        _run([*pip, "--target", str(work / "site"), f"prox_tv=={VERSION}"], env=environment)
        try:
            os.rename(work / "site", home)
        except OSError:  # another test process was faster
            if not home.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _lapack(folder):
    (folder / "lapacke.h").write_text(LAPACKE_H)
    (folder / "lapack.cpp").write_text(LAPACK_CPP)
    _run(["g++", "-O2", "-fPIC", "-c", "lapack.cpp", "-o", "lapack.o"], cwd=folder)
    _run(["ar", "rcs", "liblapack.a", "lapack.o"], cwd=folder)


def _run(command, **options):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if done.returncode:
        raise RuntimeError(f"building prox_tv failed: {' '.join(command)}\n{done.stdout}")
