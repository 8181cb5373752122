"""Instructions and cycles of a warp: loops, and how often it goes through each."""

from __future__ import annotations

import collections
import itertools

import numpy as np

from benchmarks.gpu_model.sass import CYCLES, Kernel, Loop, function_of, loops_of
from benchmarks.gpu_model.simulate import AT_ONCE, WARP_SIGNALS, WINDOW, Decomposed, Trips

# Cycles until what an instruction made can be used, assumed; of global memory, once per batch.
LATENCY = {"fp64": 8, "special": 20, "memory": 30, "fp32": 4, "integer": 5, "control": 5}

ANY = "any"  # function


def count(loop: Loop, start: str) -> int:
    """How many of its instructions begin like that."""
    return sum(i.name.startswith(start) for i in loop.body)


def loop_at(kernel: Kernel, depth: int, function: str, marker: str) -> tuple[Loop, int]:
    """The loop of that function with the least per sample; it has one `marker` of each."""
    loops = [x for x in loops_of(kernel) if x.depth == depth and count(x, marker)]
    found = [x for x in loops if function in (x.function, ANY)]
    if not found:  # most of it is inlined from others
        found = [x for x in loops if any(function_of(*i.place) == function for i in x.body)]
    if not found:
        raise LookupError(f"{kernel.name}: no loop of {function} at depth {depth} has {marker}")
    loop = min(found, key=lambda x: len(x.body) / count(x, marker))
    return loop, count(loop, marker)


Cost = list[tuple[Loop, float]]  # loops, and how many times a warp goes through each


def at_times(loop: Loop, times: float, share: float, marker: str = "STS") -> Cost:
    """A loop whose sides with such an instruction are gone through in a share of its rounds."""
    side = [i for s in loop.sides if any(i.name.startswith(marker) for i in s) for i in s]
    if not side:
        raise LookupError(f"no side of a loop of {loop.function} has {marker}")
    rest = list((collections.Counter(loop.body) - collections.Counter(side)).elements())
    return [(loop._replace(body=rest), times), (loop._replace(body=side), times * share)]


def chain_of(cost: Cost) -> float:
    """Cycles of a warp alone whose instructions each wait for the one before."""
    return sum(times * sum(LATENCY[i.pipe] for i in loop.body) for loop, times in cost)


def cycles_of(cost: Cost) -> tuple[float, float, str]:
    """Instructions that a warp issues; cycles of the busiest pipe, and which that is."""
    issued = sum(times * len(loop.body) for loop, times in cost)
    busy = {p: sum(t * c * loop.counts()[p] for loop, t in cost) for p, c in CYCLES.items()}
    pipe = max(busy, key=lambda p: busy[p])
    return issued, busy[pipe], pipe


# The decomposition (cuda/rounds.cuh): loops of a round and those that run once.
ROUND = (  # function, what is once per sample, what its sides of a cut have
    ("compose", "LDS.64", "LDS"),
    ("labels", "STS.U8", "LDS"),
    ("fill", "STS.64", "STS"),  # and means
)
MEANS = ("extend", "STS.64")
ONCE = (
    ("bounds", "F2F.F64"),
    ("start_cuts", "STS.U8"),
    MEANS,
    ("segment_value", "STS.64"),  # means in float32
    ("spread", "F2F.F32"),
    (ANY, "LDG"),
    (ANY, "STG"),
)


