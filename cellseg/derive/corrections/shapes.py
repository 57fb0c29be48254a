"""Masks cut in two and joined: the pixels of splitting and merging.

scikit-image's heavier parts are loaded when they are needed: a viewer opens results with this.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.errors import SettingsError
from cellseg.geometry import Box

Mask = NDArray[np.bool_]

SMALLEST_PART_PX = 4
GAP_PX = 3
"""Cells this far from one another, or nearer, can be merged."""


def split_in_two(mask: Mask) -> list[Mask]:
    """Parts of a mask, (h, w), by a watershed on its distance map, the largest first."""
    from scipy.cluster.vq import kmeans2
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    if np.count_nonzero(mask) < 2 * SMALLEST_PART_PX:
        raise SettingsError(f"a cell of {np.count_nonzero(mask)} px cannot be split")
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    smooth = np.where(mask, ndimage.gaussian_filter(distance, 1.0), 0)
    near = max(1, round(float(distance.max()) / 2))
    seeds = peak_local_max(  # type: ignore[no-untyped-call]
        smooth, min_distance=near, num_peaks=2, exclude_border=False, labels=mask.astype(int)
    )
    found = np.zeros(mask.shape, np.int64)
    if len(seeds) < 2:
        # One peak only: parts of equal size, by the place of their pixels.
        places = np.argwhere(mask).astype(np.float64)
        _, owner = kmeans2(places, 2, minit="++", rng=np.random.default_rng(0))
        found[mask] = owner + 1
    else:
        found[tuple(seeds.T)] = (1, 2)
        found = watershed(-smooth, found, mask=mask)  # type: ignore[no-untyped-call]
    return _parts(found, mask)


def split_along(mask: Mask, line: NDArray[np.float64]) -> list[Mask]:
    """Parts of a mask, (h, w), that a drawn line makes, wherever it crosses; the largest first.

    The line's points, (P, 2), are (y, x) in pixels of the mask.
    """
    from skimage.draw import line as pixels_of_line

    drawn = np.zeros(mask.shape, np.bool_)
    for (y0, x0), (y1, x1) in pairwise(np.rint(line).astype(int)):
        ys, xs = pixels_of_line(y0, x0, y1, x1)  # type: ignore[no-untyped-call]
        inside = (ys >= 0) & (xs >= 0) & (ys < mask.shape[0]) & (xs < mask.shape[1])
        drawn[ys[inside], xs[inside]] = True
    found, _ = ndimage.label(mask & ~drawn)
    found[np.bincount(found.ravel())[found] < SMALLEST_PART_PX] = 0
    if len(np.unique(found[found > 0])) < 2:
        raise SettingsError("the line does not cut the cell in two: draw it right across")
    return _parts(found, mask)


def joined(masks: Sequence[Mask], free: Mask) -> Mask:
    """Several masks as one, (h, w) each; a narrow gap of ``free`` pixels between them is filled."""
    union = np.logical_or.reduce(list(masks))
    whole = union
    if ndimage.label(union)[1] > 1:
        near = np.pad(union, GAP_PX + 1)
        closed = ndimage.binary_closing(near, ndimage.generate_binary_structure(2, 1), GAP_PX)
        whole = union | (closed[GAP_PX + 1 : -GAP_PX - 1, GAP_PX + 1 : -GAP_PX - 1] & free)
    if ndimage.label(whole, np.ones((3, 3)))[1] > 1:
        raise SettingsError(f"cells that lie more than {GAP_PX} px apart cannot be merged")
    return np.asarray(whole, np.bool_)


def refuse_apart(boxes: Sequence[Box]) -> None:
    """Refuse cells that lie far apart before anything between them is read."""
    for box in boxes:
        near = box.widened(GAP_PX + 1)
        if not any(near.intersects(other) for other in boxes if other is not box):
            raise SettingsError(f"cells that lie more than {GAP_PX} px apart cannot be merged")


def _parts(found: NDArray[np.int64], mask: Mask) -> list[Mask]:
    """One mask a number, the largest first; pixels without number go to the nearest."""
    from skimage.segmentation import expand_labels

    owner = expand_labels(found, max(found.shape)) * mask  # type: ignore[no-untyped-call]
    parts = [owner == number for number in np.unique(owner[owner > 0]).tolist()]
    return sorted(parts, key=lambda part: -int(np.count_nonzero(part)))
