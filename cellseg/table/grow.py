"""Cells around nuclei: each grows until it meets its neighbour, a distance, or the cell's edge.

The edge is seen in a channel that shows cytoplasm or membranes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.geometry import Box, LazyArray

Labels = NDArray[np.uint32]

BLOCK_PX = 1024
"""Side of what is grown at once, lattice pixels."""

OUTLINE_PX = 0.25
"""From a mask's outermost pixel centres to its outline, on average over its directions."""

SMOOTH_PX = 1.0
"""Deviation of the Gaussian that smooths the channel, lattice pixels."""

WEIGHT = 4.0
"""Cost of a step over a change by a factor of two, beside its length."""

DETOUR = 2.0
"""Most that a path may cost, of the distance by which nuclei may grow."""

_LABEL_BITS, _UNIT, _LEVELS = 32, 256, 64
_STEPS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


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


@dataclass(frozen=True)
class ChannelGround:
    """Brightness of a channel where there are no cells, and from which on there are."""

    level: float
    threshold: float

    @classmethod
    def of(cls, channel: NDArray[np.generic]) -> ChannelGround | None:
        """The ground of a channel, from an overview of the slide; None where all is the same.

        The lower of two thresholds: the triangle's, for a ground that is most of the picture,
        and Otsu's of the logarithm, for one that is not.
        """
        from skimage.filters import threshold_otsu, threshold_triangle

        seen = channel.astype(np.float64)
        seen = _smoothed(np.where(np.isfinite(seen), seen, np.nanmin(seen)))
        low, high = np.percentile(seen, (1, 99.5))
        if not high > low:
            return None
        seen = np.clip(seen, low, high)
        step = (high - low) / 256
        dark = threshold_triangle(seen)  # type: ignore[no-untyped-call]
        parts = threshold_otsu(np.log(seen - low + step))  # type: ignore[no-untyped-call]
        return cls(float(low), float(min(dark, np.exp(parts) + low - step)))


def follow(
    nuclei: Labels,
    channel: NDArray[np.generic],
    ground: ChannelGround,
    *,
    distance: float,
    rim: float,
) -> Labels:
    """Give each pixel of the cells the nucleus from which a path costs least.

    Parameters
    ----------
    nuclei : ndarray, uint32, (h, w)
        0 is the background.
    channel : ndarray, (h, w)
        Raw values.
    distance : float
        Pixels from the nearest nucleus beyond which there is no cell.
    rim : float
        Pixels around each nucleus that are cell however dark they are.

    Notes
    -----
    A step costs its length, and more where the channel changes: at edges, and on either side of
    a membrane (Propagation of Jones, Carpenter and Golland, 2005, is of this kind). Costs are whole
    numbers; of two labels at the same cost the smaller wins. No path costs more than
    :data:`DETOUR` times the distance, so what lies farther away (:func:`halo_px`) plays no part.
    """
    smooth = np.maximum(_smoothed(channel) - ground.level, 0)
    above = ground.threshold - ground.level
    relief = np.rint(np.log2(np.nan_to_num(smooth) / above + 1) * _LEVELS).astype(np.int64)
    near = ndimage.distance_transform_edt(nuclei == 0) <= distance if nuclei.any() else nuclei > 0
    ring = grow(nuclei, rim)
    inside = (near & (smooth >= above)) | (ring > 0)
    found = _cheapest(nuclei, relief, inside, int(DETOUR * distance * _UNIT))
    return np.where(found > 0, found, ring)


def halo_px(distance: float) -> int:
    """How far around a block nuclei and pixels play a part."""
    return int(np.ceil((1 + DETOUR) * distance + 4 * SMOOTH_PX)) + 2


def _smoothed(values: NDArray[np.generic]) -> NDArray[np.float64]:
    known = values.astype(np.float64)
    return np.asarray(ndimage.gaussian_filter(known, SMOOTH_PX, mode="nearest"))


def _cheapest(
    nuclei: Labels, relief: NDArray[np.int64], inside: NDArray[np.bool_], most: int
) -> Labels:
    """Relax the costs from the nuclei outwards until none falls; cost and label are one integer."""
    label_mask = np.int64(2**_LABEL_BITS - 1)
    # A border all around, so that a step does not lead into the next row.
    relief, is_open = np.pad(relief, 1).ravel(), np.pad(inside, 1).ravel()
    seeds = np.pad(nuclei, 1).astype(np.int64)
    width, seeds = seeds.shape[1], seeds.ravel()
    key = np.where(seeds > 0, seeds, (np.int64(most) << _LABEL_BITS) | label_mask)
    active = np.flatnonzero(seeds)
    while len(active):
        changed = []
        for y, x in _STEPS:
            to = active + (y * width + x)
            change = np.abs(relief[to] - relief[active])
            cost = np.hypot(y, x) * (_UNIT + WEIGHT * _UNIT / _LEVELS * change)
            reached = key[active] + (np.rint(cost).astype(np.int64) << _LABEL_BITS)
            is_better = (reached < key[to]) & is_open[to]
            key[to[is_better]] = reached[is_better]
            changed.append(to[is_better])
        active = np.unique(np.concatenate(changed))
    labels = np.where(key >> _LABEL_BITS < most, key & label_mask, 0)
    return labels.reshape(-1, width)[1:-1, 1:-1].astype(np.uint32)
