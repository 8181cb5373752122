"""Edge-detection metrics of the Berkeley benchmark: ODS, OIS and AP (Arbeláez et al. 2011).

A map is thresholded 99 times and thinned; its pixels are matched one to one with annotated ones
not farther than 0.0075 of the diagonal, by a maximum bipartite matching.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import skimage

THRESHOLDS = np.arange(1, 100) / 100
TOLERANCE = 0.0075  # of the image's diagonal


def match(found: np.ndarray, truth: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """A one-to-one matching of as many pixels as possible.

    Args:
        found: bool (H, W).
        truth: bool (H, W).
        distance: pixels farther apart than this are no pair.

    Returns:
        The matched pixels of each, bool (H, W).
    """
    reach = int(distance)
    here, there = np.argwhere(found), np.argwhere(truth)
    number = np.full(np.add(truth.shape, 2 * reach), -1)
    number[tuple((there + reach).T)] = np.arange(len(there))
    rows, columns = [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx > distance * distance:
                continue
            partner = number[tuple((here + reach + (dy, dx)).T)]
            rows.append(np.flatnonzero(partner >= 0))
            columns.append(partner[partner >= 0])
    row, column = np.concatenate(rows), np.concatenate(columns)
    pairs = scipy.sparse.csr_array(
        (np.ones(len(row), np.int8), (row, column)), shape=(len(here), len(there))
    )
    partner = scipy.sparse.csgraph.maximum_bipartite_matching(pairs, perm_type="column")
    matched_found, matched_truth = np.zeros_like(found), np.zeros_like(truth)
    matched_found[tuple(here[partner >= 0].T)] = True
    matched_truth[tuple(there[partner[partner >= 0]].T)] = True
    return matched_found, matched_truth


def counts(edges: np.ndarray, truths: Sequence[np.ndarray]) -> np.ndarray:
    """What the scores of one image are made of.

    Args:
        edges: (H, W), probability of an edge, 0..1.
        truths: bool (H, W) of each annotator.

    Returns:
        int (99, 4), per threshold: annotated pixels that were found and all of them, summed over
        annotators; detected pixels that at least one annotator has, and all detected.
    """
    distance = TOLERANCE * float(np.hypot(*edges.shape))
    out = np.zeros((len(THRESHOLDS), 4), np.int64)
    for i, threshold in enumerate(THRESHOLDS):
        found = skimage.morphology.thin(edges >= threshold)
        hit = np.zeros_like(found)
        for truth in truths:
            of_found, of_truth = match(found, truth, distance)
            hit |= of_found
            out[i, 0] += of_truth.sum()
            out[i, 1] += truth.sum()
        out[i, 2:] = hit.sum(), found.sum()
    return out


def scores(per_image: Sequence[np.ndarray]) -> dict[str, float]:
    """ODS, OIS and AP from the `counts` of each image.

    ODS: the best F-measure for one threshold on all images. OIS: with the best threshold of each
    image. AP: mean of the precision at recalls 0, 0.01, … 1, interpolated, 0 where none is reached.
    """
    stacked = np.stack(per_image)
    recall, precision = rates(stacked.sum(axis=0))
    each = f_measure(*rates(stacked))
    best = np.take_along_axis(stacked, each.argmax(axis=1)[:, None, None], axis=1).sum(axis=0)
    return {
        "ods": best_f(recall, precision),
        "ois": float(f_measure(*rates(best))[0]),
        "ap": average_precision(recall, precision),
    }


def rates(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of counts (..., 4); 0 of 0 is 0."""
    safe = np.maximum(count, 1)
    return count[..., 0] / safe[..., 1], count[..., 2] / safe[..., 3]


def f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Harmonic mean (paper, Eq. 12); 0 of 0 is 0."""
    return 2 * recall * precision / np.maximum(recall + precision, 1e-12)


def best_f(recall: np.ndarray, precision: np.ndarray) -> float:
    """The best F-measure on the curve through neighbouring thresholds, as in the benchmark."""
    t = np.linspace(0, 1, 101)[:, None]
    between = [t * values[1:] + (1 - t) * values[:-1] for values in (recall, precision)]
    return float(f_measure(*between).max())


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the curve; see `scores`."""
    reached, first = np.unique(recall, return_index=True)
    if len(reached) < 2:
        return 0.0
    at = np.linspace(0, 1, 101)
    return float(np.interp(at, reached, precision[first], left=0, right=0).mean())
