"""The figures of the report."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.targets import timed

COLOURS = {"jaxtv": "tab:red", "x + 1": "0.6", "C loop": "tab:blue", "C loop, ": "tab:cyan"}
LABELS = {"x + 1 (a copy of the same bytes)": "x + 1 (copy)"}
STYLE = {"marker": "o", "markersize": 3.5, "linewidth": 1.4}


def draw(chapters: dict[str, list[dict]], folder: pathlib.Path) -> None:
    """All figures whose chapter was measured, as folder/bench_*.png."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "kernels": _kernels,
        "accuracy": _accuracy,
        "isotropic": _accuracy,
        "images": _images,
        "scaling_n": lambda r: _scaling(r, "samples of the one signal", 1),
        "scaling_batch": lambda r: _scaling(r, "signals of 32 samples", 32),
        "scaling_side": lambda r: _scaling(r, "side of the image, pixels", None),
        "scaling_lam": _lam,
        "threads": _threads,
    }
    names = ("orange", "green", "purple", "brown", "pink", "olive", "gray")
    others = plt.cycler(color=[f"tab:{name}" for name in names])  # red and blue are taken
    style = {"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.prop_cycle": others}
    with plt.rc_context(style):
        for name, figure in figures.items():
            if name in chapters:
                drawn = figure(chapters[name])
                drawn.savefig(folder / f"bench_{name}.png", dpi=130, bbox_inches="tight")
                plt.close(drawn)


def _methods(records: list[dict]) -> list[str]:
    return list(dict.fromkeys(r["method"] for r in records if r["status"] == "ok"))


def _line(axes: Axes, method: str, x, y, **options) -> None:
    fits = [prefix for prefix in COLOURS if method.startswith(prefix)]
    colour = {"color": COLOURS[max(fits, key=len)]} if fits else {}
    order = {"zorder": 3 if method.startswith("jaxtv") else 2}
    axes.plot(x, y, label=LABELS.get(method, method), **STYLE, **colour, **order, **options)


def _scaling(records: list[dict], label: str, per_size: int | None):
    """Time, and time per sample, against the size: `per_size` samples each, None for size²."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for method in _methods(records):
        own = timed(records, method)
        sizes = [r["size"] for r in own]
        samples = [s * per_size if per_size else s * s for s in sizes]
        _line(left, method, sizes, [r["median"] * 1e3 for r in own])
        _line(right, method, sizes, [r["median"] * 1e9 / k for r, k in zip(own, samples)])
    for axes, quantity in ((left, "ms"), (right, "ns per sample")):
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel=quantity)
    if per_size is None:
        sides = sorted({r["size"] for r in records})
        for axes in (left, right):
            axes.set_xticks(sides, [f"{side:g}" for side in sides])
            axes.minorticks_off()
    right.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _lam(records: list[dict]):
    """Time against λ; λ = 0 has its own place left of the logarithmic axis."""
    figure, axes = plt.subplots(figsize=(6, 3.8))
    shares = sorted({r["size"] for r in records if r["size"] > 0})
    for method in _methods(records):
        own = timed(records, method)
        at = [r["size"] or shares[0] / 10 for r in own]
        _line(axes, method, at, [r["median"] * 1e3 for r in own])
    ticks = [shares[0] / 10, *shares]
    axes.set(xscale="log", yscale="log", xlabel="λ / λ_max", ylabel="ms")
    axes.set_xticks(ticks, ["0", *(f"{share:g}" for share in shares)])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def _kernels(records: list[dict]):
    kinds = list(dict.fromkeys(r["problem"].split(", ")[0] for r in records))
    figure, panels = plt.subplots(
        1, len(kinds), figsize=(2.6 * len(kinds), 3.4), sharey=True, squeeze=False
    )
    for axes, kind in zip(panels[0], kinds):
        for layout, line in (("contiguous", "-"), ("strided", "--")):
            some = [r for r in records if r["problem"] == f"{kind}, {layout}"]
            for method in _methods(some) if layout == "contiguous" else ["jaxtv"]:
                own = timed(some, method)
                name = f"{LABELS.get(method, method)}, {layout}" if method == "jaxtv" else method
                values = [r["ns_per_sample"] for r in own]
                _line(axes, name, [r["size"] for r in own], values, linestyle=line)
        sizes = sorted({r["size"] for r in records})
        axes.set(xscale="log", yscale="log", xlabel="n", title=kind)
        axes.set_xticks(sizes, [f"{n:g}" for n in sizes], rotation=45)
        axes.minorticks_off()
    panels[0][0].set_ylabel("ns per sample, one core")
    figure.tight_layout()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=4, bbox_to_anchor=(0.5, 0), fontsize=8)
    return figure


def _family(method: str) -> str:
    """The curve that a method is a point of: its name without the iterations."""
    return method.split(",")[0].split("(")[0]


def _errors(axes: Axes, records: list[dict], title: str) -> None:
    """Error against time, one curve per method; isotropic ones solve another problem: left out."""
    families: dict[str, list[dict]] = {}
    for record in records:
        if record["status"] == "ok" and "error" in record and "isotropic TV" not in record["note"]:
            families.setdefault(_family(record["method"]), []).append(record)
    markers = iter("osv^D<>PX*hd")
    for family, points in families.items():
        points = sorted(points, key=lambda r: r["median"])
        times = [r["median"] * 1e3 for r in points]
        errors = [r["relative_error"] for r in points]
        look = STYLE | {"marker": next(markers)}
        if family.startswith("jaxtv"):
            look |= {"color": COLOURS["jaxtv"], "zorder": 3}
        if "Accelerated" in family:
            look |= {"linestyle": "--"}
        axes.plot(times, errors, label=family, **look)
    axes.set(xscale="log", yscale="log", xlabel="ms", title=title)


def _accuracy(records: list[dict]):
    names = list(dict.fromkeys(r["problem"] for r in records))
    size = (3.2 * len(names), 3.6)
    figure, (panels,) = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for axes, name in zip(panels, names):
        _errors(axes, [r for r in records if r["problem"] == name], name)
    panels[0].set_ylabel("‖y − y*‖ / ‖x − y*‖")
    figure.tight_layout()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=6, bbox_to_anchor=(0.5, 0), fontsize=8)
    return figure


def _images(records: list[dict]):
    """Of the large image."""
    problem = records[0]["problem"]
    figure, axes = plt.subplots(figsize=(7, 4.6))
    title = f"{problem}, λ = 0.1: more iterations from left to right"
    _errors(axes, [r for r in records if r["problem"] == problem], title)
    axes.set_ylabel("‖y − y*‖ / ‖x − y*‖")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _threads(records: list[dict]):
    problems = list(dict.fromkeys(r["problem"] for r in records))
    gain = [timed(records, "jaxtv, one core")[i]["ratio"] for i in range(len(problems))]
    figure, axes = plt.subplots(figsize=(6, 0.5 + 0.45 * len(problems)))
    bars = axes.barh(problems, gain, color=COLOURS["jaxtv"])
    axes.bar_label(bars, fmt="%.2f×", padding=3)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set(xlabel="time on one core / time on all cores", xlim=(0, 1.2 * max(*gain, 1)))
    axes.invert_yaxis()
    return figure
