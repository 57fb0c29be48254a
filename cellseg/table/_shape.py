"""Shape of many cells at once, in lattice pixels."""

from __future__ import annotations

import numpy as np

from cellseg.table._hull import hull_measures
from cellseg.table._pixels import Floats, PixelLists

ROUND = 1e-9
"""Moments that differ by less than this part of their sum have no longer axis."""


def shapes(pixels: PixelLists) -> dict[str, Floats]:
    """Measure each cell's shape, by scikit-image's names.

    Lengths and areas are in lattice pixels, ``orientation`` in degrees.

    Notes
    -----
    The perimeter is Crofton's, with four directions, as :func:`skimage.measure.perimeter_crofton`:
    P = π/4 (n₀ + n₉₀ + (n₄₅ + n₁₃₅)/√2), where n counts how often the lattice's lines in a
    direction enter the cell. Cells are round, and for discs it has next to no bias: 0.3 % or less
    from a radius of 5 pixels, single discs within 3 %. Counting weighted border pixels, as
    :func:`skimage.measure.perimeter` does, is 4 % short at radius 5 and 3 % long at 20. Edges
    that follow the axes come out 5 % short. The outlines of holes count.

    Circularity is 4πA/P² with that perimeter, at most 1: on masks of a few pixels the quotient
    exceeds 1, by the lattice and not by the cell's shape.

    The ellipse is the one with the second moments of the pixels' centres, so a line of pixels
    has no short axis, and a cell of one pixel has no axes at all.
    """
    area = pixels.counts.astype(np.float64)
    entries = pixels.entries_straight + pixels.entries_diagonal / np.sqrt(2)
    perimeter = np.pi / 4 * entries
    area_convex, feret = hull_measures(pixels)
    y0, x0, y1, x1 = bounds(pixels).T
    return {
        "area": area,
        "perimeter": perimeter,
        **_ellipses(pixels),
        "feret_diameter_max": feret,
        "equivalent_diameter_area": np.sqrt(4 * area / np.pi),
        "solidity": area / area_convex,
        "extent": area / ((y1 - y0) * (x1 - x0)),
        "circularity": np.minimum(4 * np.pi * area / perimeter**2, 1.0),
    }


def bounds(pixels: PixelLists) -> Floats:
    """(y0, x0, y1, x1) of each cell's own pixels within its crop, half-open, (N, 4)."""
    low_x = np.minimum.reduceat(pixels.x, pixels.starts)
    high_x = np.maximum.reduceat(pixels.x, pixels.starts) + 1
    low_y = pixels.y[pixels.starts]
    high_y = pixels.y[pixels.starts + pixels.counts - 1] + 1
    return np.stack([low_y, low_x, high_y, high_x], axis=1).astype(np.float64)


def _ellipses(pixels: PixelLists) -> dict[str, Floats]:
    """Axes, eccentricity and orientation from the second central moments."""
    y = pixels.y - pixels.means(pixels.y)[pixels.cell]
    x = pixels.x - pixels.means(pixels.x)[pixels.cell]
    yy, xx, yx = pixels.means(y * y), pixels.means(x * x), pixels.means(y * x)
    spread, lean = yy + xx, np.hypot(yy - xx, 2 * yx)
    major = (spread + lean) / 2
    minor = np.maximum((spread - lean) / 2, 0.0)
    ratio = np.divide(minor, major, out=np.ones_like(major), where=major > 0)
    angle = np.degrees(0.5 * np.arctan2(2 * yx, yy - xx))
    angle = np.where(angle <= -90, 90.0, angle)
    return {
        "axis_major_length": 4 * np.sqrt(major),
        "axis_minor_length": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(np.maximum(1 - ratio, 0.0)),
        "orientation": np.where(lean > ROUND * spread, angle, np.nan),
    }
