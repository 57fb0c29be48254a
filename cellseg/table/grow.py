"""Cells around nuclei: each nucleus grows until it meets its neighbour, or a distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box, LazyArray

Labels = NDArray[np.uint32]

BLOCK_PX = 1024
"""Side of what is grown at once, lattice pixels."""

OUTLINE_PX = 0.25
"""From a mask's outermost pixel centres to its outline, on average over its directions."""


def grow(labels: Labels, distance: float) -> Labels:
    """Give each pixel of the background, 0 in (h, w) labels, the nearest label within a distance.

    ``distance`` is in pixels, from the outlines of the masks.
    """
    from skimage.segmentation import expand_labels  # late: a viewer opens results without it

    return np.asarray(expand_labels(labels, distance + OUTLINE_PX), np.uint32)  # type: ignore[no-untyped-call]


def grown_blocks(
    labels: LazyArray,
    distance: float,
    *,
    block_px: int = BLOCK_PX,
    grown_in: Callable[[Box, Labels], Labels] | None = None,
    halo: int = 0,
) -> Iterator[tuple[Box, Labels, Labels]]:
    """Grow block by block, whatever their size; those without a cell are left out.

    Parameters
    ----------
    grown_in : callable, optional
        Grows the labels of a box in another way than by distance, of which pixels up to ``halo``
        around a block play a part.

    Yields
    ------
    (Box, ndarray, ndarray)
        Where it lies, its labels as they were, and grown; uint32, (h, w).
    """
    whole = Box(0, 0, *labels.shape)
    halo = halo or math.ceil(distance + OUTLINE_PX) + 1
    for box in whole.parts(block_px):
        around = box.widened(halo).intersection(whole)
        seen = np.asarray(labels[around.pixels], np.uint32)
        if not seen.any():
            continue
        inner = box.inside(around)
        grown = grow(seen, distance) if grown_in is None else grown_in(around, seen)
        if grown[inner].any():
            yield box, seen[inner], grown[inner]
