"""Whole-cell assays, told by the shapes of what stands out of the ground.

Blood is round, pale bodies on clear glass; a counting chamber has few round cells on a flat grey
ground; in phase contrast cells are many and of every shape. Nuclei look like none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import remove_small_holes

Floats = NDArray[np.float64]

BODY_PX, BODY_DIAMETER_PX = 150, 24.0
"""Smallest area of a body in a smear, and what the median body has across, pixels of a sample."""

BODIES, BODY_SHARE = 2, 0.08
"""Round pale bodies, and their share of all that is stained. Of 251 fields of stained tissue none
reaches both with such a size and colour."""

VIOLET_PER_GREEN = 0.45
"""Optical densities of red cells have at least this ratio; of haematoxylin alone 0.25."""

CELL_PX = 60
SPAN = 0.6  # A thing that spans this share of the picture is a line of the chamber, or an edge.
ROUND_SHARE, SHAPED_SHARE, SHAPED = 0.45, 0.25, 15
"""Of what stands out of a grey ground, the area of round things: more is a chamber, less, with so
many things in all, cells in culture. T98G cells have 0.21 at most."""

BOTH_SIDES = 0.3
"""Cells in a chamber have a bright middle in a dark rim: the weaker of both differences from the
ground is at least this much of the other."""


def is_blood(patches: Sequence[Floats]) -> bool:
    """Whether coloured patches (H, W, 3) show a blood smear."""
    area, share, diameters, violet = 0, 0.0, [], []
    for patch in patches:
        green = ndimage.gaussian_filter(patch[..., 1], 1)
        try:
            dark, pale = threshold_multiotsu(green, 3, nbins=128)  # type: ignore[no-untyped-call]
        except ValueError:  # fewer shades than classes
            continue
        body = ndimage.binary_opening(ndimage.binary_fill_holes(green < pale), iterations=2)
        area += int(body.sum())
        if body.all() or not body.any():
            continue
        ground = np.maximum(np.median(patch[~body], axis=0), 1e-6)
        numbers = label(body)  # type: ignore[no-untyped-call]
        for one in regionprops(numbers):  # type: ignore[no-untyped-call]
            if one.area < BODY_PX or _is_cut(one.bbox, body.shape) or not _is_round(one):
                continue
            inside = numbers[one.slice] == one.label
            if (green[one.slice][inside] < dark).mean() >= 0.5:  # a nucleus, or a white cell
                continue
            colour = np.median(patch[one.slice][inside], axis=0)
            density = -np.log10(np.clip(colour / ground, 1 / 255, 1))
            share += one.area
            diameters.append(one.equivalent_diameter_area)
            violet.append(density[2] / max(density[1], 1e-3))
    return (
        len(diameters) >= BODIES
        and share >= BODY_SHARE * area
        and float(np.median(diameters)) >= BODY_DIAMETER_PX
        and float(np.median(violet)) >= VIOLET_PER_GREEN
    )


def grey_assay(patches: Sequence[Floats]) -> Literal["counting_chamber", "phase_contrast"] | None:
    """What grey patches (H, W) show: round cells on a flat ground, many of every shape, neither."""
    areas: list[float] = []
    rounded: list[float] = []
    bright, up, down = 0, 0.0, 0.0  # Round things with a bright middle; extremes from the ground.
    for patch in patches:
        difference = _from_ground(patch)
        noise = 1.48 * float(np.median(np.abs(difference)))
        low, high = (float(v) for v in np.percentile(difference, [0.1, 99.9]))
        up, down = max(up, high), max(down, -low)
        limit = max(6 * noise, 0.12 * max(high, -low))
        out = ndimage.binary_closing(np.abs(difference) > limit, iterations=2)
        out = ndimage.binary_opening(remove_small_holes(out, max_size=2000))
        for one in regionprops(label(out)):  # type: ignore[no-untyped-call]
            y0, x0, y1, x1 = one.bbox
            if one.area < CELL_PX or max(y1 - y0, x1 - x0) > SPAN * min(out.shape):
                continue
            areas.append(float(one.area))
            if one.solidity > 0.9 and one.eccentricity < 0.8:
                rounded.append(float(one.area))
                inside = np.pad(one.image, 1)
                depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
                values, core = difference[one.slice], depth > 0.5 * depth.max()
                bright += bool(values[core].mean() > values[one.image & ~core].mean())
    round_share = sum(rounded) / max(sum(areas), 1.0)
    both = min(up, down) >= BOTH_SIDES * max(up, down)
    are_cells = len(rounded) >= min(2, len(areas)) and 2 * bright > len(rounded)
    if both and are_cells and round_share >= ROUND_SHARE:
        return "counting_chamber"
    is_culture = len(areas) >= SHAPED and round_share <= SHAPED_SHARE
    return "phase_contrast" if is_culture else None


def _from_ground(patch: Floats) -> Floats:
    """A smoothed picture less its ground, the median of wide surroundings."""
    smooth = ndimage.gaussian_filter(patch, 1)
    coarse = ndimage.median_filter(smooth[::4, ::4], 25)
    rows, columns = (
        np.minimum(np.arange(side) // 4, small - 1)
        for side, small in zip(smooth.shape, coarse.shape, strict=True)
    )
    return np.asarray(smooth - coarse[np.ix_(rows, columns)])


def _is_cut(bbox: tuple[int, int, int, int], shape: tuple[int, ...]) -> bool:
    y0, x0, y1, x1 = bbox
    return y0 == 0 or x0 == 0 or y1 == shape[0] or x1 == shape[1]


def _is_round(one: Any) -> bool:  # noqa: ANN401 - scikit-image's properties of a region
    circularity = 4 * np.pi * one.area / max(one.perimeter, 1.0) ** 2
    return bool(one.solidity > 0.93 and one.eccentricity < 0.75 and circularity > 0.75)
