"""How a measurement is distributed over the cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 256

_SPAN_PERCENT = (0.1, 99.9)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Cells by their value.

    Attributes
    ----------
    counts : ndarray, int64, (B,)
    edges : ndarray, float64, (B + 1,)
        Equally spaced.
    below, above : int
        Cells beyond the edges.
    missing : int
        Cells without a value.
    """

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    below: int
    above: int
    missing: int

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


def histogram(values: ArrayLike, bins: int = BINS) -> Histogram:
    """Count cells by value, from the 0.1th to the 99.9th percentile and a tenth beyond.

    Parameters
    ----------
    values : array_like, (N,)
        NaN and infinities are no values.
    bins : int
    """
    numbers = np.asarray(values, np.float64)
    known = numbers[np.isfinite(numbers)]
    missing = int(numbers.size - known.size)
    if not known.size:
        return Histogram(np.zeros(bins, np.int64), np.linspace(0, 1, bins + 1), 0, 0, missing)
    low, high = np.percentile(known, _SPAN_PERCENT)
    room = 0.1 * (high - low) or max(abs(float(low)), 1.0) / 100
    low, high = max(known.min(), low - room), min(known.max(), high + room)
    if low == high:
        low, high = low - room, high + room
    counts, edges = np.histogram(known, bins, (low, high))
    below, above = int((known < low).sum()), int((known > high).sum())
    return Histogram(counts.astype(np.int64), edges, below, above, missing)
