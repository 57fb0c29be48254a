"""Convex hulls of many cells at once, in exact integers.

The hull is that of the midpoints of the pixels' edges, as in
:func:`skimage.morphology.convex_hull_image`. In half pixels, a pixel (y, x) has the midpoints
(2y ± 1, 2x) and (2y, 2x ± 1). Only the first and the last pixel of a row matter. The left side
of a hull is the greatest convex function below the rows' left ends; the right side is the same,
mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.table._pixels import Floats, Ints, PixelLists


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of every hull: its corners, ordered by cell and row, in half pixels.

    ``x`` is mirrored (its sign turned) on the right side.
    """

    cell: Ints
    row: Ints
    x: Ints

    def kept(self, which: NDArray[np.bool_]) -> _Side:
        return _Side(self.cell[which], self.row[which], self.x[which])


def hull_measures(pixels: PixelLists) -> tuple[Ints, Floats]:
    """Area of the convex hull and largest Feret diameter of each cell.

    Returns
    -------
    area_convex : ndarray, int64, (N,)
        Pixels whose centre lies in the hull or on its edge, as scikit-image counts them.
    feret_diameter_max : ndarray, float64, (N,)
        Largest distance between two corners of the hull, pixels. scikit-image takes the
        outline of the hull's pixels, and finds up to one pixel more.
    """
    last = np.append((np.diff(pixels.y) != 0) | (np.diff(pixels.cell) != 0), True)
    first = np.concatenate([[True], last[:-1]])
    cell, row = pixels.cell[first], pixels.y[first]
    left = _envelope(_midpoints(cell, row, pixels.x[first]))
    right = _envelope(_midpoints(cell, row, -pixels.x[last]))
    top = pixels.y[pixels.starts]
    height = pixels.y[pixels.starts + pixels.counts - 1] + 1 - top
    return _area(left, right, top, height), _diameter(left, right, len(top))


def _midpoints(cell: Ints, row: Ints, x: Ints) -> _Side:
    """The midpoints that can be corners: three for the end pixel of each row, one a half row."""
    side = _Side(
        np.repeat(cell, 3),
        (2 * row[:, None] + np.array([-1, 0, 1])).ravel(),
        (2 * x[:, None] + np.array([0, -1, 0])).ravel(),
    )
    again = np.flatnonzero((np.diff(side.cell) == 0) & (np.diff(side.row) == 0))
    side.x[again] = np.minimum(side.x[again], side.x[again + 1])
    which = np.ones(len(side.x), dtype=np.bool_)
    which[again + 1] = False
    return side.kept(which)


def _envelope(side: _Side) -> _Side:
    """Drop points that do not lie below the line through their neighbours, until none is left.

    A corner of the hull lies below every such line, so all others may go at the same time.
    """
    while True:
        rise, run = np.diff(side.x), np.diff(side.row)
        inner = side.cell[2:] == side.cell[:-2]
        drop = inner & (rise[:-1] * run[1:] >= rise[1:] * run[:-1])
        if not drop.any():
            return side
        side = side.kept(np.concatenate([[True], ~drop, [True]]))


def _area(left: _Side, right: _Side, top: Ints, height: Ints) -> Ints:
    starts = np.cumsum(height) - height
    cell = np.repeat(np.arange(len(top)), height)
    row = np.arange(len(cell)) - starts[cell] + top[cell]
    width = -_first_pixel(right, cell, row) - _first_pixel(left, cell, row) + 1
    area: Ints = np.add.reduceat(np.maximum(width, 0), starts)
    return area


def _first_pixel(side: _Side, cell: Ints, row: Ints) -> Ints:
    """Smallest pixel column whose centre is not outside the side, at each (cell, pixel row)."""
    span = int(side.row.max()) + 2
    after = np.searchsorted(side.cell * span + side.row, cell * span + 2 * row, side="right")
    before = after - 1
    run = side.row[after] - side.row[before]
    rise = side.x[after] - side.x[before]
    x = side.x[before] * run + rise * (2 * row - side.row[before])
    return np.asarray(-(-x // (2 * run)), dtype=np.int64)


def _diameter(left: _Side, right: _Side, count: int) -> Floats:
    """Largest distance from a left corner to a right one.

    The farthest two corners have opposite outward directions, so they never lie inside the
    same side; the topmost and bottommost corners belong to both.
    """
    lefts = np.bincount(left.cell, minlength=count)
    rights = np.bincount(right.cell, minlength=count)
    pairs = lefts * rights
    starts = np.cumsum(pairs) - pairs
    cell = np.repeat(np.arange(count), pairs)
    a, b = np.divmod(np.arange(len(cell)) - starts[cell], rights[cell])
    a += (np.cumsum(lefts) - lefts)[cell]
    b += (np.cumsum(rights) - rights)[cell]
    squared = (left.row[a] - right.row[b]) ** 2 + (left.x[a] + right.x[b]) ** 2
    return np.asarray(np.sqrt(np.maximum.reduceat(squared, starts)) / 2, dtype=np.float64)
