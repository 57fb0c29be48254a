"""Outlines to masks that keep their areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LINES = 8
"""In a row of pixels; along each line what lies inside is measured, not sampled."""

_BAND_PX = 4_000_000
"""Pixels that are measured at once: each takes some forty bytes meanwhile."""


def filled(rings: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of which most lies inside: as many as the outline's area.

    Whether a pixel's centre lies inside would not do: outlines that were drawn around coarser
    pixels run through many centres, and all of them would be in.

    Parameters
    ----------
    rings : sequence of ndarray, (N, 2)
        (x, y) in pixels, 0 at the corner of the first; what lies in an odd number of them is
        inside.
    shape : (int, int)
        Height and width; what lies beyond is cut off.

    Returns
    -------
    ndarray, bool, shape
    """
    height, width = shape
    mask = np.zeros(height * width, bool)
    edges, shares, area = [], [], 0.0
    band = max(1, _BAND_PX // max(1, width))
    for top in range(0, height, band):
        share = _shares(rings, (top, min(top + band, height)), width).ravel()
        inside = share >= 1
        mask[top * width : top * width + inside.size] = inside
        edge = np.flatnonzero((share > 0) & ~inside)
        edges.append(edge + top * width)
        shares.append(share[edge])
        area += float(share.sum())
    if edges:
        wanted = max(0, round(area) - int(np.count_nonzero(mask)))
        order = np.argsort(-np.concatenate(shares), kind="stable")
        mask[np.concatenate(edges)[order[:wanted]]] = True
    return mask.reshape(shape)


def _shares(
    rings: Sequence[NDArray[np.float64]], rows: tuple[int, int], width: int
) -> NDArray[np.float64]:
    """How much of each pixel of some rows lies inside, 0 … 1."""
    first, last = rows
    line, left, right = _spans(rings, first * LINES, last * LINES)
    row = line // LINES - first
    shape = last - first, width
    wide = width + 2
    steps = np.zeros(shape[0] * wide)
    for x, sign in ((left, 1.0), (right, -1.0)):
        x = np.clip(x, 0, shape[1])
        column = np.floor(x)
        place = row * wide + column.astype(np.int64)
        # What begins at x covers 1 − frac(x) of its own pixel, and all of those that follow.
        steps += np.bincount(place, sign * (1 - (x - column)), minlength=steps.size)
        steps += np.bincount(place + 1, sign * (x - column), minlength=steps.size)
    return np.cumsum(steps.reshape(shape[0], wide), axis=1)[:, : shape[1]] / LINES


def _spans(
    rings: Sequence[NDArray[np.float64]], top: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """What lies inside along each line from ``top`` to ``end``: its number, from x, to x.

    Between an odd and an even edge it is inside (`Foley et al., Computer Graphics, 3.6`).
    """
    here = np.concatenate(list(rings))
    there = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    down = (here[:, 1] > there[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(down, there, here).T, np.where(down, here, there).T
    # Line n runs at y = (n + ½) / LINES; an edge is met by those in [y0, y1).
    first, last = (np.clip(np.ceil(y * LINES - 0.5), top, end).astype(np.int64) for y in (y0, y1))
    count = last - first
    edge = np.repeat(np.arange(len(here)), count)
    line = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    at = ((line + 0.5) / LINES - y0[edge]) / (y1 - y0)[edge]
    x = x0[edge] + at * (x1 - x0)[edge]
    order = np.lexsort((x, line))
    line, x = line[order], x[order]
    return line[::2], x[::2], x[1::2]
