"""The ground of all proofs: oracles, generators, peers, the emulator of CUDA. Never installed."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
