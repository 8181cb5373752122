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
# Counted in the compiled code: vector instructions of a round for a row of samples in a vector of
# signals, and rounds that the slowest of 16 neighbouring signals takes: rows of 32, rows of 512,
# rows and columns of the photo.
FORWARD, BACKWARD = 15.5, 31
ROUNDS = (5.0, 7.0, 8.5)
LANES = 8  # of float32 with AVX2
IN_LAYERS = 9.4e6  # samples of the three TV layers of network.py, batch 128
INSTRUCTIONS = pathlib.Path(__file__).with_name("instructions.json")
PEERS = pathlib.Path(__file__).with_name("peers.json")
MEMORY_FLOOR = "x + 1 (a copy of the same bytes)"
PLAIN = "plain lanes"


def write(results: dict, folder: pathlib.Path) -> None:
    chapters = results["chapters"]
    plots.draw(chapters, folder / "images")
    parts = [_head(results), _targets(chapters)]
    parts += [show(chapters[name]) for name, show in CHAPTERS.items() if name in chapters]
    parts += [_instructions(), _bounds(chapters), _peers(results)]
    (folder / "benchmarks.md").write_text("\n\n".join(parts) + "\n")


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


def find(records: list[dict], method: str, problem: str | None = None) -> dict:
    return next(r for r in records if r["method"] == method and problem in (None, r["problem"]))


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
    return f"""# Benchmarks

<!-- Written by `python -m benchmarks`; edit benchmarks/report.py instead. -->

{machine["processor"]}, {machine["cores"]} cores; jaxtv {machine["jaxtv"]}, {versions}, Python {machine["python"]}.
`python -m pip install -e '.[bench]' && python -m benchmarks` makes this page, its figures and `benchmarks.json` \
({minutes:.0f} minutes).{warning if quick else ""}

All methods of a table are timed in turns, in one run, and a ratio is the median of the ratios of its rounds: the load of the machine \
hits all of them. jaxtv and the C loop compute in float32, other peers in float64 where they can. *Error* is the \
largest |y − y\\*| against the optimum in float64 (of a 1D problem in long double, of an image to a relative duality gap of 1e-12); \
*relative* is ‖y − y\\*‖ / ‖x − y\\*‖; *gap* is the duality gap with the best dual, relative to the objective. The *C loop* is a \
scalar direct solver (linearised taut string, `benchmarks/scalar.cpp`, `g++ -O3 -march=native`) called once for the whole batch: no Python \
in between. The *copy* is `x + 1` through JAX: the memory floor of the same call."""


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
    return "## Targets\n\n" + table(["", "target", "measured", "", "of"], rows)


def _spread(record: dict | None) -> str:
    if record is None or record["status"] != "ok":
        return "—" if record is None else record["status"]
    parts = (milliseconds(record[name]) for name in ("mean", "std", "median"))
    return "{} ± {} ({})".format(*parts)


def _table1(records: list[dict]) -> str:
    ours, total = find(records, "jaxtv"), find(records, "jaxtv total")
    layer, pull = find(records, "cvxpylayers"), find(records, "cvxpylayers backward")
    lines = {
        "CVXPYLayers": (layer, pull, None),
        "ProxTV-TS": (find(records, "prox_tv hybridtautstring"), None, None),
        "ProxTV-PN": (find(records, "prox_tv pn"), None, None),
        "Ours-PN, Titan X": (None, None, None),
        "Ours-PN, A6000": (None, None, None),
        "jaxtv, `ProjectedNewton`": (find(records, "jaxtv ProjectedNewton"), None, None),
        "jaxtv, `Direct`": (ours, find(records, "jaxtv backward"), total),
    }
    rows = [_table1_row(name, *line, total["median"]) for name, line in lines.items()]
    head = ["", "forward", "backward", "total", "× ours", "paper: forward", "backward", "×"]
    note = f"ms: mean ± std (median) of {ours['runs']} runs on this CPU, each one call"
    return f"""## Table 1 of the paper: 256×32×32 signals, λ = 1

{table(head, rows)}

In {note}. The paper's CPU is a Core i7-6700K, its GPUs are named. `proxTV` has no derivative (the \
paper added one in PyTorch). CVXPYLayers (through DIFFCP) is timed on {_rows_of(layer)} rows and scaled. Our total is one \
`jax.value_and_grad` in x and λ; × is relative to it for methods with a derivative and to our forward for the others.

{_comparison(records)}"""


