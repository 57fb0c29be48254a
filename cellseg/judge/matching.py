"""Which found object is which annotated one: overlaps of masks, and one-to-one matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.instances import Instances

_ROWS = 512


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of found and annotated objects that share pixels.

    Attributes
    ----------
    found, truth : ndarray, int64, (P,)
        Indices of the two objects of each pair.
    shared : ndarray, int64, (P,)
        Pixels that both cover.
    found_areas, truth_areas : ndarray, int64, (N,) and (M,)
        Pixels of every object.
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    shared: NDArray[np.int64]
    found_areas: NDArray[np.int64]
    truth_areas: NDArray[np.int64]

    @classmethod
    def of(cls, found: Instances, truth: Instances) -> Overlaps:
        """Overlaps of two sets of objects on one lattice.

        Only pairs whose boxes meet are looked at, and of those only the common part.
        """
        pairs = [
            np.argwhere(_boxes_meet(found.boxes[start : start + _ROWS], truth.boxes))
            + np.array([start, 0])
            for start in range(0, len(found), _ROWS)
        ]
        candidates = np.concatenate([*pairs, np.empty((0, 2), np.int64)]).astype(np.int64)
        shared = np.array([_shared(found, truth, i, j) for i, j in candidates.tolist()], np.int64)
        candidates, shared = candidates[shared > 0], shared[shared > 0]
        return cls(candidates[:, 0], candidates[:, 1], shared, found.areas, truth.areas)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, (P,)."""
        union = self.found_areas[self.found] + self.truth_areas[self.truth] - self.shared
        return self.shared / union


@dataclass(frozen=True, eq=False)
class Matches:
    """One-to-one matches, best first.

    Attributes
    ----------
    found, truth : ndarray, int64, (K,)
    iou : ndarray, float64, (K,)
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.iou)


def match(
    overlaps: Overlaps, iou: float = 0.5, *, keep: NDArray[np.bool_] | None = None
) -> Matches:
    """Match objects one-to-one, the pairs of the highest IoU first.

    Where no two objects of a set overlap, an IoU above 0.5 leaves no choice, and this is the
    only matching; elsewhere the order by IoU decides.

    Parameters
    ----------
    iou : float
        Least IoU of a match, itself included.
    keep : ndarray, bool, (N,), optional
        Found objects that take part; the others are as if they had not been found.
    """
    values = overlaps.iou
    usable = values >= iou
    if keep is not None:
        usable &= keep[overlaps.found]
    order = np.flatnonzero(usable)
    order = order[np.lexsort((overlaps.truth[order], overlaps.found[order], -values[order]))]
    free_found = np.ones(len(overlaps.found_areas), dtype=bool)
    free_truth = np.ones(len(overlaps.truth_areas), dtype=bool)
    taken = []
    for pair in order.tolist():
        i, j = overlaps.found[pair], overlaps.truth[pair]
        if free_found[i] and free_truth[j]:
            free_found[i] = free_truth[j] = False
            taken.append(pair)
    chosen = np.array(taken, dtype=np.int64)
    return Matches(overlaps.found[chosen], overlaps.truth[chosen], values[chosen])


def _boxes_meet(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each box of ``first`` and each of ``second`` share pixels, (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray((low < high).all(axis=2))


def _shared(found: Instances, truth: Instances, i: int, j: int) -> int:
    a, b = found.boxes[i], truth.boxes[j]
    y0, x0, y1, x1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    one = found.masks[i][y0 - a[0] : y1 - a[0], x0 - a[1] : x1 - a[1]]
    other = truth.masks[j][y0 - b[0] : y1 - b[0], x0 - b[1] : x1 - b[1]]
    return int(np.count_nonzero(one & other))
