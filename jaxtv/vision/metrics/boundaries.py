"""Edge-detection metrics of the Berkeley benchmark: ODS, OIS and AP (Arbeláez et al. 2011).

A map is thresholded 99 times and thinned; its pixels are matched one to one with annotated ones
not farther than 0.0075 of the diagonal: as many pairs as possible, of those the shortest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage as ndi
import scipy.sparse
import skimage

THRESHOLDS = np.linspace(1 / 100, 1 - 1 / 100, 99)  # as the benchmark rounds them
TOLERANCE = 0.0075  # of the image's diagonal
PART = 150  # columns that are matched at once, at least


def match(found: np.ndarray, truth: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """A one-to-one matching of as many pixels as possible, and of those the shortest.

    Args:
        found: bool (H, W).
        truth: bool (H, W).
        distance: pixels farther apart than this are no pair.

    Returns:
        The matched pixels of each, bool (H, W).
    """
    if found.sum() > truth.sum():  # whatever stays alone is searched for in vain: let it be few
        of_truth, of_found = match(truth, found, distance)
        return of_found, of_truth
    reach = int(distance)
    here, there = np.argwhere(found), np.argwhere(truth)
    number = np.full(np.add(truth.shape, 2 * reach), -1)
    number[tuple((there + reach).T)] = np.arange(len(there))
    rows, columns, lengths = [], [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx > distance * distance:
                continue
            partner = number[tuple((here + reach + (dy, dx)).T)]
            rows.append(np.flatnonzero(partner >= 0))
            columns.append(partner[partner >= 0])
            lengths.append(np.full(len(columns[-1]), 1 + np.hypot(dy, dx)))
    # Each of the fewer may also stay alone, at a cost that no number of shorter pairs makes up for.
    rows.append(np.arange(len(here)))
    columns.append(len(there) + rows[-1])
    lengths.append(np.full(len(here), 2 * len(here) * (2 + distance)))
    cost, pair = np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))
    shape = (len(here), len(there) + len(here))
    column = _shortest(scipy.sparse.csr_array((cost, pair), shape=shape))
    both = column < len(there)
    matched_found, matched_truth = np.zeros_like(found), np.zeros_like(truth)
    matched_found[tuple(here[both].T)] = True
    matched_truth[tuple(there[column[both]].T)] = True
    return matched_found, matched_truth


def _shortest(graph: scipy.sparse.csr_array) -> np.ndarray:
    """A column for each row, at the lowest sum.

    Each step of SciPy's method looks at all columns. So it gets only connected parts of the graph,
    and several of them at once if they are small.
    """
    count, total = graph.shape  # type: ignore  # SciPy's stubs allow one axis
    ends = np.concatenate([graph.indptr, np.full(total, graph.nnz)])
    square = scipy.sparse.csr_array((graph.data, graph.indices + count, ends), [count + total] * 2)
    labels = scipy.sparse.csgraph.connected_components(square, directed=False)[1]
    parts = np.split(labels, [count])
    row_order, column_order = (np.argsort(each, kind="stable") for each in parts)
    row_labels, column_labels = labels[row_order], labels[count + column_order]
    graph, out, first, start = graph[row_order][:, column_order], np.empty(count, int), 0, 0
    last = np.flatnonzero(np.diff(row_labels, append=-1)) + 1
    stops = np.searchsorted(column_labels, row_labels[last - 1], side="right")
    for end, stop in zip(last, stops):
        if stop - start >= PART or end == count:
            part = graph[first:end, start:stop]
            row, column = scipy.sparse.csgraph.min_weight_full_bipartite_matching(part)
            out[row_order[first + row]] = column_order[start + column]
            first, start = end, stop
    return out


def counts(
    edges: np.ndarray, truths: Sequence[np.ndarray], thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """What the scores of one image are made of.

    Args:
        edges: (H, W), probability of an edge, 0..1.
        truths: bool (H, W) of each annotator.
        thresholds: an edge is where `edges` is at least that.

    Returns:
        int (thresholds, 4), per threshold: annotated pixels that were found and all of them, summed
        over annotators; detected pixels that at least one annotator has, and all detected.
    """
    distance = TOLERANCE * float(np.hypot(*edges.shape))
    out = np.zeros((len(thresholds), 4), np.int64)
    for i, threshold in enumerate(thresholds):
        found = skimage.morphology.thin(edges >= threshold)
        hit = np.zeros_like(found)
        for truth in truths:
            of_found, of_truth = match(found, truth, distance)
            hit |= of_found
            out[i, 0] += of_truth.sum()
            out[i, 1] += truth.sum()
        out[i, 2:] = hit.sum(), found.sum()
    return out


def suppress_non_maxima(edges: np.ndarray) -> np.ndarray:
    """Sets to 0 what has a higher neighbour across the edge.

    As the evaluation of HED and its successors does (Dollár & Zitnick 2015, `edgesNms` after
    `convTri`): the map is smoothed over 3 pixels, across is where second differences over 9 pixels
    are the lowest, and 5 pixels at the rim fade out.

    Args:
        edges: (H, W), probability of an edge, 0..1.

    Returns:
        The same shape, float64, for `counts`.
    """
    edges = _triangle(edges.astype(np.float64), 1)
    down, right = np.gradient(_triangle(edges, 4))
    (yy, _), (xy, xx) = np.gradient(down), np.gradient(right)
    across = np.arctan2(2 * xy, xx - yy) / 2 + np.pi / 2
    at, step = np.indices(edges.shape), np.stack([np.sin(across), np.cos(across)])
    sides = [ndi.map_coordinates(edges, at + d * step, order=1, mode="nearest") for d in (-1, 1)]
    kept = np.where(np.max(sides, axis=0) > 1.01 * edges, 0, edges)
    for axis, length in enumerate(edges.shape):
        from_rim = np.minimum(np.arange(length), np.arange(length)[::-1])
        fade = np.minimum(from_rim / 5, 1)
        kept *= fade[:, None] if axis == 0 else fade
    return kept


def _triangle(x: np.ndarray, radius: int) -> np.ndarray:
    """Means with weights that fall linearly, along both axes."""
    weights = np.minimum(np.arange(1, 2 * radius + 2), np.arange(2 * radius + 1, 0, -1))
    for axis in (0, 1):
        x = ndi.convolve1d(x, weights / weights.sum(), axis, mode="reflect")
    return x


def scores(per_image: Sequence[np.ndarray] | np.ndarray) -> dict[str, float]:
    """ODS, OIS and AP from the `counts` of each image.

    ODS: the best F-measure for one threshold on all images. OIS: with the best threshold of each
    image. AP: the precision at recalls 0, 0.01, … 1, interpolated, 0 where none is reached, summed
    in steps of 0.01 as the benchmark does. Least recall: that of the highest threshold. AP counts
    no precision below it, so AP can rise because a map has fewer pixels that are certain.
    """
    stacked = np.stack([*per_image])
    recall, precision = rates(stacked.sum(axis=0))
    return {
        "ods": best_f(recall, precision),
        "ois": float(f_measure(*rates(best_counts(stacked).sum(axis=0)))),
        "ap": average_precision(recall, precision),
        "least recall": float(recall.min()),
    }


def best_counts(per_image: np.ndarray) -> np.ndarray:
    """Of the counts (N, thresholds, 4) those at the best threshold of each image, (N, 4)."""
    best = f_measure(*rates(per_image)).argmax(axis=1)
    return np.take_along_axis(per_image, best[:, None, None], axis=1)[:, 0]


def rates(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of counts (..., 4); 0 of 0 is 0."""
    safe = np.maximum(count, 1)
    return count[..., 0] / safe[..., 1], count[..., 2] / safe[..., 3]


def f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Harmonic mean (paper, Eq. 12); 0 of 0 is 0."""
    return 2 * recall * precision / np.maximum(recall + precision, 1e-12)


def best_f(recall: np.ndarray, precision: np.ndarray) -> float:
    """The best F-measure on the curve through neighbouring thresholds, as in the benchmark."""
    t = np.linspace(0, 1, 100)[:, None]
    between = [t * values[1:] + (1 - t) * values[:-1] for values in (recall, precision)]
    return float(f_measure(*between).max())


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the curve; see `scores`."""
    reached, first = np.unique(recall, return_index=True)
    if len(reached) < 2:
        return 0.0
    at = np.linspace(0, 1, 101)
    return float(np.interp(at, reached, precision[first], left=0, right=0).sum() / 100)
