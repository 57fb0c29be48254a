"""The score threshold that makes counts unbiased, and how far a count may then be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.compare import FEWEST_IMAGES, SCORES, best_threshold
from cellseg.errors import SettingsError
from cellseg.judge.judged import Judged

MOST_FOLDS = 20


@dataclass(frozen=True)
class Calibrated:
    """A threshold for counting.

    Attributes
    ----------
    score : float
        By :func:`~cellseg.annotations.compare.best_threshold`.
    bias, held_out_bias : float
        Relative error of the pooled count, on the same images, and with each image counted at the
        threshold that the others ask for.
    interval : (float, float)
        95 % of true / counted of an image that the threshold was not chosen on, weighted by its
        objects: a count times these two factors is an interval for the true number.
    """

    score: float
    bias: float
    held_out_bias: float
    interval: tuple[float, float]


def calibrate(images: Sequence[Judged]) -> Calibrated:
    """Choose the threshold, and measure by cross-validation what it is worth.

    Images must be counted down to a score below those that are tried.

    SettingsError if there are fewer than :data:`FEWEST_IMAGES` images or no objects.
    """
    truth = np.array([len(image.truth) for image in images], np.int64)
    total = int(truth.sum())
    refuse_few(len(images), total)
    counts = np.array([[int(image.at(score).sum()) for image in images] for score in SCORES])
    best = best_threshold(counts, truth)
    held_out = _held_out(counts, truth)
    return Calibrated(
        score=SCORES[best],
        bias=float(counts[best].sum() / total - 1),
        held_out_bias=float(held_out.sum() / total - 1),
        interval=_interval(truth, held_out),
    )


def refuse_few(images: int, objects: int) -> None:
    """Raise a SettingsError if there are fewer than :data:`FEWEST_IMAGES` images or no objects."""
    if images < FEWEST_IMAGES or not objects:
        raise SettingsError(
            f"nothing to calibrate on: expected at least {FEWEST_IMAGES} images with objects, got "
            f"{images} images with {objects} objects"
        )


def _held_out(counts: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each image's count at the threshold that images of the other folds ask for, (I,)."""
    # Alternate by size, so that each fold has images with few and with many objects.
    fold = np.empty(len(truth), np.int64)
    fold[np.argsort(truth, kind="stable")] = np.arange(len(truth)) % min(MOST_FOLDS, len(truth))
    held_out = np.empty_like(truth)
    for number in np.unique(fold):
        inside = fold == number
        held_out[inside] = counts[best_threshold(counts[:, ~inside], truth[~inside])][inside]
    return held_out


def _interval(truth: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[float, float]:
    """Weighted 2.5 and 97.5 % quantiles of true / counted; half an object keeps them finite."""
    ratio = np.asarray((truth + 0.5) / (found + 0.5), dtype=np.float64)
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum(truth[order]) / truth.sum()
    rows = np.minimum(np.searchsorted(share, [0.025, 0.975]), len(order) - 1)
    low, high = (float(value) for value in ratio[order[rows]])
    # The chosen threshold itself is inside, however small the sample.
    return min(low, 1.0), max(high, 1.0)
