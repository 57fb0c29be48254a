"""Cells around nuclei: each nucleus grows until it meets its neighbour, or a distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box

Labels = NDArray[np.uint32]

BLOCK_PX = 1024
"""Side of what is grown at once, lattice pixels."""

OUTLINE_PX = 0.25
"""From a mask's outermost pixel centres to its outline, on average over its directions."""

_NONE = np.int64(1) << 62
_LABEL_BITS = 32


class LabelImage(Protocol):
    """(Y, X) integers, read where it is sliced; 0 is the background."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: tuple[slice, slice]) -> Any: ...  # noqa: ANN401


def grow(labels: Labels, distance: float) -> Labels:
    """Give each pixel of the background the nearest label within a distance.

    Parameters
    ----------
    labels : ndarray, uint32, (h, w)
        0 is the background.
    distance : float
        Pixels, from the outlines of the masks.

    Returns
    -------
    ndarray, uint32, (h, w)

    Notes
    -----
    Distances lie between pixel centres, are squared integers and therefore exact; of two labels
    at the same distance the smaller wins. Squared distance and label together are one integer,
    whose minimum is sought along the columns, then along the rows: the squared distance of the
    second step adds to that of the first without changing their order.
    """
    reach = distance + OUTLINE_PX
    key = np.where(labels > 0, labels.astype(np.int64), _NONE)
    for axis in (0, 1):
        key = _nearest(key, math.floor(reach), axis)
    near = key <= (np.int64(math.floor(reach**2)) << _LABEL_BITS | np.int64(2**_LABEL_BITS - 1))
    return np.where(near, key & np.int64(2**_LABEL_BITS - 1), 0).astype(np.uint32)


def grown_blocks(
    labels: LabelImage,
    distance: float,
    *,
    block_px: int = BLOCK_PX,
    grown_in: Callable[[Box, Labels], Labels] | None = None,
    halo: int = 0,
) -> Iterator[tuple[Box, Labels, Labels]]:
    """The same block by block, whatever their size; those without a cell are left out.

    Parameters
    ----------
    grown_in : callable, optional
        Grows the labels of a box in another way than by distance.
    halo : int
        Pixels around a block that play a part in that.

    Yields
    ------
    (Box, ndarray, ndarray)
        Where it lies, its labels as they were, and grown; uint32, (h, w).
    """
    height, width = labels.shape
    whole, halo = Box(0, 0, height, width), halo or math.ceil(distance + OUTLINE_PX) + 1
    for y in range(0, height, block_px):
        for x in range(0, width, block_px):
            box = Box(y, x, y + block_px, x + block_px).intersection(whole)
            around = box.widened(halo).intersection(whole)
            seen = np.asarray(labels[around.pixels], np.uint32)
            if not seen.any():
                continue
            inner = box.inside(around)
            grown = grow(seen, distance) if grown_in is None else grown_in(around, seen)
            if grown[inner].any():
                yield box, seen[inner], grown[inner]


def _nearest(key: NDArray[np.int64], reach: int, axis: int) -> NDArray[np.int64]:
    """The smallest key along an axis, each with the square of its distance added."""
    source = np.moveaxis(key, axis, 0)
    found = source.copy()
    for step in range(1, min(reach, len(source) - 1) + 1):
        further = np.int64(step * step) << _LABEL_BITS
        np.minimum(found[step:], source[:-step] + further, out=found[step:])
        np.minimum(found[:-step], source[step:] + further, out=found[:-step])
    return np.moveaxis(found, 0, axis)
