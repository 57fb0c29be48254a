"""How right the measured sizes of matched objects are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SizeError:
    """Relative error of the area and the equivalent diameter of matched objects.

    Attributes
    ----------
    objects : int
        Matched ones.
    area_bias, area_spread : float
        Median of found / truth - 1, and half the width between its 16th and 84th percentiles
        (one standard deviation, were it normal).
    diameter_bias, diameter_spread : float
        The same of the equivalent diameter.
    """

    objects: int
    area_bias: float
    area_spread: float
    diameter_bias: float
    diameter_spread: float


def size_error(found: NDArray[np.int64], truth: NDArray[np.int64]) -> SizeError:
    """Errors from the areas of matched objects.

    Parameters
    ----------
    found, truth : ndarray, int64, (K,)
        Areas of the two objects of each match, pixels.
    """
    if not len(found):
        nothing = float("nan")
        return SizeError(0, nothing, nothing, nothing, nothing)
    area = found / truth
    return SizeError(len(found), *_centre(area), *_centre(np.sqrt(area)))


def _centre(ratio: NDArray[np.float64]) -> tuple[float, float]:
    low, middle, high = np.percentile(ratio, [15.87, 50, 84.13])
    return float(middle) - 1, float(high - low) / 2
