"""How far counts lie from the truth, and how sure that is: errors with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class CountError:
    """Error of counts over a set of images.

    Attributes
    ----------
    bias : float
        (found - truth) / truth of the pooled counts; errors of both signs cancel here.
    bias_interval : (float, float)
        95 % of the bias over bootstrap resamples of the images.
    mean_absolute : float
        Mean over images of |found - truth|, objects.
    mean_relative : float
        Mean over the images with objects of |found - truth| / truth.
    median_relative : float
        Their median.
    """

    images: int
    truth: int
    found: int
    bias: float
    bias_interval: tuple[float, float]
    mean_absolute: float
    mean_relative: float
    median_relative: float


def count_error(truth: NDArray[np.int64], found: NDArray[np.int64], *, seed: int = 0) -> CountError:
    """Errors of the counts of images.

    Parameters
    ----------
    truth, found : ndarray, int64, (I,)
        Annotated and counted objects of each image.
    seed : int
        Of the resampling.

    Returns
    -------
    CountError
        nan where no image has objects.
    """
    if truth.shape != found.shape or truth.ndim != 1:
        raise ValueError(f"expected two equal lengths, got {truth.shape} and {found.shape}")
    off = np.abs(found - truth)
    relative = off[truth > 0] / truth[truth > 0]
    rng = np.random.default_rng(seed)
    return CountError(
        images=len(truth),
        truth=int(truth.sum()),
        found=int(found.sum()),
        bias=_bias(truth, found),
        bias_interval=bootstrap(lambda rows: _bias(truth[rows], found[rows]), len(truth), rng),
        mean_absolute=float(off.mean()) if len(off) else float("nan"),
        mean_relative=float(relative.mean()) if len(relative) else float("nan"),
        median_relative=float(np.median(relative)) if len(relative) else float("nan"),
    )


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    images: int,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """95 % percentile interval of a statistic over resampled images.

    Parameters
    ----------
    statistic : callable
        Takes the indices of the images drawn, with repetition.
    images : int
        With fewer than two there is nothing to resample: (nan, nan).
    """
    if images < 2:
        return float("nan"), float("nan")
    values = np.array([statistic(rng.integers(images, size=images)) for _ in range(resamples)])
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _bias(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    total = int(truth.sum())
    return (int(found.sum()) - total) / total if total else float("nan")
