"""Whole-cell assays, told by the shapes of what stands out of the ground.

Blood is round bodies of one size on flat glass; a counting chamber has few round cells on a flat
grey ground; in phase contrast cells are many and of every shape. Nuclei look like none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import remove_small_holes
from skimage.segmentation import watershed

Floats = NDArray[np.float64]

FLAT = 0.2
"""Spread of the glass beside red cells, of their density: 0.2 at most in nearly every smear."""

VIOLET_PER_GREEN = 0.38
"""Optical densities of red cells have at least this ratio; of haematoxylin alone 0.25."""

COVERED = 0.75  # Most of a smear that cells cover; muscle with clefts has more.
BODIES, BODY_PX, BODY_DIAMETER_PX = 4, 80, (20.0, 70.0)
"""Fewest round bodies, their smallest area, and what their median has across, of a sample."""

ROUND_BODIES, ALIKE_SHARE, ALIKE = 0.45, 0.15, 1.8
"""The share of whole bodies that is round, and of all that is stained the share of those whose area
is the median's up to a factor. With these limits none of 848 fields of tissue is a smear."""

CELL_PX = 60
SPAN = 0.6  # A thing that spans this share of the picture is a line of the chamber, or an edge.
ROUND_SHARE, SHAPED_SHARE, SHAPED = 0.45, 0.25, 15
"""Of what stands out of a grey ground, the area of round things: more is a chamber, less, with so
many things in all, cells in culture. T98G cells have 0.21 at most."""

BOTH_SIDES = 0.3
"""Cells in a chamber have a bright middle in a dark rim: the weaker of both differences from the
ground is at least this much of the other."""


def is_blood(patches: Sequence[Floats]) -> bool:
    """Whether coloured patches (H, W, 3) show a smear: on flat glass round bodies of one size."""
    bodies, flat, violet = [], [], []
    for patch in patches:
        smooth = ndimage.gaussian_filter(patch, (1, 1, 0))
        green = smooth[..., 1]
        try:
            _, pale = threshold_multiotsu(green, 3, nbins=128)  # type: ignore[no-untyped-call]
        except ValueError:  # fewer shades than classes
            continue
        glass = np.maximum(np.median(smooth[green >= pale], axis=0), 1e-6)
        density = -np.log10(np.clip(smooth / glass, 1 / 255, None))
        usual = float(np.median(density[green < pale, 1]))
        body = ndimage.binary_fill_holes(density[..., 1] > usual / 2)
        body = ndimage.binary_opening(body, iterations=2)
        core = ndimage.binary_erosion(body, iterations=2)
        ground = ndimage.binary_erosion(~body, iterations=3)
        bodies.append(body)
        if core.any() and ground.any():
            flat.append(float(density[ground, 1].std()) / usual)
            violet.append(float(np.median(density[core, 2]) / np.median(density[core, 1])))
    if not flat or np.median(flat) > FLAT or np.median(violet) < VIOLET_PER_GREEN:
        return False
    whole, areas = 0.0, []
    for one, shape in ((one, body.shape) for body in bodies for one in _split(body)):
        y0, x0, y1, x1 = one.bbox
        if y0 == 0 or x0 == 0 or y1 == shape[0] or x1 == shape[1]:
            continue  # cut
        whole += one.area
        if one.area >= BODY_PX and one.solidity > 0.9 and one.eccentricity < 0.8:
            areas.append(float(one.area))
    if len(areas) < BODIES or sum(areas) < ROUND_BODIES * whole:
        return False
    stained, usual = sum(int(body.sum()) for body in bodies), float(np.median(areas))
    alike = sum(area for area in areas if usual / ALIKE < area < usual * ALIKE)
    low, high = BODY_DIAMETER_PX
    return bool(
        alike >= ALIKE_SHARE * stained
        and stained <= COVERED * sum(body.size for body in bodies)
        and low <= 2 * np.sqrt(usual / np.pi) <= high
    )


def _split(body: NDArray[np.bool_]) -> list[Any]:
    """Properties of bodies, those that touch cut apart at their waists."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(body), 1)
    tops = peak_local_max(depth, min_distance=5, labels=label(body), exclude_border=False)  # type: ignore[no-untyped-call]
    markers = np.zeros(body.shape, dtype=np.int32)
    markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    pieces = watershed(-depth, markers, mask=body)  # type: ignore[no-untyped-call]
    return list(regionprops(pieces))  # type: ignore[no-untyped-call]


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