def _rows_of(record: dict) -> str:
    return f"{100 * record['of_rows']:.1f} % of the"


def _table1_row(name, forward, backward, total, ours_total) -> list[str]:
    seconds = total["median"] if total else None
    if forward and backward and "median" in forward and "median" in backward and not total:
        seconds = forward["median"] + backward["median"]
    relative = forward["ratio"] if forward and "ratio" in forward else None
    if seconds:
        relative = seconds / ours_total
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
        for method in ("jaxtv", PLAIN, "C loop", MEMORY_FLOOR):
            own = targets.timed(group, method)
            if own and (method in ("jaxtv", PLAIN) or problem.endswith("contiguous")):
                name = "copy" if method == MEMORY_FLOOR else method
                rows.append([f"{problem}: {name}", *(f"{r['ns_per_sample']:.2f}" for r in own)])
    errors = max(r["error"] for r in targets.timed(records, "jaxtv") if "ramps" not in r["problem"])
    return f"""## Kernels: nanoseconds per sample on one core

![ns per sample against n](images/bench_kernels.png)

Batches that stay in the cache, the cost of the call included. *Plain lanes* (`benchmarks/plain_lanes.cpp`) is the decomposition for eight signals \
at once and nothing else: in float, signals side by side already, no decision checked, so that some are wrong. Largest error of ours: {errors:.1e} (ramps, which reach 1023, apart).

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
    return "## Worst cases\n\nAll cores.\n\n" + table(head, rows)


def _single_signal(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group)}" for problem, group in _grouped(records).items()
    ]
    return "\n\n".join(["## One long signal", *parts])


def _images(records: list[dict]) -> str:
    parts = [
        f"### {problem}\n\n{_comparison(group, relative=True)}"
        for problem, group in _grouped(records).items()
    ]
    intro = "![error against time](images/bench_images.png)"
    text = "λ = 0.1 on [0, 1], anisotropic TV. cvxpylayers only on the small image: its cone program grows with the pixels."
    return "\n\n".join(["## Images: time to accuracy", intro, text, *parts])


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
    return f"""Batch of signals with 32 samples, λ = 1 (prox_tv on at most 1000 of them, scaled):

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
    rows = [[r["method"], _spread(r), f"{100 * (r['ratio'] - 1):+.1f} %"] for r in records]
    head = ["", "ms per step: mean ± std (median)", "over the step without"]
    return f"""## Layers in a network

One training step of {records[0]["problem"]}, 32×32×3 images, SGD: 2D TV layers (K = 4, λ learned) before the batch norm of each of the \
first three blocks, as in the paper.

{table(head, rows)}"""


def _instructions() -> str:
    known = json.loads(INSTRUCTIONS.read_text())
    rows = [
        [name, f"{case['instructions']:,}", f"{case['instructions'] / case['samples']:.1f}"]
        for name, case in known["cases"].items()
    ]
    return f"""## Instruction counts

Counted by callgrind, which repeats to a few instructions; CI fails when one grows by more than \
{100 * known["tolerance"]:.0f} % (`python -m benchmarks.instructions`, `--update` to accept new ones). {known["compiler"]}.

{table(["input", "instructions", "per sample"], rows)}"""


