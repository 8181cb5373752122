"""The `jaxtv` command."""

from __future__ import annotations

import codecs
import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import jaxtv
from jaxtv import _native

SOLVERS = {
    "direct": jaxtv.Direct(),
    "taut-string": jaxtv.Direct("taut_string"),
    "decomposition": jaxtv.Direct("decomposition"),
    "projected-newton": jaxtv.ProjectedNewton(),
}

# Modules that the extra [vision] installs.
EXTRA = ("PIL", "h5py", "matplotlib", "optax", "orbax", "rich", "scipy", "skimage", "tyro")


# What a terminal without these letters shows.
PLAIN = {"λ": "lambda", "\u0303": "~", "σ": "sigma", "±": "+-", "×": "x", "…": "...", "—": "-"}


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: `jaxtv demo | smooth | train | evaluate | reproduce | data | info`."""
    _spell_out()
    args = sys.argv[1:] if args is None else args
    if list(args) == ["--version"]:
        print(f"jaxtv {importlib.metadata.version('jaxtv')}")
        return
    if list(args) == ["info"]:  # needs no extra
        info()
        return
    try:
        import tyro

        from jaxtv.vision.commands import data, evaluate, reproduce, train

        tyro.extras.subcommand_cli_from_dict(
            {
                "demo": demo,
                "smooth": smooth,
                "train": train,
                "evaluate": evaluate,
                "reproduce": reproduce,
                "data": data,
                "info": info,
            },
            prog="jaxtv",
            description="Total-variation layers for JAX. `jaxtv --version` prints the version.",
            args=args,
            config=(
                tyro.conf.PositionalRequiredArgs,
                tyro.conf.PositionalMetavarFromFieldName,
                tyro.conf.FlagCreatePairsOff,
            ),
        )
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(
            f"jaxtv: {error.name} is missing; install it with: pip install 'jaxtv[vision]' "
            "(in a checkout: pip install '.[vision]')"
        )


def demo(
    output: Path = Path("jaxtv_demo.png"),
    seconds: float = 40.0,
    noise: float = 0.1,
    seed: int = 0,
) -> None:
    """Train TV layers on one half of a photo for less than a minute, measure on the other.

    Args:
        output: the figure to write (png, pdf, svg).
        seconds: how long to train, compilation included.
        noise: standard deviation of the noise; the photo is in [0, 1].
        seed: of the weights, the crops and the noise.
    """
    _require("demo", seconds > 0, f"--seconds must be positive, got {seconds}.")
    _require("demo", 0 < noise < 1, f"--noise must be between 0 and 1, got {noise}.")
    _require("demo", output.parent.is_dir(), f"the folder of {output} does not exist.")
    suffixes = (".png", ".pdf", ".svg")
    _require("demo", output.suffix in suffixes, f"{output} must end in {', '.join(suffixes)}.")
    _require("demo", not output.is_dir(), f"{output} is a folder.")
    from jaxtv.vision.demo import run

    try:
        run(output, seconds=seconds, noise=noise, seed=seed)
    except OSError as error:
        sys.exit(f"jaxtv demo: {output} can not be written: {error}.")


def smooth(
    picture: Path,
    output: Path,
    lam: float = 0.1,
    sharp: bool = False,
    solver: Literal["direct", "taut-string", "decomposition", "projected-newton"] = "direct",
    sweeps: int = 4,
) -> None:
    """Smooth a picture by the TV prox, or sharpen it by 2x - prox.

    Pixels that are fully transparent change no others.

    Args:
        picture: the file to read: gray or colour of 8 bits, gray of 16 bits or float32; alpha is
            kept as it is.
        output: the file to write, in the format of its suffix.
        lam: λ, on a scale where black is 0 and white is 1 (floats as they are); 0 changes nothing.
        sharp: sharpen instead of smoothing.
        solver: the 1D solver of the rows and columns.
        sweeps: Dykstra sweeps over rows and columns.
    """
    from jaxtv.vision.images import ImageError, read, write

    _require("smooth", lam >= 0, f"--lam must be 0 or more, got {lam}.")
    _require("smooth", sweeps >= 1, f"--sweeps must be 1 or more, got {sweeps}.")
    dykstra = jaxtv.Dykstra(iterations=sweeps, inner=SOLVERS[solver])
    try:
        source = read(picture)
        weights = _weights(lam, source.alpha)
        y = np.asarray(jaxtv.prox_tv2d(source.color, weights, axes=(0, 1), solver=dykstra))
        y = 2 * source.color - y if sharp else y
        written = write(output, dataclasses.replace(source, color=y))
    except ImageError as error:
        sys.exit(f"jaxtv smooth: {error}")
    if source.reduced:
        read_as = f"read as {source.dtype}"
        print(f"note: {picture} has more bits per sample; it was {read_as}.", file=sys.stderr)
    if written != source.dtype:
        print(f"note: {output} holds {written}, {picture} {source.dtype}.", file=sys.stderr)


def _weights(lam: float, alpha: np.ndarray | None) -> float | tuple[np.ndarray, np.ndarray]:
    """λ; 0 on the edges of fully transparent pixels, which have a colour that nobody sees."""
    if alpha is None or alpha.all():
        return lam
    seen = alpha > 0
    rows, columns = seen[1:] & seen[:-1], seen[:, 1:] & seen[:, :-1]
    return tuple(np.where(edge, np.float32(lam), np.float32(0)) for edge in (rows, columns))  # type: ignore


def info() -> None:
    """Print versions, kernels and devices."""
    rows: list[tuple[str, object]] = [
        ("python", f"{platform.python_version()} ({platform.platform()})")
    ]
    for package in ("jaxtv", "jax", "jaxlib", "flax", "numpy"):
        rows.append((package, importlib.metadata.version(package)))
    for name, facts in _native.status().items():
        for fact, value in facts.items():
            rows.append((f"{name} {fact}", value))
    rows.append(("cuda", _native.cuda_state()))
    rows.append(("devices", [f"{d} ({d.device_kind})" for d in jax.devices()]))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        lines = map(str, value if isinstance(value, list | tuple) else [value])
        print(f"{name:{width}}  " + f"\n{'':{width}}  ".join(lines))


def _spell_out() -> None:
    """Lets output that the terminal's encoding lacks letters for be printed in plain ones."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        letters = error.object[error.start : error.end]
        return "".join(PLAIN.get(letter, "?") for letter in letters), error.end

    codecs.register_error("jaxtv.plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="jaxtv.plain")  # type: ignore


def _require(command: str, condition: bool, message: str) -> None:
    if not condition:
        sys.exit(f"jaxtv {command}: {message}")


if __name__ == "__main__":
    main()
