"""``tissue.geojson``: the tissue that was looked at, as polygons that QuPath reads too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONGEST_PX = 2048
"""Masks with a longer side are drawn coarser."""

TOLERANCE_PX = 0.3

_Ring = NDArray[np.float64]


def tissue_outline(
    mask: NDArray[np.bool_], *, downsample: float, within: tuple[int, int]
) -> dict[str, object] | None:
    """The outlines of a mask, holes included.

    Parameters
    ----------
    mask : ndarray, bool, (h, w)
    downsample : float
        Level-0 pixels along a side of a mask pixel.
    within : (int, int)
        Height and width of the slide, level-0 pixels: the mask's last pixels may stand out of it.

    Returns
    -------
    dict or None
        A GeoJSON MultiPolygon of (x, y) in level-0 pixels, 0 at the corner of the first pixel,
        as QuPath has it; None for an empty mask.
    """
    # Here and not above: with scipy behind it, it takes most of a second to load.
    from skimage.measure import approximate_polygon, find_contours, points_in_poly

    step = -(-max(mask.shape) // LONGEST_PX)
    if step > 1:
        padded = np.pad(mask, [(0, -side % step) for side in mask.shape])
        height, width = padded.shape[0] // step, padded.shape[1] // step
        mask = padded.reshape(height, step, width, step).mean(axis=(1, 3)) >= 0.5
    pixel = downsample * step
    outer: list[_Ring] = []
    holes: list[_Ring] = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):  # type: ignore[no-untyped-call]
        ring = np.asarray(approximate_polygon(contour, TOLERANCE_PX), np.float64) - 1  # type: ignore[no-untyped-call]
        if len(ring) < 4:
            continue
        (outer if _signed_area(ring) > 0 else holes).append(ring)
    # Which way round find_contours goes is its own affair: the largest ring is an outline.
    rings = [*outer, *holes]
    if not rings:
        return None
    largest = max(rings, key=lambda ring: abs(_signed_area(ring)))
    if any(ring is largest for ring in holes):
        outer, holes = holes, outer
    outer.sort(key=lambda ring: abs(_signed_area(ring)))
    polygons: list[list[_Ring]] = [[ring] for ring in outer]
    for hole in holes:
        for polygon in polygons:
            if points_in_poly(hole[:1], polygon[0])[0]:  # type: ignore[no-untyped-call]
                polygon.append(hole)
                break
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [
                np.round(np.clip((ring[:, ::-1] + 0.5) * pixel, 0, within[::-1]), 1).tolist()
                for ring in polygon
            ]
            for polygon in polygons
        ],
    }


def _signed_area(ring: _Ring) -> float:
    y, x = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
