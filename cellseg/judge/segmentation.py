"""How well objects are found and outlined: accuracy, F1, panoptic quality, AJI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellseg.judge.matching import Overlaps, match

IOUS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def _zeros() -> NDArray[np.int64]:
    return np.zeros(len(IOUS), dtype=np.int64)


@dataclass
class Segmentation:
    """Tallies of one image, or of many added up.

    Attributes
    ----------
    found, truth : int
        Objects.
    hits : ndarray, int64, (10,)
        Matches at each IoU of :data:`IOUS`.
    iou_sum : float
        Summed IoU of the matches at 0.5.
    shared, union : int
        Numerator and denominator of the aggregated Jaccard index.
    """

    found: int = 0
    truth: int = 0
    hits: NDArray[np.int64] = field(default_factory=_zeros)
    iou_sum: float = 0.0
    shared: int = 0
    union: int = 0

    @classmethod
    def of(cls, overlaps: Overlaps, *, keep: NDArray[np.bool_] | None = None) -> Segmentation:
        """Tallies of one image.

        Parameters
        ----------
        keep : ndarray, bool, (N,), optional
            Found objects that take part.
        """
        there = np.ones(len(overlaps.found_areas), bool) if keep is None else keep
        best = match(overlaps, IOUS[0], keep=there)
        shared, union = _aggregated(overlaps, there)
        # A pair that is matched at a higher IoU is matched at every lower one: greedy by IoU.
        return cls(
            found=int(there.sum()),
            truth=len(overlaps.truth_areas),
            hits=np.array([np.count_nonzero(best.iou >= iou) for iou in IOUS], np.int64),
            iou_sum=float(best.iou.sum()),
            shared=shared,
            union=union,
        )

    @classmethod
    def pooled(cls, parts: Iterable[Segmentation]) -> Segmentation:
        """All objects of several images as if of one."""
        total = cls()
        for part in parts:
            total.found += part.found
            total.truth += part.truth
            total.hits = total.hits + part.hits
            total.iou_sum += part.iou_sum
            total.shared += part.shared
            total.union += part.union
        return total

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN) at each IoU, (10,); nan where there is nothing."""
        return _ratio(2 * self.hits, self.found + self.truth)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN) at each IoU, (10,); nan where there is nothing.

        The "average precision" of the Data Science Bowl 2018, of StarDist and of Cellpose.
        """
        return _ratio(self.hits, self.found + self.truth - self.hits)

    @property
    def panoptic_quality(self) -> float:
        """Summed IoU of the matches over TP + (FP + FN) / 2, at IoU 0.5 (Kirillov 2019)."""
        return float(_ratio(np.float64(2 * self.iou_sum), self.found + self.truth))

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index (Kumar 2017)."""
        return float(_ratio(np.float64(self.shared), self.union))


def _ratio(top: NDArray[np.generic] | np.float64, bottom: object) -> NDArray[np.float64]:
    below = np.asarray(bottom, dtype=np.float64)
    values = np.asarray(top, dtype=np.float64) / np.where(below > 0, below, np.nan)
    return np.asarray(values)


def _aggregated(overlaps: Overlaps, keep: NDArray[np.bool_]) -> tuple[int, int]:
    """Each annotated object with the found one of the highest IoU; the unused ones below."""
    usable = np.flatnonzero(keep[overlaps.found])
    order = usable[np.lexsort((-overlaps.iou[usable], overlaps.truth[usable]))]
    truth, first = np.unique(overlaps.truth[order], return_index=True)
    best = order[first]
    used = np.zeros(len(overlaps.found_areas), dtype=bool)
    used[overlaps.found[best]] = True
    shared = int(overlaps.shared[best].sum())
    areas = overlaps.found_areas[overlaps.found[best]] + overlaps.truth_areas[truth]
    missed = np.ones(len(overlaps.truth_areas), dtype=bool)
    missed[truth] = False
    union = int(areas.sum()) - shared
    union += int(overlaps.truth_areas[missed].sum() + overlaps.found_areas[keep & ~used].sum())
    return shared, union