def _bounds(chapters: dict) -> str:
    """What stands between the kernels and the targets that they miss."""
    missed = [target.what for target in targets.judge(chapters) if not target.met]
    cases = json.loads(INSTRUCTIONS.read_text())["cases"]
    rows, long, masks, adjoint = (
        cases[name]["instructions"] / cases[name]["samples"]
        for name in ("rows of 32", "rows of 512", "masks, channels last", "adjoint, channels last")
    )
    layers = IN_LAYERS * (masks + adjoint) / (2 * 3 * 3e9)
    peers = json.loads(PEERS.read_text())
    table1, photo = peers["rows of Table 1"], peers["photo"]
    a_round = (FORWARD + BACKWARD) / LANES
    pairs = ", ".join(
        f"{p['ours']:.0f} against {p['peer']:.0f} at {name.removeprefix('one signal, ')}"
        for name, p in peers.items()
        if name.startswith("one signal")
    )
    few = photo["ours"] - a_round * ROUNDS[2]
    return f"""## What bounds it

Missed here: {"; ".join(missed) or "nothing"}.

**Instructions, not memory.** A sample of a row of 32 costs {rows:.0f} instructions with AVX2 ({long:.0f} in a row of 512) and moves 8 bytes: \
at the 3 instructions a cycle that the kernels reach that is {rows / 3:.0f} cycles, at the 4 that the decoder of most cores delivers {rows / 4:.0f}; \
a core moves 8 bytes in one to three cycles (the copy in the tables above).

{_bare(chapters["kernels"])}**Rounds.** A round of the decomposition takes {FORWARD} vector instructions for the messages and {BACKWARD} for labels, sums and thresholds, \
for every row of {LANES} signals: {a_round:.1f} per sample. All signals of two vectors go as many rounds as the slowest of them: {ROUNDS[0]:g} for rows \
of 32 (the last one checks only and the first one is cheaper), {ROUNDS[1]:g} for 512, {ROUNDS[2]:g} on the photo. The rest is the transpose, the values in double (about 7) and \
their spreading with the check of every decision (about 4).

**Why the ratio to scalar code is what it is.** The threaded C loop takes {table1["peer"]:.0f} instructions per sample of Table 1, ours {table1["ours"]:.0f} \
(`python -m benchmarks.peers`, callgrind): eight lanes \
do about eight times the work, because a scalar solver visits a sample once or twice and the lanes visit all of them in every round. We gain \
because the lanes do not branch on data. A ratio of 5 needs less than half of our instructions: fewer than three rounds. One signal, per \
sample on one core: {pairs} (ours against the C loop), so that the gain is a second core and no mispredicted branches.

**Image.** prox_tv's `pd` takes {photo["peer"]:.0f} instructions per sample and pass of the 512×512 photo, ours {photo["ours"]:.0f}, of which about {few:.0f} are outside of the rounds. Twenty times fewer is {photo["peer"] / 20:.1f}, about one round and nothing else; with three times its instructions per \
cycle it is {3 * photo["peer"] / 20:.0f}. Vectors of 16 lanes halve our number and reach neither. Moving the states costs about 5 % of the \
instructions and 16 bytes per sample and pass, a tenth of the time at most: fusing passes over tiles cannot gain more than that, and a \
pass needs whole columns before the next one begins.

**Layers.** The TV layers of the training step see {IN_LAYERS / 1e6:.1f} million samples. Four sweeps with their masks take {masks:.0f} instructions for each, \
the adjoint {adjoint:.0f}: on two cores of 3 GHz, at 3 instructions a cycle, {1e3 * layers:.0f} ms. Fewer sweeps, or fewer rounds in a pass, are what could be saved.

**Tried.** Refilling lanes that are done, or a scalar end of the last rounds: 2–8 % on paper. Skipping blocks of 16 samples in which no \
region is split any more: {ROUNDS[2]:g} rounds of the photo become 7.0, those of rows of 512 6.0, rows of 32 4.9, less what the bookkeeping costs. Starting a sweep from \
the cuts of the last: rounds 5.2 → 2.3 on feature maps of a network, no gain on photos."""


def _bare(records: list[dict]) -> str:
    """Ours beside the decomposition with nothing around it."""
    plain, ours = (
        {(r["problem"], r["size"]): r["ns_per_sample"] for r in targets.timed(records, method)}
        for method in (PLAIN, "jaxtv")
    )
    if not plain:
        return ""
    times = sorted(ours[key] / value for key, value in plain.items())
    return f"""**The method with nothing around it**, the plain lanes of the table, takes on this machine {min(plain.values()):.1f} to {max(plain.values()):.1f} ns, \
the signals side by side and nothing checked. Ours takes {times[0]:.2f} to {times[-1]:.2f} times that (median {times[len(times) // 2]:.2f}), with every decision certified.

"""


def _peers(results: dict) -> str:
    states: dict[str, str] = {}
    for records in results["chapters"].values():
        for r in records:
            for name in results["environment"]["pins"]:
                key = {"diffcp": "cvxpylayers"}.get(name, name)
                if r["method"].startswith(key):
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
    "kernels": _kernels,
    "worst_cases": _worst_cases,
    "single_signal": _single_signal,
    "images": _images,
    "scaling_n": _scaling_n,
    "scaling_batch": _scaling_batch,
    "scaling_side": _scaling_side,
    "scaling_lam": _scaling_lam,
    "threads": _threads,
    "network": _network,
}
