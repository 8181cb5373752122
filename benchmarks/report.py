"""benchmarks.md and its figures, from the numbers alone."""

from __future__ import annotations

import json
import pathlib

from benchmarks import plots, targets

PAPER = {  # Table 1: forward, backward in ms (mean ± std), total relative to Ours-PN on an A6000
    "CVXPYLayers": ("20704 ± 32", "9932 ± 41", "1770×"),
    "ProxTV-TS": ("207.8 ± 7.5", "430.7 ± 7.9", "37×"),
    "ProxTV-PN": ("257.3 ± 5.8", "447.0 ± 9.6", "41×"),
    "Ours-PN, Titan X": ("9.0 ± 0.7", "17.7 ± 2.4", "1.5×"),
    "Ours-PN, A6000": ("10.0 ± 1.5", "7.3 ± 6.0", "1×"),
}
INSTRUCTIONS = pathlib.Path(__file__).with_name("instructions.json")
PEERS = pathlib.Path(__file__).with_name("peers.json")
MEMORY_FLOOR = "x + 1 (a copy of the same bytes)"


def write(results: dict, folder: pathlib.Path) -> None:
    chapters = results["chapters"]
    plots.draw(chapters, folder / "images")
    present = _present(results)
    parts = [_head(results), _targets(present)]
    parts += [show(chapters[name]) for name, show in CHAPTERS.items() if name in chapters]
    parts += [_instructions(), _peers(results)]
    (folder / "benchmarks.md").write_text("\n\n".join(parts) + "\n")


def _present(results: dict) -> dict:
    """The chapters that were measured with the kernels of now: those with a date."""
    return {name: r for name, r in results["chapters"].items() if name in results.get("dates", {})}


def table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def factor(value: float) -> str:
    return f"{value:.0f}×" if value >= 100 else f"{value:#.3g}×"


