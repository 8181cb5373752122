"""MaxBoxAccV2 and PxAP of wsolevaluation (Choe et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import skimage

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

    There is a contour round each component of 8 neighbours above the threshold, and one round each
    hole in it (of 4 neighbours), which lies on the pixels beside the hole. The box of a contour
    ends at x0 + width, y0 + height, at most at the last pixel. A map without contours has the box
    0, 0, 0, 0.

    Args:
        scores: (..., H, W) in 0..1; quantised to 8 bits, as in wsolevaluation (Choe et al. 2020).
            Several maps at once take half of the time.
        boxes: (B, 4), x0, y0, x1, y1 in pixels.

    Returns:
        (..., 1000): per threshold.
    """
    gray = (255 * scores).astype(np.uint8).reshape(-1, *scores.shape[-2:])
    size = np.array(gray.shape[:0:-1])
    found, holes = components(gray, 2), components(255 - gray, 1)
    inside = (holes.boxes[:, :2] > 0) & (holes.boxes[:, 2:] < size)
    holes = holes.where(inside.all(axis=-1))
    around = np.concatenate([found.boxes, holes.boxes + np.array([-1, -1, 1, 1])])
    overlaps = iou(np.minimum(around, np.tile(size - 1, 2))[:, None], boxes[None]).max(axis=-1)
    # 255 - gray > level is gray <= 254 - level.
    first = np.concatenate([found.first, 255 - holes.end])
    end = np.concatenate([found.end, 255 - holes.first])
    index = np.concatenate([found.index, holes.index])
    best = np.full((len(gray), 256), -1.0)
    for i in np.argsort(overlaps):
        best[index[i], first[i] : end[i]] = overlaps[i]
    best[best < 0] = iou(np.zeros(4), boxes).max()
    levels = (THRESHOLDS * gray.max(axis=(1, 2))[:, None]).astype(int)
    return np.take_along_axis(best, levels, axis=1).reshape(*scores.shape[:-2], -1)


@dataclasses.dataclass(frozen=True)
class Components:
    """Connected components of several maps above all levels.

    Attributes:
        index: (N,), of the map.
        boxes: (N, 4), x0, y0, x1, y1 with both ends behind the last pixel.
        first: (N,), the lowest level above which this is a component.
        end: (N,), the level above which it is none any more.
    """

    index: np.ndarray
    boxes: np.ndarray
    first: np.ndarray
    end: np.ndarray

    def where(self, chosen: Any) -> Components:
        """Some of them, by a mask (N,)."""
        return Components(*(array[chosen] for array in vars(self).values()))


def components(gray: np.ndarray, connectivity: int) -> Components:
    """The components of `gray > level` for all levels from 0, by the max-tree (Salembier 1998).

    Args:
        gray: uint8 (M, H, W).
        connectivity: 1 for four neighbours, 2 for eight.
    """
    # One tree for all maps, one above the other, with a row of the lowest value between them.
    rows = gray.shape[1] + 1
    stack = np.pad(gray.astype(np.uint16) + 1, ((0, 0), (0, 1), (0, 0))).reshape(-1, gray.shape[2])
    parent = skimage.morphology.max_tree(stack, connectivity=connectivity)[0].ravel()
    value = stack.ravel().astype(int)
    is_node = value[parent] < value  # the others are pixels of their parent, or the root
    y, x = np.divmod(np.arange(value.size), stack.shape[1])
    reach = np.stack([-x, -y, x + 1, y + 1], axis=-1)
    order = 2 * value - is_node  # from high to low; pixels before the node that they are of
    by_order = np.argsort(-order, kind="stable")
    for part in np.split(by_order, 1 + np.flatnonzero(np.diff(order[by_order]))):
        np.maximum.at(reach, parent[part], reach[part])
    nodes = np.flatnonzero(is_node)
    index = y[nodes] // rows
    boxes = reach[nodes] * np.array([-1, -1, 1, 1])
    boxes[:, 1::2] -= rows * index[:, None]
    return Components(index, boxes, np.maximum(value[parent[nodes]] - 1, 0), value[nodes] - 1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), both ends counted."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = np.prod(np.maximum(high - low + 1, 0), axis=-1)
    area = lambda box: np.prod(box[..., 2:] - box[..., :2] + 1, axis=-1)
    return inter / (area(a) + area(b) - inter)


def hits(ious: np.ndarray) -> np.ndarray:
    """Whether overlaps (..., thresholds) reach 0.3, 0.5 and 0.7: bool (..., 3, thresholds)."""
    return ious[..., None, :] >= np.array(IOUS)[:, None]


def max_box_accuracy(shares: np.ndarray) -> float:
    """MaxBoxAccV2 in percent, from the mean (3, thresholds) of the `hits` of all pictures."""
    return float(100 * shares.max(axis=-1).mean())


def box_accuracy(ious: np.ndarray) -> dict[str, float]:
    """MaxBoxAccV2 in percent: the mean over IoU 0.3, 0.5, 0.7 of the best threshold's accuracy.

    Args:
        ious: (images, thresholds) of `best_ious`.
    """
    shares = hits(ious).mean(axis=0)
    scores = {f"boxes at {limit}": float(100 * s.max()) for limit, s in zip(IOUS, shares)}
    return {"max_box_acc": max_box_accuracy(shares), **scores}


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
