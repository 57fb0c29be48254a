"""Sample of a slide, taken before anything is decided: all of a field, patches of a slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import RegionError
from cellseg.geometry import Box
from cellseg.slide import Slide

SAMPLE_MPP = 0.5
"""µm per pixel at which stains and nuclei are told apart: a nucleus is 10 to 20 px wide."""

WHOLE_PX = 1024
"""A slide of at most this side, at that scale, is looked at whole."""

PATCH_PX, PATCHES = 256, 12

STRUCTURED = 0.25
"""Patches vary at least this share of what the liveliest ones do: there is something to see."""


def sample(slide: Slide) -> list[NDArray[np.generic]]:
    """Pixels of a slide at a scale that shows single nuclei, every channel.

    Parameters
    ----------
    slide : Slide
        Without a pixel size every second pixel is averaged with its neighbour; scans of nuclei
        have 0.2 to 0.5 µm per pixel.

    Returns
    -------
    list of ndarray, (H, W, C), the slide's dtype
        The whole slide, or patches from all over what is on it. Parts that do not decode are
        left out; where nothing else is left, the overview.

    Raises
    ------
    RegionError
        If nothing of the slide can be read.
    """
    downsample = 2.0 if slide.mpp is None else max(1.0, SAMPLE_MPP / slide.mpp)
    if slide.mpp is None and min(slide.height, slide.width) < PATCH_PX:
        downsample = 1.0
    height, width = slide.lattice_shape(downsample)
    if max(height, width) <= WHOLE_PX:
        return [slide.overview(max(height, width))[0]]
    overview, step = slide.overview()
    patches = []
    for box in _lively(overview, PATCH_PX * downsample / step, (height, width)):
        try:
            patches.append(slide.read(box, downsample=downsample))
        except RegionError:
            continue
    return patches or [overview]


def _lively(overview: NDArray[np.generic], side: float, shape: tuple[int, int]) -> list[Box]:
    """Patches that hold something, evenly from the faintest to the strongest of them.

    Parameters
    ----------
    overview : ndarray, (h, w, C)
    side : float
        Of a patch, overview pixels.
    shape : (int, int)
        Of the slide, in pixels of the sample.
    """
    values = np.nan_to_num(np.asarray(overview, dtype=np.float32))
    values = np.abs(values - np.median(values, axis=(0, 1)))
    values = (values / np.maximum(values.mean(axis=(0, 1)), 1e-6)).mean(axis=-1)
    found = []
    for y in range(0, shape[0], PATCH_PX):
        for x in range(0, shape[1], PATCH_PX):
            top, left = int(y / PATCH_PX * side), int(x / PATCH_PX * side)
            part = values[top : int(top + side) + 1, left : int(left + side) + 1]
            box = Box(y, x, min(y + PATCH_PX, shape[0]), min(x + PATCH_PX, shape[1]))
            found.append((float(part.mean()), box))
    found.sort(key=lambda one: one[0])
    liveliest = found[-max(1, len(found) // 50)][0]
    kept = [box for much, box in found if much >= STRUCTURED * liveliest]
    places = np.linspace(0, len(kept) - 1, min(PATCHES, len(kept)))
    return [kept[round(place)] for place in places.tolist()]
