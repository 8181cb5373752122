"""Instructions of every loop of a CUDA kernel, from its machine code (SASS); needs no GPU.

    python -m benchmarks.gpu_model [--kernel REGEX] [FILE.cu ...]
    python -m benchmarks.gpu_model --markdown > docs/gpu-model.md

The second predicts times on an H100: instructions per sample from the loops, trips of the taut
string and rounds of the decomposition from simulations on the benchmarks' data.
Needs jaxtv, nvcc and nvdisasm (of the toolkit, or `pip install nvidia-cuda-nvdisasm`).
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

from benchmarks.gpu_model.pages import markdown
from benchmarks.gpu_model.sass import CYCLES, ROOT, disassemble, loops_of


def main() -> int:
    """Print the loops or the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--kernel", default="prox_rows<float, false>")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    if args.markdown:
        print(markdown(args.arch))
        return 0
    for source in args.sources or [ROOT / "cuda/prox1d.cu"]:
        for kernel in disassemble(source, args.arch):
            if not re.search(args.kernel, kernel.name):
                continue
            size = len(kernel.instructions)
            print(f"{kernel.name}: {kernel.registers} registers, {size} instructions")
            for loop in loops_of(kernel):
                counts = loop.counts()
                pipes = ", ".join(f"{counts[p]} {p}" for p in [*CYCLES, "control"] if counts[p])
                print(f"{'  ' * loop.depth}{loop.function}: {len(loop.body)} ({pipes})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
