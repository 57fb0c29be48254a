"""Area averages and interpolation at absolute positions.

A lattice pixel ``i`` covers [i·s, (i + 1)·s) of the source. Its taps depend on ``i`` and
``s`` alone, and they are summed in a fixed order, so its value does not depend on the
region in which it is computed, to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.slide._raster import Pixels, round_to

_SNAP = 1e-7  # Positions this close to a pixel's edge lie on it (px).
_BAND_ROWS = 32  # Output rows that are computed at a time.


@dataclass(frozen=True, eq=False)
class Taps:
    """Which source pixels make each output pixel along one axis."""

    index: NDArray[np.int64]  # (n, K): source pixels, absolute, clamped to the source.
    weight: NDArray[np.float64]  # (n, K): a row sums to 1, unused taps weigh 0.

    def __getitem__(self, some: slice) -> Taps:
        return Taps(self.index[some], self.weight[some])

    @property
    def start(self) -> int:
        return int(self.index.min())

    @property
    def stop(self) -> int:
        return int(self.index.max()) + 1

    @property
    def is_identity(self) -> bool:
        n = len(self.index)
        return bool(
            (self.weight[:, 0] == 1.0).all()
            and (self.index[:, 0] == self.index[0, 0] + np.arange(n)).all()
        )

    def weighing(self, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
        """The weights as a sparse matrix, (n, stop - start), that sums in order of columns."""
        from scipy.sparse import csr_array  # late: what tells of a file needs none of scipy

        used = self.weight > 0
        ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        parts = self.weight[used].astype(dtype), self.index[used] - self.start, ends
        return csr_array(parts, shape=(len(self.index), self.stop - self.start))


def taps(first: int, last: int, *, step: float, size: int) -> Taps:
    """Taps of output pixels ``first`` … ``last - 1`` on a source of ``size`` px.

    ``step`` is in source pixels per output pixel; 1 or more averages, less interpolates.
    """
    place = np.arange(first, last, dtype=np.float64)
    return _area(place, step, size) if step >= 1 - 1e-9 else _linear(place, step, size)


def _snapped(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.rint(positions)
    return np.where(np.abs(positions - nearest) < _SNAP, nearest, positions)


def _area(place: NDArray[np.float64], step: float, size: int) -> Taps:
    start = np.minimum(_snapped(place * step), size - 1.0)
    stop = np.minimum(_snapped((place + 1) * step), float(size))
    start = np.minimum(start, stop - _SNAP)
    lowest = np.floor(start).astype(np.int64)
    index = lowest[:, None] + np.arange(math.ceil(step - _SNAP) + 1)
    weight = np.minimum(stop[:, None], index + 1.0) - np.maximum(start[:, None], index)
    weight = np.where(weight < _SNAP / 2, 0.0, weight)
    weight /= weight.sum(axis=1, keepdims=True)
    index = np.where(weight > 0, np.minimum(index, size - 1), lowest[:, None])
    return Taps(index, weight)


def _linear(place: NDArray[np.float64], step: float, size: int) -> Taps:
    centre = np.clip(_snapped((place + 0.5) * step - 0.5), 0.0, size - 1.0)
    lowest = np.floor(centre).astype(np.int64)
    part = centre - lowest
    index = np.stack([lowest, np.where(part > 0, np.minimum(lowest + 1, size - 1), lowest)], 1)
    return Taps(index, np.stack([1 - part, part], 1))


def resample(source: Pixels, origin: tuple[int, int], rows: Taps, columns: Taps) -> Pixels:
    """Apply taps along y and x to a piece of the source, (h, w, C), that begins at ``origin``.

    It has all pixels that they need. What comes out, (rows, columns, C), has its dtype: integers
    are rounded; a NaN spreads only to pixels that it touches.
    """
    if rows.is_identity and columns.is_identity:
        y0, x0 = rows.start - origin[0], columns.start - origin[1]
        return source[y0 : y0 + len(rows.index), x0 : x0 + len(columns.index)]
    narrow = source.dtype.itemsize <= 2 or source.dtype == np.float32
    work = np.dtype(np.float32 if narrow else np.float64)
    bands = source.shape[2]
    out = np.empty((len(rows.index), len(columns.index), bands), source.dtype)
    source = source[:, columns.start - origin[1] : columns.stop - origin[1]]
    across = columns.weighing(work)
    with np.errstate(invalid="ignore", over="ignore"):
        # In bands that stay in the processor's cache.
        for first in range(0, len(out), _BAND_ROWS):
            some = slice(first, first + _BAND_ROWS)
            band = rows[some]
            part = source[band.start - origin[0] : band.stop - origin[0]].astype(work)
            half = band.weighing(work) @ part.reshape(len(part), -1)
            turned = half.reshape(len(half), -1, bands).swapaxes(0, 1)
            full = across @ turned.reshape(len(turned), -1)
            full = full.reshape(len(full), -1, bands).swapaxes(0, 1)
            out[some] = round_to(full, source.dtype)
    return out
