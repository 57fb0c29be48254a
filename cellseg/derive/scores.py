"""What a pathologist signs: the share of positive cells with its interval, H-score, Allred's score.

The 95 % interval comes from a bootstrap over blocks of the slide. Neighbouring cells are alike, so
a cell is not one independent observation: resampled one by one they give an interval that is far
too narrow (Lahiri, Resampling Methods for Dependent Data, 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SIDES_UM = (1000.0, 700.0, 500.0, 350.0, 250.0, 175.0, 125.0, 90.0, 60.0)
"""Sides of a block; the largest that leaves :data:`ENOUGH` of them with cells is taken."""

ENOUGH, LEAST = 40, 10
"""Blocks with cells that are wanted, and with fewer of which no interval is given."""

NUCLEUS_UM = 8.0
"""What a nucleus is taken to measure on a slide without pixel size."""

RESAMPLES = 2000
_Z = 1.959964
_PROPORTIONS = (0.01, 0.1, 1 / 3, 2 / 3)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Squares of a regular grid with sides of ``side_px``, level-0 pixels, and the cells in each.

    ``number`` of them hold cells; ``of_cell``, (N,), is the block that each cell lies in, from 0.
    """

    of_cell: NDArray[np.int64]
    number: int
    side_px: float


def spatial_blocks(
    places: NDArray[np.float64], areas: NDArray[np.float64], *, mpp: float | None
) -> Blocks:
    """Divide the slide into blocks by its cells' places, (N, 2): (y, x), level-0 pixels.

    Without a pixel size a usual cell, of the median of ``areas`` (level-0 px²), is taken to
    measure :data:`NUCLEUS_UM` across.
    """
    usual_px = float(np.sqrt(np.median(areas) * 4 / np.pi)) if len(places) else 0.0
    pixel_um = mpp or NUCLEUS_UM / max(usual_px, 1.0)
    found = Blocks(np.zeros(len(places), np.int64), 0, np.inf)
    for side in SIDES_UM if len(places) else ():
        at = np.floor(places * (pixel_um / side)).astype(np.int64)
        at -= at.min(axis=0)
        # Not np.unique: it sorts all cells.
        which, held = pd.factorize(at[:, 0] * (at[:, 1].max() + 1) + at[:, 1], sort=True)
        found = Blocks(which, len(held), side / pixel_um)
        if found.number >= ENOUGH:
            break
    return found


def share_interval(chosen: NDArray[np.bool_], blocks: Blocks) -> tuple[float, float] | None:
    """Between which values the share of ``chosen`` cells, (N,), lies with 95 % confidence.

    None with fewer than :data:`LEAST` blocks that hold cells. Never narrower than Wilson's interval
    for independent cells, which also holds where no cell is chosen, or all are. The same cells give
    the same interval.
    """
    cells = np.bincount(blocks.of_cell, minlength=blocks.number).astype(np.float64)
    hits = np.bincount(blocks.of_cell[chosen], minlength=blocks.number).astype(np.float64)
    cells, hits = cells[cells > 0], hits[cells > 0]
    if (number := len(cells)) < LEAST:
        return None
    share = float(hits.sum() / cells.sum())
    rng = np.random.default_rng(0)
    times = rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    low, high = np.percentile((times @ hits) / (times @ cells), [2.5, 97.5])
    # Resampled blocks vary by (K - 1) / K too little.
    wider = (number / (number - 1)) ** 0.5
    low, high = share - (share - low) * wider, share + (high - share) * wider
    least, most = _wilson(share, int(cells.sum()))
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def _wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson's score interval of a binomial share."""
    middle = share + _Z**2 / (2 * number)
    half = _Z * (share * (1 - share) / number + _Z**2 / (4 * number**2)) ** 0.5
    over = 1 + _Z**2 / number
    return (middle - half) / over, (middle + half) / over


def labelling(
    codes: NDArray[np.integer[Any]], number: int, blocks: Blocks | None = None
) -> dict[str, Any]:
    """How many cells are positive, on a slide or in a part of it; ready for JSON.

    ``codes``, (N,), are the cells' grades of 2 or 4, -1 without a measurement. The index is the
    share of positive cells, 0 … 1, its interval as in :func:`share_interval`; None without cells,
    and the interval without ``blocks``.
    """
    known = codes >= 0
    grades = np.bincount(codes[known], minlength=number).tolist()
    cells, positive, interval = sum(grades), sum(grades[1:]), None
    if blocks is not None:
        mine = replace(blocks, of_cell=blocks.of_cell[known])
        interval = share_interval(codes[known] > 0, mine)
    return {
        "cells": cells,
        "positive": positive,
        "grades": grades,
        "index": positive / cells if cells else None,
        "index_interval": None if interval is None else list(interval),
        "h_score": h_score(grades),
        "allred": allred(grades),
    }


def h_score(grades: Sequence[int]) -> float | None:
    """1 × the per cent of 1+, 2 × of 2+, 3 × of 3+: 0 … 300; None without three thresholds.

    McCarty et al., Arch. Pathol. Lab. Med. 109 (1985) 716.
    """
    if len(grades) != 4 or not sum(grades):
        return None
    return 100 * sum(grade * cells for grade, cells in enumerate(grades)) / sum(grades)


def allred(grades: Sequence[int]) -> int | None:
    """Proportion (0 … 5) and intensity (0 … 3) of positive cells, added: 0, 2 … 8.

    The proportion is 1 below 1 % of the cells, 2 to 10 %, 3 to a third, 4 to two thirds, 5 above;
    the intensity is the mean grade of positive cells, rounded (Allred et al., Mod. Pathol. 11
    (1998) 155). None without three thresholds.
    """
    if len(grades) != 4 or not sum(grades):
        return None
    positive = sum(grades[1:])
    if not positive:
        return 0
    proportion = 1 + sum(positive > share * sum(grades) for share in _PROPORTIONS)
    mean = sum(grade * cells for grade, cells in enumerate(grades)) / positive
    return int(proportion + np.floor(mean + 0.5))
