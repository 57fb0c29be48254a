"""Figures of how well objects are counted, found, outlined and measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.annotations.compare import Overlaps, match

IOUS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RESAMPLES = 2000


@dataclass
class Segmentation:
    """Tallies of one image, or of many added up.

    ``hits``, (10,), are matches at each IoU of :data:`IOUS`.
    """

    found: int = 0
    truth: int = 0
    hits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(IOUS), np.int64))
    iou_sum: float = 0.0  # Of the matches at 0.5.
    shared: int = 0  # Numerator of the aggregated Jaccard index.
    union: int = 0  # Its denominator.

    @classmethod
    def of(cls, overlaps: Overlaps, *, keep: NDArray[np.bool_] | None = None) -> Segmentation:
        """Tallies of one image; ``keep``, bool (N,), says which found objects take part."""
        if keep is None:
            keep = np.ones(len(overlaps.found_areas), bool)
        best = match(overlaps, allowed=keep[overlaps.found])
        shared, union = _aggregated(overlaps, keep)
        # A pair that is matched at a higher IoU is matched at every lower one: greedy by IoU.
        return cls(
            found=int(keep.sum()),
            truth=len(overlaps.truth_areas),
            hits=np.array([np.count_nonzero(best.iou >= iou) for iou in IOUS], np.int64),
            iou_sum=float(best.iou.sum()),
            shared=shared,
            union=union,
        )

    @classmethod
    def pooled(cls, parts: Iterable[Segmentation]) -> Segmentation:
        """All objects of several images as if of one."""
        total, whole = cls(), list(parts)
        for name, none in vars(cls()).items():
            setattr(total, name, sum((getattr(part, name) for part in whole), none))
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
        return float(_ratio(2 * self.iou_sum, self.found + self.truth))

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index (Kumar 2017)."""
        return float(_ratio(self.shared, self.union))


def _ratio(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    below = np.asarray(bottom, dtype=np.float64)
    return np.asarray(np.asarray(top, np.float64) / np.where(below > 0, below, np.nan))


def _aggregated(overlaps: Overlaps, keep: NDArray[np.bool_]) -> tuple[int, int]:
    """Each annotated object with the found one of the highest IoU; the unused ones below."""
    usable = np.flatnonzero(keep[overlaps.found])
    order = usable[np.lexsort((-overlaps.iou[usable], overlaps.truth[usable]))]
    _, first = np.unique(overlaps.truth[order], return_index=True)
    best = order[first]
    unused = keep.copy()
    unused[overlaps.found[best]] = False
    shared = int(overlaps.shared[best].sum())
    union = int(overlaps.found_areas[overlaps.found[best]].sum() + overlaps.truth_areas.sum())
    return shared, union - shared + int(overlaps.found_areas[unused].sum())


@dataclass(frozen=True)
class CountError:
    """Error of counts over a set of images."""

    images: int
    truth: int
    found: int
    bias: float  # (found - truth) / truth of the pooled counts; errors of both signs cancel here.
    bias_interval: tuple[float, float]  # 95 % over bootstrap resamples of the images.
    mean_absolute: float  # Mean over images of |found - truth|, objects.
    mean_relative: float  # Mean over the images with objects of |found - truth| / truth.
    median_relative: float  # Their median.


def count_error(truth: NDArray[np.int64], found: NDArray[np.int64]) -> CountError:
    """Errors of the counts of images, int64 (I,); nan where no image has objects."""
    off = np.abs(found - truth)
    relative = off[truth > 0] / truth[truth > 0]
    return CountError(
        images=len(truth),
        truth=int(truth.sum()),
        found=int(found.sum()),
        bias=float(_ratio(found.sum() - truth.sum(), truth.sum())),
        bias_interval=bootstrapped(found - truth, truth),
        mean_absolute=float(off.mean()) if len(off) else float("nan"),
        mean_relative=float(relative.mean()) if len(relative) else float("nan"),
        median_relative=float(np.median(relative)) if len(relative) else float("nan"),
    )


def bootstrapped(top: NDArray[np.int64], bottom: NDArray[np.int64]) -> tuple[float, float]:
    """95 % percentile interval of a ratio of sums over resampled images, always the same.

    With fewer than two images there is nothing to resample: (nan, nan).
    """
    images = len(top)
    if images < 2:
        return float("nan"), float("nan")
    rows = np.random.default_rng(0).integers(images, size=(RESAMPLES, images))
    values = _ratio(top[rows].sum(1), bottom[rows].sum(1))
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


@dataclass(frozen=True)
class MatchedSizes:
    """Relative error of the area and the equivalent diameter of matched objects.

    The bias is the median of found / truth - 1. The spread is half the width between its 16th and
    84th percentiles (one standard deviation, were it normal).
    """

    matched: int
    area_bias: float = float("nan")
    area_spread: float = float("nan")
    diameter_bias: float = float("nan")
    diameter_spread: float = float("nan")


def size_error(found: NDArray[np.int64], truth: NDArray[np.int64]) -> MatchedSizes:
    """Errors from the areas of the two objects of each match, pixels, (K,)."""
    if not len(found):
        return MatchedSizes(0)
    area = found / truth
    return MatchedSizes(len(found), *_centre(area), *_centre(np.sqrt(area)))


def _centre(ratio: NDArray[np.float64]) -> tuple[float, float]:
    low, middle, high = np.percentile(ratio, [15.87, 50, 84.13])
    return float(middle) - 1, float(high - low) / 2


def plain(value: object) -> object:
    """For JSON: floats to 5 digits, null in place of nan, IoUs as text."""
    if isinstance(value, dict):
        return {
            f"{key:.2f}" if isinstance(key, float) else key: plain(v) for key, v in value.items()
        }
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
