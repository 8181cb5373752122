"""What is measured: every function gives the records of one chapter of the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from benchmarks import problems
from benchmarks.environments import Environments
from benchmarks.measure import Effort, Method, Problem, race
from testing import native

CORES = native.cores()
PROX_TV_1D = (
    "hybridtautstring",
    "classictautstring",
    "linearizedtautstring",
    "pn",
    "condat",
    "dp",
    "condattautstring",
    "kolmogorov",
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """The environments, and how much to do: everything, or small sizes for a test of the suite."""

    environments: Environments
    quick: bool

    def choose(self, full, quick):
        return quick if self.quick else full

    def race(self, problem: Problem, methods: list[Method], seconds=1.0, **options) -> list[dict]:
        print(f"{problem.name}", flush=True)
        effort = Effort(self.choose(25, 3), self.choose(seconds, 0.3), self.choose(1e-2, 1e-4))
        return race(self.environments, problem, methods, effort, **options)


JAXTV = Method("jaxtv", "jaxtv_forward")
JAXTV_ONE_CORE = Method("jaxtv, one core", "jaxtv_forward", environment="one core")
COPY = Method("x + 1 (a copy of the same bytes)", "copy", exact=False)
C_LOOP = Method("C loop", "c_loop")
FASTPROX = Method("fastprox tv1d", "fastprox_forward", environment="fastprox")
FASTPROX_TOTAL = Method(
    "fastprox tv1d and vjp", "fastprox_total", environment="fastprox", exact=False
)
JAXTV_TOTAL = Method("jaxtv total", "jaxtv_total", exact=False)
SCICO = Method(
    "scico AnisotropicTVNorm.prox",
    "scico_prox",
    environment="scico",
    note="approximate: meant for small λ",
)
C_THREADS = Method(f"C loop, {CORES} threads", "c_loop", {"threads": CORES})


def prox_tv_rows(rows: int | None = None, names=PROX_TV_1D) -> list[Method]:
    return [
        Method(f"prox_tv {name}", "prox_tv_rows", {"method": name}, rows=rows) for name in names
    ]


# ---------------------------------------------------------------------------- Table 1


def table1(bench: Bench) -> list[dict]:
    """256×32×32 signals, λ = 1."""
    rows, few = bench.choose((8192, 64), (256, 16))
    problem = Problem("Table 1", problems.step_and_noise(rows, 32), 1.0)
    in_one = "one row after the other, in Python"
    methods = [
        JAXTV,
        Method("jaxtv backward", "jaxtv_backward", exact=False),
        JAXTV_TOTAL,
        Method("jaxtv ProjectedNewton", "jaxtv_forward", {"solver": "ProjectedNewton"}),
        JAXTV_ONE_CORE,
        COPY,
        FASTPROX,
        FASTPROX_TOTAL,
        C_THREADS,
        C_LOOP,
        SCICO,
        Method(
            "deepinv TVDenoiser",
            "deepinv_tv",
            environment="deepinv",
            rows=few,
            note="its default: at most 1000 iterations, one stop for the batch",
        ),
        *(dataclasses.replace(method, note=in_one) for method in prox_tv_rows()),
        Method(
            "cvxpylayers", "cvxpylayers_forward", environment="float64", rows=few, note="DIFFCP"
        ),
        Method(
            "cvxpylayers backward",
            "cvxpylayers_backward",
            environment="float64",
            rows=few,
            exact=False,
        ),
        Method("pyproximal TV", "pyproximal_rows", rows=few, note=f"FISTA, {in_one}"),
        Method("scikit-image chambolle", "skimage_chambolle_rows", rows=few, note=in_one),
    ]
    return bench.race(problem, methods, seconds=4.0)


def batches(bench: Bench) -> list[dict]:
    """Other batches: forward, and with the gradient, against peers that take the whole batch."""
    side, rows, many = bench.choose((512, 512, 81920), (32, 16, 64))
    methods = [JAXTV, JAXTV_TOTAL, COPY, FASTPROX, FASTPROX_TOTAL, C_THREADS]
    cases = [
        Problem(f"{many:,} rows of 32, λ = 1", problems.step_and_noise(many, 32), 1.0),
        Problem(f"rows of a {side}×{side} photo, λ = 0.1", problems.photo(side), 0.1),
        Problem(f"{rows} rows of 1024, noise, λ = 1", problems.noise(rows, 1024), 1.0),
    ]
    return [record for case in cases for record in bench.race(case, methods)]


# ---------------------------------------------------------------------------- kernels


def kernels(bench: Bench) -> list[dict]:
    """Nanoseconds per sample on one core, both layouts, beside the C loop on that core."""
    samples = bench.choose(1 << 18, 1 << 12)
    makers = {
        "step + noise": (problems.step_and_noise, 1.0),
        "noise": (problems.noise, 1.0),
        "image rows": (problems.image_rows, 0.1),
        "ramps": (problems.ramps, 1e4),
        "sines": (problems.sines, 10.0),
    }
    records = []
    for kind, (make, lam) in makers.items():
        for n in bench.choose((32, 64, 128, 256, 512, 1024), (32, 128)):
            contiguous = make(samples // n, n)
            records += _kernel(bench, f"{kind}, contiguous", contiguous, lam, -1)
            strided = np.ascontiguousarray(contiguous.T)
            records += _kernel(bench, f"{kind}, strided", strided, lam, 0)
    return records


def _kernel(bench: Bench, name: str, x: np.ndarray, lam: float, axis: int) -> list[dict]:
    problem = Problem(name, x, lam, (axis,), size=x.shape[axis])
    methods = [dataclasses.replace(m, environment="one core") for m in (JAXTV, COPY, C_LOOP)]
    records = bench.race(problem, methods, seconds=0.5)
    return [record | {"ns_per_sample": _ns(record, x.size)} for record in records]


def _ns(record: dict, samples: int) -> float | None:
    return 1e9 * record["median"] / samples if record["status"] == "ok" else None


def worst_cases(bench: Bench) -> list[dict]:
    """Shapes and data that a fast kernel may stumble over, in nanoseconds per sample."""
    rows, side, long = bench.choose((4096, 512, 1_000_000), (64, 32, 2_000))
    step, noise = problems.step_and_noise, problems.noise
    colour = np.stack([problems.photo(side)] * 3, -1)
    cases = {
        "reference: n = 64": (step(rows, 64), 1.0, -1),
        "n = 63": (step(rows, 63), 1.0, -1),
        "n = 65": (step(rows, 65), 1.0, -1),
        "n = 127, 1001 signals": (step(1001 if rows > 64 else 7, 127), 1.0, -1),
        "n = 3": (noise(rows, 3), 1.0, -1),
        "batch 1, n = 1024": (step(1, 1024), 1.0, -1),
        "batch 3, n = 1024": (step(3, 1024), 1.0, -1),
        "batch 17, n = 1024": (step(17, 1024), 1.0, -1),
        "rows of an H×W×3 image": (colour, 0.1, 1),
        "columns of an H×W×3 image": (colour, 0.1, 0),
        "ramps, n = 1024, λ = 1e4": (problems.ramps(rows // 16, 1024), 1e4, -1),
        f"one sine, n = {long:,}": (problems.sines(1, long), 50.0, -1),
        f"one ramp, n = {long:,}": (problems.ramps(1, long), 1e5, -1),
    }
    records = []
    for name, (x, lam, axis) in cases.items():
        problem = Problem(name, x, lam, (axis,))
        some = bench.race(problem, [JAXTV, C_THREADS, COPY], seconds=0.5)
        records += [record | {"ns_per_sample": _ns(record, x.size)} for record in some]
    return records


# ---------------------------------------------------------------------------- scaling


def scaling_n(bench: Bench) -> list[dict]:
    """One signal, from 32 to 1e8 samples, λ = 1."""
    peers = ("hybridtautstring", "classictautstring", "condat", "dp")
    records = []
    for n in bench.choose((32, 128, 512, 2048, *(10**k for k in range(4, 9))), (32, 2048)):
        problem = Problem(f"one signal, n = {n:,}", problems.blocks(n), 1.0, size=n)
        methods = [JAXTV, FASTPROX, C_LOOP, COPY]
        methods += prox_tv_rows(names=peers if n <= 10**7 else peers[:1])
        records += bench.race(problem, methods, seconds=2.0, accuracy=n <= 10**6)
    return records


def single_signal(bench: Bench) -> list[dict]:
    """One signal of a million samples, three λ, every method of prox_tv."""
    n = bench.choose(1_000_000, 1_000)
    records = []
    for lam in (1.0, 10.0, 100.0):
        problem = Problem(f"n = {n:,}, λ = {lam:g}", problems.blocks(n), lam, size=lam)
        methods = [JAXTV, JAXTV_ONE_CORE, FASTPROX, C_LOOP, COPY, *prox_tv_rows()]
        records += bench.race(problem, methods, seconds=0.7)
    return records


def scaling_batch(bench: Bench) -> list[dict]:
    """From 1 to 1e6 signals of 32 samples."""
    records = []
    for batch in bench.choose((1, 3, 10, 30, 100, 1000, 10**4, 10**5, 10**6), (1, 100)):
        problem = Problem(f"{batch:,} signals", problems.step_and_noise(batch, 32), 1.0, size=batch)
        methods = [JAXTV, FASTPROX, C_LOOP, C_THREADS, COPY]
        methods += prox_tv_rows(rows=1000, names=("hybridtautstring", "condat"))
        records += bench.race(problem, methods, seconds=1.5, accuracy=batch <= 10**4)
    return records


def scaling_side(bench: Bench) -> list[dict]:
    """Images from 16 to 4096 on a side, 4 sweeps, λ = 0.1."""
    pd = {"method": "pd", "iterations": 4, "threads": CORES}
    methods = [JAXTV, COPY, Method("prox_tv pd, 4 iterations", "prox_tv_image", pd)]
    records = []
    for side in bench.choose((16, 32, 64, 128, 256, 512, 1024, 2048, 4096), (16, 64)):
        problem = Problem(f"{side}×{side}", problems.photo(side), 0.1, (0, 1), size=side)
        records += bench.race(problem, methods, seconds=3.0, accuracy=False)
    return records


def scaling_lam(bench: Bench) -> list[dict]:
    """256 signals of 1024 samples, from λ = 0 to the λ that makes every one of them constant."""
    x = problems.step_and_noise(bench.choose(256, 8), bench.choose(1024, 64))
    largest = float(np.abs(np.cumsum(x - x.mean(-1, keepdims=True), -1)).max())
    methods = [
        JAXTV,
        FASTPROX,
        C_THREADS,
        COPY,
        *prox_tv_rows(16, names=("hybridtautstring", "condat")),
    ]
    records = []
    for share in bench.choose((0, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1), (0, 1e-2, 1)):
        problem = Problem(f"λ = {share:g} λ_max", x, share * largest, size=share)
        records += bench.race(problem, methods, seconds=1.0)
    return records


def threads(bench: Bench) -> list[dict]:
    """One core and all of them."""
    side, rows, n = bench.choose((512, 8192, 1_000_000), (32, 64, 1000))
    cases = [
        Problem(f"{rows:,} signals of 32", problems.step_and_noise(rows, 32), 1.0),
        Problem(f"{rows // 4:,} signals of 1024", problems.step_and_noise(rows // 4, 1024), 1.0),
        Problem(f"one signal of {n:,}", problems.blocks(n), 10.0),
        Problem(f"{side}×{side} image, 4 sweeps", problems.photo(side), 0.1, (0, 1)),
    ]
    methods = [JAXTV, JAXTV_ONE_CORE]
    return [r for case in cases for r in bench.race(case, methods, accuracy=False)]


# ---------------------------------------------------------------------------- images


DYKSTRA = Method("jaxtv Dykstra(4)", "jaxtv_forward")


def _ours(bench: Bench, *more: float) -> list[Method]:
    """Our curves of error against time: K sweeps, and to a relative gap of `tol`."""
    sweeps = bench.choose((1, 2, 4, 8, 16, 32, 64), (1, 4))
    tols = bench.choose((1e-2, 1e-3, 1e-4, 1e-5, 1e-6, *more), (1e-4,))
    fixed = [Method(f"jaxtv Dykstra({k})", "jaxtv_forward", {"sweeps": k}) for k in sweeps]
    return fixed + [
        Method(f"jaxtv AcceleratedDykstra({tol:g})", "jaxtv_forward", {"tol": tol}) for tol in tols
    ]


def _prox_tv_images(bench: Bench, methods: dict[str, tuple[int, ...]]) -> list[Method]:
    """The methods with these numbers of iterations."""
    return [
        Method(
            f"prox_tv {name}, {k} iterations",
            "prox_tv_image",
            {"method": name, "iterations": k, "threads": CORES},
        )
        for name, counts in methods.items()
        for k in bench.choose(counts, (4,))
    ]


def _fastprox_images(bench: Bench) -> list[Method]:
    return [
        Method(f"fastprox tv_aniso({tol:g})", "fastprox_image", {"tol": tol}, "fastprox")
        for tol in bench.choose((1e-1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), (1e-2,))
    ]


def accuracy_problems(bench: Bench) -> list[Problem]:
    """A photo on [0, 1] with three λ, and with noise of σ = 0.1."""
    photo = problems.photo(bench.choose(512, 32))
    noisy = photo + np.float32(0.1) * problems.noise(*photo.shape)
    cases = [(f"photo, λ = {lam:g}", photo, lam) for lam in (0.02, 0.1, 0.5)]
    cases.append(("noisy photo, λ = 0.1", noisy, 0.1))
    return [Problem(name, x, lam, (0, 1)) for name, x, lam in cases]


def accuracy_methods(bench: Bench) -> list[Method]:
    """Those that converge to the optimum, and fast."""
    counts = (1, 2, 4, 8, 16, 32, 64)
    peers = _prox_tv_images(bench, {"pd": counts, "dr": (*counts, 128), "kolmogorov": (4, 16, 64)})
    return [DYKSTRA, *_ours(bench, 3e-3, 3e-4, 3e-5, 1e-7, 1e-8), *_fastprox_images(bench), *peers]


def accuracy(bench: Bench) -> list[dict]:
    """Error against time."""
    methods = accuracy_methods(bench)
    cases = accuracy_problems(bench)
    return [record for case in cases for record in bench.race(case, methods, seconds=0.5)]


def images(bench: Bench) -> list[dict]:
    """A photo on [0, 1], λ = 0.1: every peer that knows images."""
    side = bench.choose(512, 32)
    problem = Problem(f"{side}×{side} photo", problems.photo(side), 0.1, (0, 1))
    prox_tv = {"pd": (1, 2, 4, 8, 16, 32, 64), "dr": (1, 2, 4, 8, 16, 35, 70)}
    prox_tv |= {"yang": (4, 16, 64), "condat": (4, 16, 64), "chambolle-pock": (4, 16, 64)}
    prox_tv |= {"kolmogorov": (4, 16, 64)}
    isotropic = "isotropic TV: another problem"
    methods = [
        DYKSTRA,
        COPY,
        *_ours(bench),
        *_fastprox_images(bench),
        *_prox_tv_images(bench, prox_tv),
    ]
    methods += [
        Method(
            f"scikit-image bregman, {k} iterations",
            "skimage_bregman",
            {"iterations": k},
            note="isotropic=False; does not converge to the optimum at the border",
        )
        for k in bench.choose((10, 100), (10,))
    ]
    methods += [
        Method("scikit-image chambolle", "skimage_chambolle", note=isotropic),
        Method("pyproximal TV", "pyproximal_image", note=isotropic),
        SCICO,
    ]
    records = bench.race(problem, methods, seconds=0.7)
    side = bench.choose(64, 16)
    problem = Problem(f"{side}×{side} photo", problems.photo(side), 0.1, (0, 1))
    small = Method("cvxpylayers", "cvxpylayers_forward", environment="float64", note="DIFFCP")
    deepinv = Method("deepinv TVDenoiser", "deepinv_tv", environment="deepinv", note=isotropic)
    return records + bench.race(problem, [JAXTV, _ours(bench)[-1], small, deepinv])


CHAPTERS: dict[str, Callable[[Bench], list[dict]]] = {
    "table1": table1,
    "batches": batches,
    "kernels": kernels,
    "worst_cases": worst_cases,
    "single_signal": single_signal,
    "accuracy": accuracy,
    "images": images,
    "scaling_n": scaling_n,
    "scaling_batch": scaling_batch,
    "scaling_side": scaling_side,
    "scaling_lam": scaling_lam,
    "threads": threads,
}
