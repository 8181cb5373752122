"""The instruction counts over the commits that changed them: docs/history.md, from git's history.

    python -m benchmarks.history

Reads every committed version of instructions.json (CPU, callgrind) and gpu_counts.json (CUDA,
executed PTX), and writes docs/history.json, docs/images/history.png and the page's tables. Needs
the whole history: a shallow clone is an error.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs/history.md"
BEGIN, END = "<!-- history -->", "<!-- /history -->"
CHANGED = 0.02  # smaller changes are noise of other lines of code, and not in the table
# Of CUDA's cases, those in the picture.
DRAWN = (
    *("256x32x32, rows (Table 1)", "64x64x64x64 NCHW, rows", "64x64x64x64 NCHW, rows, bf16"),
    *("64x64x64x64 NCHW, 2D K=4", "8192x1024, noise", "8192x1024, ramps"),
)
RENAMED = {"masks": "edge codes", "adjoint": "vjp"}  # in old versions: the first word of a case


@dataclasses.dataclass(frozen=True)
class Version:
    """The counts of one commit: of each case, per sample."""

    commit: str
    date: str
    subject: str
    counts: dict[str, float]


def git(root: pathlib.Path, *arguments: str) -> str:
    """What git prints."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cpu_counts(text: str) -> dict[str, float]:
    """Instructions per sample, from a version of instructions.json."""
    out = {}
    for name, case in json.loads(text)["cases"].items():
        first, comma, rest = name.partition(",")
        out[RENAMED.get(first, first) + comma + rest] = case["instructions"] / case["samples"]
    return out


def cuda_counts(text: str) -> dict[str, float]:
    """Warp instructions per sample, from a version of gpu_counts.json."""
    return {
        f"{name}: {part}": counts["warp_instructions"]
        for name, case in json.loads(text)["cases"].items()
        for part, counts in case.items()
    }


SOURCES = {
    "cpu": ("benchmarks/instructions.json", cpu_counts),
    "cuda": ("benchmarks/gpu_counts.json", cuda_counts),
}


def versions(root: pathlib.Path, platform: str) -> list[Version]:
    """All committed versions of a platform's counts, the oldest first."""
    if git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise SystemExit("this clone is shallow: `git fetch --unshallow` brings its history")
    path, counts = SOURCES[platform]
    form = "--format=%h%x09%ad%x09%s"
    lines = git(root, "log", "--reverse", "--topo-order", form, "--date=short", "--", path)
    return [
        Version(*line.split("\t", 2), counts(git(root, "show", f"{line.split()[0]}:{path}")))
        for line in lines.splitlines()
    ]


def changes(history: list[Version]) -> list[tuple[Version, dict[str, tuple[float, float]]]]:
    """Each commit with the cases that it changed: their counts before and after."""
    out, last = [], {}
    for version in history:
        moved = {
            name: (last[name], count)
            for name, count in version.counts.items()
            if name in last and abs(count / last[name] - 1) > CHANGED
        }
        out.append((version, moved))
        last |= version.counts
    return out


def table(history: list[Version]) -> str:
    """Markdown: a row per commit that changed a case."""
    rows = ["| commit | | per sample, before → after |", "|---|---|---|"]
    for version, moved in changes(history):
        if moved:
            cells = [f"{name} {old:.3g} → {new:.3g}" for name, (old, new) in moved.items()]
            rows.append(
                f"| {version.date} `{version.commit}` | {version.subject} | {'; '.join(cells)} |"
            )
    return "\n".join(rows)


def draw(histories: dict[str, list[Version]], path: pathlib.Path) -> None:
    """Counts per sample over the commits, a panel per platform."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "cpu": ("CPU: instructions per sample (AVX2)", list(histories["cpu"][-1].counts)),
        "cuda": (
            "CUDA: warp instructions per sample",
            [f"{name}: {part}" for part in ("forward", "backward") for name in DRAWN],
        ),
    }
    figure, all_axes = plt.subplots(len(panels), 1, figsize=(8, 4.2 * len(panels)))
    for axes, (platform, (label, names)) in zip(all_axes, panels.items(), strict=True):
        history = histories[platform]
        colours = 6  # then the same ones, dashed
        for i, name in enumerate(names):
            points = [(x, v.counts[name]) for x, v in enumerate(history) if name in v.counts]
            style = ("-", "--")[i // colours] + "o"
            axes.plot(*zip(*points, strict=True), style, c=f"C{i % colours}", ms=3, label=name)
        axes.set_xticks(range(len(history)), [v.commit for v in history], rotation=45, fontsize=7)
        axes.set(yscale="log", ylabel=label)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Write the page's table, its picture and its numbers."""
    histories = {platform: versions(ROOT, platform) for platform in SOURCES}
    numbers = {name: [dataclasses.asdict(v) for v in h] for name, h in histories.items()}
    (ROOT / "docs/history.json").write_text(json.dumps(numbers, indent=1) + "\n")
    draw(histories, ROOT / "docs/images/history.png")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    tables = [f"\n## {name.upper()}\n\n{table(h)}\n" for name, h in histories.items()]
    PAGE.write_text("\n".join([before + BEGIN, *tables, END]) + after)
    print(f"{PAGE}: " + ", ".join(f"{len(h)} versions of {name}" for name, h in histories.items()))


if __name__ == "__main__":
    main()