def power(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def find(records: list[dict], method: str) -> dict | None:
    """None where a run was made before the suite had this method."""
    return next((r for r in records if r["method"] == method), None)


def _grouped(records: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(record["problem"], []).append(record)
    return groups


# ---------------------------------------------------------------------------- chapters


def _head(results: dict) -> str:
    machine, quick = results["environment"], results["quick"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    minutes = sum(results["seconds"].values()) / 60
    warning = "\n\n**A quick run: small sizes, a test of the suite. Not a measurement.**"
    older = results["chapters"].keys() - _present(results).keys()
    names = ", ".join(name for name in CHAPTERS if name in older)
    earlier = f" **Of earlier kernels, and so without targets: {names}.**" if older else ""
    return f"""# Benchmarks

<!-- Written by `python -m benchmarks`; edit benchmarks/report.py instead. -->

{machine["processor"]}, {machine["cores"]} cores; jaxtv {machine["jaxtv"]}, {versions}, Python {machine["python"]}.
`python -m pip install -e '.[bench]' && python -m benchmarks` makes this page, its figures and `benchmarks.json` \
({minutes:.0f} minutes).{earlier}{warning if quick else ""}

One run times all methods of a table in turns, so that the load of the machine affects all of them alike. A turn is as many calls as take 10 ms. Memory that a call frees stays in the process, as with `MALLOC_ARENA_MAX=1` ([performance](performance.md)). A ratio is the median of the \
ratios of all turns. jaxtv and the C loop compute in float32, other packages in float64 if they can.

| word | meaning |
|---|---|
| error | largest \\|y − y\\*\\|; y\\* is the optimum in long double for a 1D problem, and for an image to a relative duality gap of 1e-12 in float64 |
| relative | ‖y − y\\*‖ / ‖x − y\\*‖ |
| gap | duality gap with the best dual, relative to the objective |
| C loop | a scalar direct solver (linearised taut string, `benchmarks/scalar.cpp`, `g++ -O3 -march=native`), called once for the whole batch without Python in between |
| copy | `x + 1` through JAX, the memory floor of the same call |"""


def _targets(chapters: dict) -> str:
    rows = [
        [
            target.what,
            f"{'≥' if target.at_least else '≤'} {target.bound:g}",
            f"{target.measured:.3g}",
            "met" if target.met else "**not met**",
            target.detail,
        ]
        for target in targets.judge(chapters)
    ]
    rule = "[What limits the speed](speed-limits.md) explains the targets that are not met."
    return "\n\n".join(["## Targets", rule, table(["", "target", "measured", "", "case"], rows)])


def _spread(record: dict | None) -> str:
    if record is None or record["status"] != "ok":
        return "—" if record is None else record["status"]
    parts = (milliseconds(record[name]) for name in ("mean", "std", "median"))
    return "{} ± {} ({})".format(*parts)


def _table1(records: list[dict]) -> str:
    ours, total = find(records, "jaxtv"), find(records, "jaxtv total")
    layer, pull = find(records, "cvxpylayers"), find(records, "cvxpylayers backward")
    fastprox = find(records, "fastprox tv1d"), None, find(records, "fastprox tv1d and vjp")
    lines = {
        "jaxtv, `Direct`": (ours, find(records, "jaxtv backward"), total),
        "fastprox": fastprox,
        "jaxtv, `ProjectedNewton`": (find(records, "jaxtv ProjectedNewton"), None, None),
        "ProxTV-TS": (find(records, "prox_tv hybridtautstring"), None, None),
        "ProxTV-PN": (find(records, "prox_tv pn"), None, None),
        "CVXPYLayers": (layer, pull, None),
        "Ours-PN, Titan X": (None, None, None),
        "Ours-PN, A6000": (None, None, None),
    }
    rows = [_table1_row(name, *line, total) for name, line in lines.items()]
    head = ["", "forward", "backward", "total", "× ours", "paper: forward", "backward", "×"]
    note = f"ms: mean ± std (median) of {ours['runs']} runs on this CPU"
    return f"""## Table 1 of the paper: 256×32×32 signals, λ = 1

{_comparison(records)}

The methods that take the whole batch in one call come first, those that are called per row last.

{table(head, rows)}

Times are in {note}. The paper used a Core i7-6700K and the GPUs that are named. proxTV has no derivative; the \
paper added one in PyTorch. CVXPYLayers (through DIFFCP) is timed on {_rows_of(layer)} rows and scaled. The totals of jaxtv and fastprox are \
the prox and its derivative in x and λ at a given cotangent. The column × ours compares methods that have a derivative with \
this total, and all others with our forward."""


def _batches(records: list[dict]) -> str:
    parts = [
        f"### {problem[0].upper()}{problem[1:]}\n\n{_comparison(group)}"
        for problem, group in _grouped(records).items()
    ]
    return "\n\n".join(["## Other batches", *parts])


def _rows_of(record: dict) -> str:
    return f"{100 * record['of_rows']:.1f} % of the"


def _table1_row(name, forward, backward, total, ours) -> list[str]:
    timed = lambda record: record is not None and record["status"] == "ok"
    seconds = relative = None
    if timed(total):
        seconds, relative = total["median"], total["ratio"] / ours["ratio"]
    elif timed(forward) and timed(backward):
        seconds = forward["median"] + backward["median"]
        relative = seconds / ours["median"]
    elif timed(forward):
        relative = forward["ratio"]
    return [
        name,
        _spread(forward),
        _spread(backward),
        milliseconds(seconds) if seconds else "—",
        factor(relative) if relative else "—",
        *PAPER.get(name, ("—", "—", "—")),
    ]


def _comparison(records: list[dict], relative: bool = False) -> str:
    """Every method of one problem, with its accuracy."""
    head = ["method", "median ms", "× ours", "error", "gap", "note"]
    if relative:
        head.insert(4, "relative")
    rows = []
    for r in records:
        note = r["note"]
        if r["of_rows"] < 1:
            note = f"{note}; " * bool(note) + f"timed on {_rows_of(r)} rows, scaled"
        if r["status"] != "ok":
            rows.append([r["method"], r["status"], *[""] * (len(head) - 3), r["reason"][:200]])
            continue
        accuracy = [power(r.get("error")), power(r.get("relative_gap"))]
        if relative:
            accuracy.insert(1, power(r.get("relative_error")))
        rows.append([r["method"], milliseconds(r["median"]), factor(r["ratio"]), *accuracy, note])
    return table(head, rows)


def _kernels(records: list[dict]) -> str:
    sizes = sorted({r["size"] for r in records})
    rows = []
    for problem, group in _grouped(records).items():
        for method in ("jaxtv", "C loop", MEMORY_FLOOR):
            own = targets.timed(group, method)
            if own and (method == "jaxtv" or problem.endswith("contiguous")):
                name = "copy" if method == MEMORY_FLOOR else method
                rows.append([f"{problem}: {name}", *(f"{r['ns_per_sample']:.2f}" for r in own)])
    errors = max(r["error"] for r in targets.timed(records, "jaxtv") if "ramps" not in r["problem"])
    return f"""## Kernels: nanoseconds per sample on one core

![ns per sample against n](images/bench_kernels.png)

The batches fit into the cache, and times include the cost of the call. The largest \
error of jaxtv is {errors:.1e}, without the ramps, which reach 1023.

{table(["n", *(f"{n:g}" for n in sizes)], rows)}"""


def _worst_cases(records: list[dict]) -> str:
    rows = []
    for problem, (ours, loop, copy) in _grouped(records).items():
        rows.append(
            [
                problem,
                milliseconds(ours["median"]),
                f"{ours['ns_per_sample']:.2f}",
                factor(loop["ratio"]),
                f"{1 / copy['ratio']:.1f}",
                power(ours["error"]),
            ]
        )
    head = ["", "ms", "ns per sample", "C loop, all threads / ours", "ours / copy", "error"]
    return "## Worst cases\n\nAll methods use all cores.\n\n" + table(head, rows)


def _single_signal(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group)}" for problem, group in _grouped(records).items()
    ]
    return "\n\n".join(["## One long signal", *parts])


def _accuracy(records: list[dict]) -> str:
    rows = []
    for problem, group in _grouped(records).items():
        for level in targets.LEVELS:
            if pair := targets.times_to(group, level):
                ours, peer = pair
                times = [milliseconds(ours["median"]), milliseconds(peer["median"])]
                ratio = factor(peer["ratio"] / ours["ratio"])
                names = [ours["method"].removeprefix("jaxtv "), peer["method"]]
                rows.append([problem, f"{level:g}", *names, *times, ratio])
    head = ["", "relative error", "jaxtv", "best peer", "ms", "peer, ms", "peer / jaxtv"]
    text = "Every point of a curve is a number of iterations or a tolerance. The images have 512×512 pixels in [0, 1], the noise has σ = 0.1. The table has the fastest setting of jaxtv and the fastest of all peers that reach an error."
    figure = "![error against time, for three λ and with noise](images/bench_accuracy.png)"
    return "\n\n".join(["## Images: time to accuracy", figure, text, table(head, rows)])


def _images(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group, relative=True)}"
        for problem, group in _grouped(records).items()
    ]
    intro = "![error against time](images/bench_images.png)"
    text = "λ = 0.1 on [0, 1], anisotropic TV. cvxpylayers solves only the small image, because its cone program grows with the pixels; deepinv too, because 1000 iterations on the large one take a quarter of a minute."
    return "\n\n".join(["## Images: every package", intro, text, *parts])


