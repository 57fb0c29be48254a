"""The pixels of many masks as flat lists, so that numpy measures all cells at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PixelLists:
    """M pixels of N cells, ordered by cell, row, column. Coordinates are of the mask's crop.

    Attributes
    ----------
    cell, y, x : ndarray, int64, (M,)
        The cell that each pixel belongs to, and its place in that cell's crop.
    starts, counts : ndarray, int64, (N,)
        Where each cell's pixels begin, and how many there are.
    entries_straight, entries_diagonal : ndarray, int64, (N,)
        How often a line along the axes (along the diagonals) enters the cell.
    """

    cell: Ints
    y: Ints
    x: Ints
    starts: Ints
    counts: Ints
    entries_straight: Ints
    entries_diagonal: Ints

    def sums(self, values: Ints | Floats) -> Floats:
        """Sum of ``values`` (M,) over each cell, float64, (N,)."""
        return np.add.reduceat(values, self.starts).astype(np.float64)

    def means(self, values: Ints | Floats) -> Floats:
        """Mean of ``values`` (M,) over each cell, (N,)."""
        return self.sums(values) / self.counts


def flatten(masks: Sequence[NDArray[np.bool_]]) -> PixelLists:
    """List the pixels of at least one mask, each with at least one pixel set.

    Masks are laid one after the other in a flat array, each with a row of background above and
    a column of background on its left, which is also the right-hand background of the row
    before: a pixel's neighbours to the left and above are then at fixed steps.
    """
    heights, widths = np.array([mask.shape for mask in masks], dtype=np.int64).T
    strides = widths + 1
    ends = np.cumsum((heights + 1) * strides)
    offsets = np.concatenate([[0], ends[:-1]])
    flat = np.zeros(int(ends[-1]), dtype=np.bool_)
    places = zip(masks, offsets.tolist(), ends.tolist(), strides.tolist(), strict=True)
    for mask, first, end, stride in places:
        flat[first:end].reshape(-1, stride)[1:, 1:] = mask
    counts = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)
    if not counts.all():
        raise ValueError(f"mask {int(np.argmin(counts))} has no pixel set")
    at = np.flatnonzero(flat)
    cell = np.repeat(np.arange(len(masks)), counts)
    stride_at = strides[cell]
    y, x = np.divmod(at - offsets[cell], stride_at)
    starts = np.cumsum(counts) - counts
    above = at - stride_at
    seen_straight = flat[at - 1].astype(np.int64) + flat[above]
    seen_diagonal = flat[above - 1].astype(np.int64) + flat[above + 1]
    return PixelLists(
        cell,
        y - 1,
        x - 1,
        starts,
        counts,
        2 * counts - np.add.reduceat(seen_straight, starts),
        2 * counts - np.add.reduceat(seen_diagonal, starts),
    )
