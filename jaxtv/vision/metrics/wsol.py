"""MaxBoxAccV2 and PxAP of wsolevaluation (Choe et al. 2020)."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi

IOUS = (0.3, 0.5, 0.7)
THRESHOLDS = np.arange(0, 1, 0.001)  # of a score map


def score_map(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of one class at the picture's size, from 0 to 1: (h, w) to (height, width).

    Enlarged by the cubic interpolation that wsolevaluation uses (OpenCV's).
    """
    if not np.ptp(evidence) > 0:  # all equal, or not a number: nothing is found, as there
        return np.zeros((height, width))
    rows, columns = (
        cubic_matrix(n, side) for n, side in zip(evidence.shape, (height, width), strict=True)
    )
    large = rows @ evidence.astype(np.float64) @ columns.T
    large -= large.min()
    return large / large.max()


def cubic_matrix(n: int, side: int) -> np.ndarray:
    """Cubic interpolation of n samples to `side`, A = -0.75, the ends repeated: (side, n)."""
    at = (np.arange(side) + 0.5) * n / side - 0.5
    left = np.floor(at).astype(int)
    out = np.zeros((side, n))
    for k in range(-1, 3):
        d = np.abs(at - (left + k))
        near = (1.25 * d - 2.25) * d**2 + 1
        far = -0.75 * (((d - 5) * d + 8) * d - 4)
        np.add.at(out, (np.arange(side), np.clip(left + k, 0, n - 1)), np.where(d <= 1, near, far))
    return out


def best_ious(scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The best overlap at each threshold, over all contours and all true boxes (MaxBoxAccV2).

    Args:
        scores: (H, W) in 0..1; quantised to 8 bits, as in wsolevaluation (Choe et al. 2020).
        boxes: (B, 4), x0, y0, x1, y1 in pixels.

    Returns:
        (1000,): per threshold.
    """
    gray = (255 * scores).astype(np.uint8)
    levels, at = np.unique((THRESHOLDS * gray.max()).astype(int), return_inverse=True)
    found = [contour_boxes(gray > level) for level in levels]
    overlaps = iou(np.concatenate(found)[:, None], boxes[None]).max(axis=-1)
    first = np.cumsum([0, *(len(f) for f in found[:-1])])
    return np.maximum.reduceat(overlaps, first)[at]


def contour_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes of all contours as the benchmark takes them, (N, 4): x0, y0, x1, y1.

    There is a contour round each component (of 8 neighbours) and one round each hole in it (of 4),
    which lies on the pixels beside the hole. A box ends at x0 + width, y0 + height, at most at the
    last pixel. An empty mask has the box 0, 0, 0, 0.
    """
    size = np.array(mask.shape)
    regions = lambda mask, near: ndi.find_objects(ndi.label(mask, near)[0])  # type: ignore
    boxes = [slices_box(s) for s in regions(mask, np.ones((3, 3)))]
    for hole in regions(~mask, None):
        y0, x0, y1, x1 = slices_box(hole)
        if y0 > 0 and x0 > 0 and y1 < size[0] and x1 < size[1]:
            boxes.append((y0 - 1, x0 - 1, y1 + 1, x1 + 1))
    if not boxes:
        return np.zeros((1, 4), int)
    found = np.minimum(boxes, np.tile(size - 1, 2))
    return found[:, [1, 0, 3, 2]]


def slices_box(slices: tuple[slice, slice]) -> tuple[int, int, int, int]:
    """First row and column, and those after the last."""
    rows, columns = slices
    return rows.start, columns.start, rows.stop, columns.stop


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), both ends counted."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = np.prod(np.maximum(high - low + 1, 0), axis=-1)
    area = lambda box: np.prod(box[..., 2:] - box[..., :2] + 1, axis=-1)
    return inter / (area(a) + area(b) - inter)


def box_accuracy(ious: np.ndarray) -> dict[str, float]:
    """MaxBoxAccV2 in percent: the mean over IoU 0.3, 0.5, 0.7 of the best threshold's accuracy.

    Args:
        ious: (images, thresholds) of `best_ious`.
    """
    each = [100 * (ious >= limit).mean(axis=0).max() for limit in IOUS]
    scores = {f"boxes at {limit}": float(v) for limit, v in zip(IOUS, each)}
    return {"max_box_acc": float(np.mean(each)), **scores}


class PixelCurve:
    """PxAP: average precision of pixels, over all images at once (Choe et al. 2020)."""

    def __init__(self):
        self.edges = np.append(THRESHOLDS, [1.0, 2.0])
        self.inside = np.zeros(len(THRESHOLDS) + 1)
        self.outside = np.zeros(len(THRESHOLDS) + 1)

    def add(self, scores: np.ndarray, mask: np.ndarray, ignored: np.ndarray | None = None) -> None:
        """One score map (H, W) in 0..1, its true mask, and the pixels that do not count (bool)."""
        outside = ~mask if ignored is None else ~mask & ~ignored
        self.inside += np.histogram(scores[mask], self.edges)[0]
        self.outside += np.histogram(scores[outside], self.edges)[0]

    def average_precision(self) -> float:
        """In percent."""
        hits, wrong = (np.cumsum(h[::-1]) for h in (self.inside, self.outside))
        precision = hits / np.maximum(hits + wrong, 1)
        recall = hits / max(hits[-1], 1)
        return float(100 * (precision[1:] * np.diff(recall)).sum() + 100 * precision[0] * recall[0])
