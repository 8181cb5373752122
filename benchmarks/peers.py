"""Instructions of the C loop and of prox_tv beside ours, under callgrind.

    python -m benchmarks.peers

Writes `instructions` of peers.json, which the page's section on bounds reads. One core each; the
peers run in a Python of which only their solver is counted, ours in the driver of
`instructions.py`.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import instructions, methods, problems, scalar
from testing import ROOT, programs

FILE = pathlib.Path(__file__).with_name("peers.json")
SWEEPS = 4
PEERS = {"C loop": "*::taut_string*", "prox_tv pd": "PD2_TV"}  # what of them is counted


def cases() -> dict[str, tuple[str, np.ndarray, float, int]]:
    """Name -> peer, x (rows, samples), λ, passes over the samples."""
    blocks = problems.blocks(200_000)
    long = {f"one signal, λ = {lam:g}": ("C loop", blocks, lam, 1) for lam in (1.0, 10.0, 100.0)}
    rows = {"rows of Table 1": ("C loop", problems.step_and_noise(1024, 32), 1.0, 1)}
    return rows | long | {"photo": ("prox_tv pd", problems.photo(512), 0.1, 2 * SWEEPS)}


def run(peer: str, x: np.ndarray, lam: float) -> None:
    """One solve, in the process that callgrind watches."""
    if peer == "C loop":
        scalar.solve("loop_f32", x, lam, np.empty_like(x), 1)
    else:
        methods.prox_tv_image(x, lam, (0, 1), method="pd", iterations=SWEEPS, threads=1)()


def measure() -> dict[str, dict[str, float]]:
    """Name -> instructions per sample and pass: `ours`, `peer`."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        driver = programs.build(pathlib.Path(folder), instructions.DRIVER)
        file = pathlib.Path(folder, "x.npy")
        for name, (peer, x, lam, passes) in cases().items():
            np.save(file, x)
            module = (sys.executable, "-m", "benchmarks.peers", peer, file, lam)
            theirs = instructions.callgrind(PEERS[peer], *module, cwd=ROOT)
            x.tofile(file)
            kind = "image" if passes > 1 else "signals"
            ours = instructions.count(driver, kind, *x.shape, lam, file)
            per = x.size * passes
            found[name] = {"ours": round(ours / per, 1), "peer": round(theirs / per, 1)}
            print(f"{name}: {found[name]} instructions per sample", flush=True)
    return found


def main() -> None:
    if len(sys.argv) == 4:
        peer, file, lam = sys.argv[1:]
        run(peer, np.load(file), float(lam))
    else:
        known = json.loads(FILE.read_text()) | {"instructions": measure()}
        FILE.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
