"""MaxBoxAccV2 and PxAP of wsolevaluation (Choe et al. 2020)."""

from __future__ import annotations

import jax
import numpy as np
import scipy.ndimage as ndi
import skimage

IOUS = (0.3, 0.5, 0.7)

LEVELS = 1000  # thresholds of a score map, as in wsolevaluation


def score_map(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of one class at the picture's size, from 0 to 1: (h, w) to float32 (height, width)."""
    if evidence.max() == evidence.min():
        return np.zeros((height, width), np.float32)
    large = np.asarray(jax.image.resize(evidence, (height, width), "cubic"))
    return (large - large.min()) / (large.max() - large.min())


def best_ious(scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The best overlap at each threshold, over all components and all true boxes (MaxBoxAccV2).

    Args:
        scores: (H, W) in 0..1; quantised to 8 bits, as in wsolevaluation (Choe et al. 2020).
        boxes: (B, 4), x0, y0, x1, y1 in pixels, both ends inside.

    Returns:
        (1000,): per threshold.
    """
    gray = (255 * scores).astype(np.uint8)
    levels = (np.arange(LEVELS) / LEVELS * gray.max()).astype(int)
    found = {level: best_iou(gray > level, boxes) for level in np.unique(levels)}
    return np.array([found[level] for level in levels])


def best_iou(mask: np.ndarray, boxes: np.ndarray) -> float:
    """The best overlap of a component's bounding box with a true box; 0 for an empty mask."""
    label = np.asarray(skimage.measure.label(mask, connectivity=2))
    found = np.array(
        [(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in ndi.find_objects(label)]
    )
    if not len(found):
        return 0.0
    return float(iou(found[:, None], boxes[None]).max())


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), both ends inside."""
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
        self.edges = np.append(np.arange(LEVELS) / LEVELS, [1.0, 2.0])
        self.inside = np.zeros(LEVELS + 1)
        self.outside = np.zeros(LEVELS + 1)

    def add(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """One score map (H, W) in 0..1 and its true mask (bool)."""
        self.inside += np.histogram(scores[mask], self.edges)[0]
        self.outside += np.histogram(scores[~mask], self.edges)[0]

    def average_precision(self) -> float:
        """In percent."""
        hits, wrong = (np.cumsum(h[::-1]) for h in (self.inside, self.outside))
        precision = hits / np.maximum(hits + wrong, 1)
        recall = hits / max(hits[-1], 1)
        return float(100 * (precision[1:] * np.diff(recall)).sum() + 100 * precision[0] * recall[0])
