"""How much of each pixel polygons cover, line by line.

Exact along x, sampled along y: edges are cut with horizontal lines and what lies between an odd
and an even cut is inside (even-odd rule, as `Foley et al., Computer Graphics, 3.6` fill polygons).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Rings = Sequence[Floats]
"""One polygon: its outline and its holes, each (N, 2) of (y, x)."""

_STRIP = 256


def coverage(
    polygons: Sequence[Rings], extent: tuple[float, float], *, samples: int
) -> NDArray[np.float32]:
    """Share of each pixel that lies in any of the polygons.

    Parameters
    ----------
    polygons : sequence of polygon
        In pixels whose edges, not centres, are at integers.
    extent : (float, float)
        Height and width that count; the last row and column are cut there, and what is left of
        them is their whole.
    samples : int
        Lines per row of pixels.

    Returns
    -------
    ndarray, float32, (ceil(height), ceil(width))
    """
    height, width = (max(1, math.ceil(side)) for side in extent)
    share = np.zeros((height, width), np.float32)
    lines = max(1, round(extent[0] * samples))
    line, start, end = _union(*_cut(polygons, lines, samples))
    start, end = np.clip(start, 0, extent[1]), np.clip(end, 0, extent[1])
    if not line.size:
        return share
    for top in range(int(line[0]) // samples, int(line[-1]) // samples + 1, _STRIP):
        bottom = min(height, top + _STRIP)
        part = slice(*np.searchsorted(line, (top * samples, bottom * samples)))
        row = line[part] // samples - top
        share[top:bottom] = _accumulated(row, start[part], end[part], bottom - top, width)
    share[:-1] /= samples
    share[-1] /= max(1, lines - (height - 1) * samples)
    share[:, -1] /= max(extent[1] - (width - 1), 1e-6)
    return np.clip(share, 0, 1)


def length(polygons: Sequence[Rings], rows: int) -> float:
    """Of what lies inside along the middle of each row, summed."""
    _, start, end = _union(*_cut(polygons, rows, 1))
    return float((end - start).sum())


def _cut(polygons: Sequence[Rings], lines: int, samples: int) -> tuple[Ints, Floats, Floats]:
    """Inside of each polygon, as (line, from x, to x)."""
    found = []
    for rings in polygons:
        outer = _spans(rings[0], lines, samples)
        if len(rings) > 1:
            holes = [_spans(ring, lines, samples) for ring in rings[1:]]
            outer = _less(outer, _union(*_together(holes)))
        found.append(outer)
    return _together(found)


def _together(groups: list[tuple[Ints, Floats, Floats]]) -> tuple[Ints, Floats, Floats]:
    line, start, end = (np.concatenate(parts) for parts in zip(*groups, strict=True))
    return line, start, end


def _spans(ring: Floats, lines: int, samples: int) -> tuple[Ints, Floats, Floats]:
    """Inside of one ring."""
    here, there = ring, np.roll(ring, -1, axis=0)
    flip = here[:, 0] > there[:, 0]
    low, high = np.where(flip[:, None], there, here), np.where(flip[:, None], here, there)
    # Line n runs at y = (n + ½) / samples; an edge is cut by those in [low, high).
    first = np.clip(np.ceil(low[:, 0] * samples - 0.5), 0, lines).astype(np.int64)
    last = np.clip(np.ceil(high[:, 0] * samples - 0.5), 0, lines).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(ring)), count)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    line = first[edge] + within
    (y0, x0), (y1, x1) = low[edge].T, high[edge].T
    x = x0 + ((line + 0.5) / samples - y0) / (y1 - y0) * (x1 - x0)
    order = np.lexsort((x, line))
    line, x = line[order], x[order]
    return line[::2], x[::2], x[1::2]


def _union(line: Ints, start: Floats, end: Floats) -> tuple[Ints, Floats, Floats]:
    """The same spans sorted, those that overlap joined."""
    order = np.lexsort((start, line))
    line, start, end = line[order], start[order], end[order]
    if line.size < 2:
        return line, start, end
    place, x, depth = _events((line, start, end, 1))
    inside = np.cumsum(depth) > 0
    return _runs(place, x, inside)


def _less(
    spans: tuple[Ints, Floats, Floats], holes: tuple[Ints, Floats, Floats]
) -> tuple[Ints, Floats, Floats]:
    """What of disjoint spans lies in none of the holes, which are disjoint too."""
    big = 4  # a span and no hole: a depth of 1; any hole: 1 − 4 or −4
    place, x, depth = _events((*spans, 1), (*holes, -big))
    return _runs(place, x, np.cumsum(depth) == 1)


def _events(*groups: tuple[Ints, Floats, Floats, int]) -> tuple[Ints, Floats, Ints]:
    """Starts and ends along each line, and by how much the depth changes at each."""
    line = np.concatenate([np.concatenate([group[0], group[0]]) for group in groups])
    x = np.concatenate([np.concatenate([group[1], group[2]]) for group in groups])
    step = np.concatenate([np.repeat([group[3], -group[3]], len(group[0])) for group in groups])
    order = np.lexsort((x, line))
    return line[order], x[order], step[order]


def _runs(line: Ints, x: Floats, inside: NDArray[np.bool_]) -> tuple[Ints, Floats, Floats]:
    """Spans between an event after which it is inside and the next event after which it is not."""
    before = np.concatenate([[False], inside[:-1]])
    starts, ends = np.flatnonzero(inside & ~before), np.flatnonzero(~inside & before)
    return line[starts], x[starts], x[ends]


def _accumulated(row: Ints, start: Floats, end: Floats, rows: int, columns: int) -> Floats:
    """Sum over spans of their overlap with each pixel, (rows, columns)."""
    wide = columns + 2
    changes = np.zeros(rows * wide)
    for x, sign in ((start, 1.0), (end, -1.0)):
        column = np.floor(x)
        place = row * wide + column.astype(np.int64)
        # A step from 0 to 1 at x covers 1 − frac(x) of its own pixel and all that follow.
        changes += np.bincount(place, sign * (1 - (x - column)), minlength=rows * wide)
        changes += np.bincount(place + 1, sign * (x - column), minlength=rows * wide)
    return np.asarray(np.cumsum(changes.reshape(rows, wide), axis=1)[:, :columns])