def _slopes(records: list[dict], start: float, what: str, dimension: int = 1) -> str:
    rows = []
    for method in dict.fromkeys(r["method"] for r in records):
        slope = targets.fit_slope(records, method, start)
        if slope is not None:
            rows.append([method, f"{slope / dimension:.2f}"])
    return table(["method", f"exponent of time against {what} ≥ {start:g}"], rows)


def _scaling_n(records: list[dict]) -> str:
    return f"""## Scaling

One signal, λ = 1, a jump every 1000 samples and noise:

![time against n](images/bench_scaling_n.png)

{_slopes(records, 1e4, "n")}"""


def _scaling_batch(records: list[dict]) -> str:
    return f"""Batches of signals with 32 samples, λ = 1. prox_tv solves at most 1000 of them; its time is scaled.

![time against the batch](images/bench_scaling_batch.png)

{_slopes(records, 1000, "batch")}"""


def _scaling_side(records: list[dict]) -> str:
    return f"""Square images, 4 sweeps, λ = 0.1:

![time against the side](images/bench_scaling_side.png)

{_slopes(records, 128, "pixels, side", dimension=2)}"""


def _scaling_lam(records: list[dict]) -> str:
    return """256 signals of 1024 samples, from λ = 0 to the λ that makes all of them constant:

![time against λ](images/bench_scaling_lam.png)"""


def _threads(records: list[dict]) -> str:
    rows = [
        [problem, *(milliseconds(r["median"]) for r in group), factor(group[1]["ratio"])]
        for problem, group in _grouped(records).items()
    ]
    head = ["", "all cores, ms", "one core, ms", "gain"]
    return f"""## Threads

![time on one core over time on all cores](images/bench_threads.png)

{table(head, rows)}"""


def _network(records: list[dict]) -> str:
    rows = [
        [f"{problem}: {r['method']}", _spread(r), f"{100 * (r['ratio'] - 1):+.1f} %"]
        for problem, group in _grouped(records).items()
        for r in group
    ]
    head = ["", "ms per step: mean ± std (median)", "over the step without"]
    return f"""## Layers in a network

The table shows training steps on 32×32×3 images, by SGD. As in the paper, 2D TV layers (K = 4, λ learned) stand \
before the batch norm of each of the first three blocks.

{table(head, rows)}"""


def _levels(records: list[dict]) -> str:
    """Time of every package to each error; the ratio to ours in brackets."""
    names = targets.packages(records)
    rows = []
    for problem, group in _grouped(records).items():
        for level in targets.LEVELS:
            best = [targets.fastest_to(group, level, name) for name in names]
            if best[0]:
                cells = [_against(r, best[0]) for r in best[1:]]
                rows.append([problem, f"{level:g}", milliseconds(best[0]["median"]), *cells])
    return table(["", "relative error", "jaxtv, ms", *(f"{n}, ms" for n in names[1:])], rows)


def _against(record: dict | None, ours: dict) -> str:
    if record is None:
        return "not reached"
    return f"{milliseconds(record['median'])} ({factor(record['ratio'] / ours['ratio'])})"


