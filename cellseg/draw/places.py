"""Places at which a large slide is shown closely: a regular grid, and a few of its boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.geometry import Box

MOST = 256
"""Places along a side of the grid; on larger slides there is room between them."""


@dataclass(frozen=True, eq=False)
class Places:
    """Boxes of one size on a regular grid, level-0 pixels.

    Attributes
    ----------
    tops, lefts : ndarray, int64
        Ascending; boxes do not overlap.
    height, width : int
        Of each box.
    is_one : bool
        Nothing was to be chosen: the box was given.
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    height: int
    width: int
    is_one: bool = False

    @classmethod
    def one(cls, box: Box) -> Places:
        """A single place."""
        return cls(np.array([box.y0]), np.array([box.x0]), *box.shape, is_one=True)

    @classmethod
    def grid(cls, shape: tuple[int, int], side: int) -> Places:
        """As many places of ``side`` px as there is room for, evenly spaced, at least one."""
        (tops, height), (lefts, width) = (_spread(size, side) for size in shape)
        return cls(tops, lefts, height, width)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.tops), len(self.lefts)

    def box(self, row: int, column: int) -> Box:
        """One place."""
        y, x = int(self.tops[row]), int(self.lefts[column])
        return Box(y, x, y + self.height, x + self.width)

    def holding(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.int64]:
        """Flat index of the place that each point lies in, -1 for those in none.

        Parameters
        ----------
        y, x : array_like, (N,)
            Level-0 pixels, pixel centres at integers.
        """
        rows, in_row = _inside(self.tops, self.height, np.asarray(y, np.float64) + 0.5)
        columns, in_column = _inside(self.lefts, self.width, np.asarray(x, np.float64) + 0.5)
        return np.where(in_row & in_column, rows * len(self.lefts) + columns, -1)


def choose(counts: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """The densest place, the sparsest, and others evenly spread over the cells.

    Parameters
    ----------
    counts : ndarray, int64, (rows, columns)
        Cells in each place; those without any are left out, unless all are.
    most : int
        At least 2.

    Returns
    -------
    list of (int, int)
        Row and column: the densest, the sparsest, then the others row by row: each stands for an
        equal part of the cells, counted in that order. (Spread over the area instead, most would
        lie at the tissue's edges and hold next to nothing.) Of equally dense places the first
        counts, of equally sparse ones the last.
    """
    places = np.argwhere((counts > 0) | (not counts.any()))
    held = counts[tuple(places.T)]
    ends = dict.fromkeys([int(np.argmax(held)), len(held) - 1 - int(np.argmin(held[::-1]))])
    rest = np.setdiff1d(np.arange(len(held)), list(ends))
    steps = np.arange(min(most - len(ends), len(rest)))
    at = np.zeros(0, np.int64)
    if len(steps):
        reached = np.cumsum(np.maximum(held[rest], 1))
        at = np.searchsorted(reached, (steps + 0.5) / len(steps) * reached[-1])
        # No place twice, where one holds more than its part.
        at = np.minimum(np.maximum.accumulate(at - steps), len(rest) - len(steps)) + steps
    return [(int(y), int(x)) for y, x in places[[*ends, *rest[at]]]]


def _spread(size: int, side: int) -> tuple[NDArray[np.int64], int]:
    side = min(side, size)
    number = min(MOST, size // side)
    pitch = size / number
    return np.floor(np.arange(number) * pitch + (pitch - side) / 2).astype(np.int64), side


def _inside(
    starts: NDArray[np.int64], length: int, at: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    index = np.searchsorted(starts, at, side="right") - 1
    return index, (index >= 0) & (at < starts[index] + length)