def group_cost(kernel: Kernel, n: int, done: Decomposed, threads: int, depth: int = 1) -> Cost:
    """Of a warp of the threads that solve one signal; `depth`: of the loop over signals."""
    rounds = float(done.rounds.mean())
    each = -(-n // threads) | 1
    loops = loops_of(kernel)
    whole = max((x for x in loops if x.depth == depth), key=lambda x: count(x, "SHFL"))
    behind = loops[loops.index(whole) + 1 :]
    inside = list(itertools.takewhile(lambda x: x.depth > depth, behind))
    # The rounds of splitting and of joining ties, of which there is one.
    splits, joins = (x for x in inside if x.depth == depth + 1 and count(x, "SHFL") > 10)
    cost: Cost = [(whole, 1), (splits, rounds), (joins, 1)]
    of_join = ("fuse", "STS"), MEANS
    for function, marker, side in ROUND:
        loop, samples = loop_at(kernel, depth + 2, function, marker)
        cost += at_times(loop, rounds * each / samples, done.cutting, side)
    for steps, at in ((ONCE, 1), (of_join, 2)):
        for step in steps:
            loop, samples = loop_at(kernel, depth + at, *step)
            cost.append((loop, each / samples))
    first_join = inside.index(joins)
    for i, loop in enumerate(inside):  # scans: five steps each
        if len(loop.body) < 100 and count(loop, "SHFL"):
            of_round = loop.depth == depth + 2 and i < first_join
            cost.append((loop, 5 * (rounds if of_round else 1)))
    return cost


def windows_cost(kernel: Kernel, trips: float, cutting: float, steps: np.ndarray) -> Cost:
    """Of a warp with signals of 1,024 that are all certified (prox_windows in cuda/prox1d.cu)."""
    each = 1024 * WARP_SIGNALS / 32  # samples of a thread
    searches = [x for x in loops_of(kernel) if x.function == "certify_window"]
    cost: Cost = [(x, t) for x, t in zip(searches, steps[:3], strict=True)]
    for loop in loops_of(kernel):
        if loop.depth == 1 or (loop.function == "__launch_bounds__" and not count(loop, "STG")):
            signals = 1 if loop.depth == 1 else AT_ONCE  # what is done for each of a block
            cost += [] if count(loop, "LDG") and loop.depth > 1 else [(loop, signals)]
    lines = ("for_signals", "__launch_bounds__")  # where the compiler says that they are from
    for marker in ("LDG", "STG"):
        moves = [x for x in loops_of(kernel) if x.depth == 3 and x.function in lines]
        loop = min((x for x in moves if count(x, marker)), key=lambda x: len(x.body))
        cost.append((loop, each / count(loop, marker)))
        cost.append((loop_at(kernel, 2, "for_signals", marker)[0], AT_ONCE))
    cost += at_times(loop_at(kernel, 2, "taut_string_float", "MUFU")[0], WINDOW * trips, cutting)
    cost.append((loop_at(kernel, 2, "certified_values", "MUFU")[0], steps[3]))
    for function, marker in (("find_window", "STS"), ("spread_window", "STS")):
        loop, samples = loop_at(kernel, 2, function, marker)
        cost.append((loop, WINDOW / samples))
    return cost


# What is done for the lines that float32 cannot solve.
IN_DOUBLE_FILES = ("cuts.hpp", "decomposition.hpp", "taut_string.hpp")
IN_DOUBLE = ("solve_line", "extent_of", "find_cuts", "prox_cuts", "for_segments_at")


def image_cost(kernel: Kernel, n: int, trips: Trips, passes: int) -> Cost:
    """Of a warp with a line per thread, all solved in float32 (cuda/dykstra.cu), without masks."""

    def smallest(function: str, *markers: tuple[str, int], but: str = "none") -> Loop:
        loops = [
            x
            for x in loops_of(kernel)
            if x.function == function and all(count(x, m) == c for m, c in markers)
        ]
        return min((x for x in loops if not count(x, but)), key=lambda x: len(x.body))

    outer = max((x for x in loops_of(kernel) if x.depth == 3), key=lambda x: len(x.body))
    taken = [
        i
        for i in outer.body
        if i.place[0] not in IN_DOUBLE_FILES and function_of(*i.place) not in IN_DOUBLE
    ]
    loading = smallest("__launch_bounds__", ("LDG", 8), ("STS", 8), but="LDS")
    moving = smallest("__launch_bounds__", ("LDG", 8), ("STS", 8), ("LDS", 8))
    storing = smallest("__launch_bounds__", ("STG", 8), ("LDS", 8))
    clearing = smallest("certified_cuts", ("STS", 4))
    spreading = smallest("certified_line", ("LDS", 12), ("STS", 4))
    trip, _ = loop_at(kernel, 4, "taut_string_float", "MUFU")
    values, _ = loop_at(kernel, 4, "certified_values", "MUFU")
    of_pass = [
        (Loop(outer.function, 3, taken), 1 / n),
        (moving, 1 / 8),
        (clearing, 1 / 4),
        *at_times(trip, trips.per_sample, trips.cutting),
        *at_times(values, 1, trips.ends),
        (spreading, 1 / 4),
    ]
    of_image = [(loading, 1 / 8), (storing, 1 / 8)]
    return [(x, passes * n * t) for x, t in of_pass] + [(x, n * t) for x, t in of_image]


# Of apply: what is not done, whichever way a tile is read, and with one λ per signal.
BESIDE = ("cut_weightless", "add_slopes", "slope_of")
IN_MEMORY = ("load_y", "load_values", "load", "write_memory")
IN_RUNS = ("stage_run", "move_run", "read_y", "read_values", "write_run")


def apply_cost(kernel: Kernel, rows: int, parts: int, *, contiguous: bool) -> Cost:
    """Of a warp: each thread has `rows` of a signal that `parts` threads share."""

    def of(loop: Loop, *functions: str) -> int:
        return sum(function_of(*i.place) in functions for i in loop.body)

    body = next(x for x in loops_of(kernel) if x.depth == 1)
    other = BESIDE + (IN_MEMORY if contiguous else IN_RUNS)
    taken = [i for i in body.body if function_of(*i.place) not in other]
    cost: Cost = [(Loop(body.function, 1, taken), 1)]
    for loop in (x for x in loops_of(kernel) if x.depth == 2):
        if of(loop, "move_run"):  # a batch of 8
            cost += [(loop, rows / 8)] if contiguous else []
        elif of(loop, "flow_in"):  # of two, towards either side
            cost.append((loop, parts / 2))
        elif loop.function != "cut_weightless":  # sums over the parts, in batches
            cost.append((loop, parts / count(loop, "LDS")))
    return cost


# Of prox_grid, which has no data-dependent launches: kernels of a round, and those that run once
# (Launcher in cuda/prox1d_grid.cu). Not those that scan the tiles.
GRID_EACH, GRID_WARPS, GRID_ROUNDS = 16, 8, 8
GRID_ROUND = ("g_means<float, double>", "g_compose<float>", "g_labels<float>", "g_fill<float>")
GRID_ONCE = (
    *("g_bounds<float>", "g_sums<float>", "g_sums<float>", "g_means<float, double>"),
    *("g_fuse<float>", "g_sums<float>", "g_means<float, float>", "g_spread<float>"),
)


def grid_cost(steps: dict[str, Kernel]) -> Cost:
    """Of a warp whose lanes have GRID_EACH samples each."""
    once = [(steps[name], 1) for name in GRID_ONCE]
    cost: Cost = []
    for kernel, times in once + [(steps[name], GRID_ROUNDS) for name in GRID_ROUND]:
        for loop in loops_of(kernel):
            read = count(loop, "LDG.E.S8") + count(loop, "LDG.E.U8")  # cuts
            written = count(loop, "STG.E.U8")
            if loop.depth == 1:
                turns = times
            elif count(loop, "SHFL"):
                turns = 5 * times
            elif count(loop, "LDS"):  # the warps' totals, two at once
                turns = times * GRID_WARPS / 2
            elif 0 < read < written:  # with marks of new cuts: in the last round
                turns = GRID_EACH / read
            else:  # a cut for each sample, or (g_bounds) a weight beside it
                turns = times * GRID_EACH / (read or written or max(1, count(loop, "LDG") / 2))
            cost.append((loop, turns))
    return cost


NEWTON_JOINS = 2  # rounds per iteration, assumed


def newton_cost(kernel: Kernel, iterations: float) -> Cost:
    """Of a warp whose lanes have one sample each of a signal (cuda/newton.cu).

    What loops do for one sample is in the code around them: they are unrolled.
    """
    loops = loops_of(kernel)
    whole = max((x for x in loops if x.depth == 2), key=lambda x: len(x.body))
    inside = [x for x in loops[loops.index(whole) :] if x.depth > 2]
    outside = [x for x in loops if x.depth < 3 and x is not whole]
    cost: Cost = [(whole, iterations)]
    for loop in outside + inside:
        times = iterations if loop in inside else 1
        if loop.depth == 1 or len(loop.body) > 200:  # or the rounds of ties, the search for a step
            cost.append((loop, times * (NEWTON_JOINS if count(loop, "SHFL") > 20 else 1)))
        elif count(loop, "SHFL"):  # scans: five steps each
            cost.append((loop, 5 * times))
    return cost


def phases_of(kernel: Kernel, contiguous: bool) -> dict[str, tuple[Loop, int]]:
    """The loops that every sample goes through, and the samples of one iteration of each."""

    def of(function: str, marker: str, but: str = "none") -> list[Loop]:
        loops = [x for x in loops_of(kernel) if x.function == function and count(x, marker)]
        return sorted((x for x in loops if not count(x, but)), key=lambda x: len(x.body))

    def moved(marker: str) -> Loop:
        # Whole batches: warps walk along signals, or threads do (less than for a run of memory).
        depth = 3 if contiguous else 2
        batches = [x for x in loops_of(kernel) if x.depth == depth and count(x, marker) == 8]
        return min(batches, key=lambda x: len(x.body))

    clear = of("certified_cuts", "STS.U8", "LDS")[-1]
    spread = of("prox_certified", "LDS")[-1]
    return {
        "load": (moved("LDG"), 8),
        "clear": (clear, count(clear, "STS")),
        "trip": (of("taut_string_float", "MUFU")[0], 1),
        "values": (of("certified_values", "MUFU")[0], 1),
        "spread": (spread, count(spread, "STS")),
        "store": (moved("STG"), 8),
    }


def lanes_of(n: int, narrow: int) -> int:
    """Of a tile of float32 signals, at least `narrow` (tiling_of in cuda/tile.cuh)."""
    lanes = max(narrow, min(128, 20 * 1024 // 5 // (n + 1)))
    return lanes if lanes <= 32 else lanes // 32 * 32


def rows_cost(kernel: Kernel, contiguous: bool, trips: Trips) -> Cost:
    """Of a sample in each lane of a warp (prox_rows in cuda/prox1d.cu)."""
    cost: Cost = []
    for name, (loop, samples) in phases_of(kernel, contiguous).items():
        if name == "trip":
            cost += at_times(loop, trips.per_sample, trips.cutting)
        elif name == "values":
            cost += at_times(loop, 1, trips.ends)
        else:
            cost.append((loop, 1 / samples))
    return cost