def _bounded(records: list[dict]) -> str:
    """A bound of what the errors of a chapter may be off, by the optimum that they stand on."""
    return f"{max(r.get('optimum_error', 0) for r in records):.0e}"


def _isotropic(records: list[dict]) -> str:
    return f"""## Isotropic TV

![error against time](images/bench_isotropic.png)

Images of 512×512 pixels in [0, 1], all packages in float32, on two cores. Every point is a number of iterations or a tolerance, and the table \
has the fastest setting of each package that reaches an error. The errors are to a solution in float64, whose duality gap NumPy computes: it is \
within a relative error of {_bounded(records)}.

{_levels(records)}"""


def _graph_tv(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group, relative=True)}"
        for problem, group in _grouped(records).items()
    ]
    text = f"""## Total variation over a graph

A 256×256 image with 8 neighbours, the weights 1 and 1/√2. fastprox's `graph_tv` is exact, by maximal flows in float64. jaxtv iterates in \
float32 to a duality gap. The errors are to a solution in float64 within a relative error of {_bounded(records)}, by its gap."""
    return "\n\n".join([text, _levels(records), *parts])


def _trend_filter(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group, relative=True)}"
        for problem, group in _grouped(records).items()
    ]
    text = f"""## Trend filtering

One signal of lines between random values, with noise of σ = 0.3. cvxpy models the problem in one line (its default tolerances; without a warm \
start, which would make the second solve free), trendfilter does so for the user, and cyl1tf calls the interior-point method of Kim et al. \
(2009) in C to a relative gap of 1e-4, for order 1 alone. The errors are to a solution in float64 whose gap NumPy computes from repeated sums in long double: it \
is within a relative error of {_bounded(records)}. We found no package on PyPI that wraps glmgen."""
    return "\n\n".join([text, *parts])


def _selection(records: list[dict]) -> str:
    rows = []
    for r in records:
        if r["status"] != "ok":
            rows.append([r["method"], r["status"], "", "", r["reason"][:200]])
            continue
        error = f"{1e3 * r['mse']:.3f}"
        rows.append([r["method"], milliseconds(r["median"]), factor(r["ratio"]), error, r["note"]])
    head = ["", "median ms", "× ours", "mean squared error, 1e-3", "note"]
    return f"""## λ from the noisy image

{records[0]["problem"]}, of noise that the packages are not told unless it says so. Each time is that of λ and of the denoised image. pygfl, which \
chooses λ by AIC, can not be built: its sdist on PyPI lacks a header.

{table(head, rows)}"""


def _instructions() -> str:
    known = json.loads(INSTRUCTIONS.read_text())
    rows = [
        [name, f"{case['instructions']:,}", f"{case['instructions'] / case['samples']:.1f}"]
        for name, case in known["cases"].items()
    ]
    peers = json.loads(PEERS.read_text())["instructions"]
    counts = [[name, f"{p['ours']:.0f}", f"{p['peer']:.0f}"] for name, p in peers.items()]
    return f"""## Instruction counts

callgrind counts them, and repeats to a few instructions. `python -m benchmarks.instructions` fails if a count grows by more than \
{100 * known["tolerance"]:.0f} %; `--update` accepts new counts. The compiler is {known["compiler"]}.

{table(["input", "instructions", "per sample"], rows)}

`python -m benchmarks.peers` counts the peers on one core. The peer of the photo is prox_tv's `pd`, per sample and pass; all others are the \
C loop.

{table(["instructions per sample", "jaxtv", "peer"], counts)}"""


def _peers(results: dict) -> str:
    states: dict[str, str] = {}
    for records in results["chapters"].values():
        for r in records:
            for name in results["environment"]["pins"]:
                key = {"diffcp": "cvxpylayers"}.get(name, name)
                if f"{r['method']} ".replace(",", " ").startswith(f"{key} "):
                    bad = r["status"] != "ok"
                    states.setdefault(name, "timed")
                    if bad:
                        states[name] = f"{r['status']}: {r['reason'][:200]}"
    rows = [
        [name, version, states.get(name, "not in this run")]
        for name, version in results["environment"]["pins"].items()
    ]
    return "## Peers\n\n" + table(["package", "version", "state"], rows)


CHAPTERS = {
    "table1": _table1,
    "batches": _batches,
    "kernels": _kernels,
    "worst_cases": _worst_cases,
    "single_signal": _single_signal,
    "accuracy": _accuracy,
    "images": _images,
    "scaling_n": _scaling_n,
    "scaling_batch": _scaling_batch,
    "scaling_side": _scaling_side,
    "scaling_lam": _scaling_lam,
    "threads": _threads,
    "network": _network,
    "isotropic": _isotropic,
    "graph_tv": _graph_tv,
    "trend_filter": _trend_filter,
    "selection": _selection,
}
