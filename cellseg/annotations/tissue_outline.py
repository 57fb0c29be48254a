"""``tissue.geojson``: the tissue that was looked at, as polygons that QuPath reads too."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from cellseg.annotations.region import polygons_of

LONGEST_PX = 2048
"""Masks with a longer side are drawn coarser."""

TOLERANCE_PX = 0.3


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
    from skimage.measure import block_reduce, find_contours

    step = -(-max(mask.shape) // LONGEST_PX)
    mask = block_reduce(mask, step, np.mean) >= 0.5  # type: ignore[no-untyped-call]
    pixel = downsample * step
    contours = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    lines = [shapely.LineString((line[:, ::-1] - 0.5) * pixel) for line in contours]
    drawn = shapely.simplify(
        shapely.build_area(shapely.MultiLineString(lines)), TOLERANCE_PX * pixel
    )
    inside = shapely.clip_by_rect(drawn, 0, 0, *within[::-1])
    found = polygons_of(shapely.set_precision(inside, 0.1))
    return None if found.is_empty else dict(shapely.geometry.mapping(found))
