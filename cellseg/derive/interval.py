"""A 95 % interval for a share of cells, by bootstrap over blocks of the slide.

Neighbouring cells are alike, so a cell is not one independent observation: resampled one by one
they give an interval that is far too narrow. Resampled are blocks of the slide instead, each with
all of its cells (Lahiri, Resampling Methods for Dependent Data, 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDES_UM = (1000.0, 700.0, 500.0, 350.0, 250.0, 175.0, 125.0, 90.0, 60.0)
"""Sides of a block; the largest that leaves :data:`ENOUGH` of them with cells is taken."""

ENOUGH, LEAST = 40, 10
"""Blocks with cells that are wanted, and with fewer of which no interval is given."""

NUCLEUS_UM = 8.0
"""What a nucleus is taken to measure on a slide without pixel size."""

RESAMPLES = 2000
_AT_ONCE = 250
_Z = 1.959964


@dataclass(frozen=True, eq=False)
class Blocks:
    """Squares of a regular grid, and the cells in each.

    Attributes
    ----------
    of_cell : ndarray, int64, (N,)
        The block that each cell lies in, 0 … ``number`` - 1.
    number : int
        Blocks with cells.
    side_px : float
        Level-0 pixels.
    """

    of_cell: NDArray[np.int64]
    number: int
    side_px: float


def spatial_blocks(
    places: NDArray[np.float64], *, mpp: float | None, usual_px: float = 0.0
) -> Blocks:
    """Part the slide.

    Parameters
    ----------
    places : ndarray, float64, (N, 2)
        Of the cells: (y, x), level-0 pixels.
    mpp : float or None
        µm per pixel. Without it a usual cell is taken to measure :data:`NUCLEUS_UM`.
    usual_px : float
        A usual cell's diameter, level-0 pixels.
    """
    pixel_um = mpp or NUCLEUS_UM / max(usual_px, 1.0)
    found = Blocks(np.zeros(len(places), np.int64), min(len(places), 1), np.inf)
    for side in SIDES_UM:
        at = np.floor(places * (pixel_um / side)).astype(np.int64)
        _, which = np.unique(at, axis=0, return_inverse=True) if len(at) else (at, found.of_cell)
        which = which.reshape(-1)
        found = Blocks(which, int(which.max(initial=-1)) + 1, side / pixel_um)
        if found.number >= ENOUGH:
            break
    return found


def share_interval(
    chosen: NDArray[np.bool_], blocks: Blocks, *, seed: int | Sequence[int] = 0
) -> tuple[float, float] | None:
    """Between which values the share of ``chosen`` lies, with 95 % confidence.

    Parameters
    ----------
    chosen : ndarray, bool, (N,)
    blocks : Blocks
        Of the same cells.
    seed : int
        The same cells give the same interval.

    Returns
    -------
    (float, float) or None
        0 … 1; None with fewer than :data:`LEAST` blocks. Never narrower than Wilson's interval
        for independent cells, which also holds where no cell is chosen, or all are.
    """
    if blocks.number < LEAST:
        return None
    cells = np.bincount(blocks.of_cell, minlength=blocks.number).astype(np.float64)
    hits = np.bincount(blocks.of_cell[chosen], minlength=blocks.number).astype(np.float64)
    share = float(hits.sum() / cells.sum())
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(RESAMPLES // _AT_ONCE):
        times = rng.multinomial(
            blocks.number, np.full(blocks.number, 1 / blocks.number), size=_AT_ONCE
        ).astype(np.float64)
        shares.append((times @ hits) / (times @ cells))
    low, high = np.percentile(np.concatenate(shares), [2.5, 97.5])
    # Resampled blocks vary by (K - 1) / K too little.
    wider = (blocks.number / (blocks.number - 1)) ** 0.5
    low, high = share - (share - low) * wider, share + (high - share) * wider
    least, most = _wilson(share, int(cells.sum()))
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def _wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson's score interval of a binomial share."""
    middle = share + _Z**2 / (2 * number)
    half = _Z * (share * (1 - share) / number + _Z**2 / (4 * number**2)) ** 0.5
    over = 1 + _Z**2 / number
    return (middle - half) / over, (middle + half) / over
