"""A look at a slide before anything is decided, and which of its channels shows nuclei."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from cellseg.errors import Notice, RegionError
from cellseg.geometry import Box
from cellseg.slide import Slide, numbered
from cellseg.stain.stain import guess_stain

NUCLEAR_NAMES = ("dapi", "hoechst", "draq", "dna", "nucle", "nuclei", "sytox", "topro", "h2b")

Patches = Sequence[NDArray[np.generic]]

SAMPLE_MPP = 0.5
"""µm per pixel at which stains and nuclei are told apart: a nucleus is 10 to 20 px wide."""

WHOLE_PX = 1024
"""A slide of at most this side, at that scale, is looked at whole."""

PATCH_PX, PATCHES = 256, 12

STRUCTURED = 0.25
"""Patches vary at least this share of what the liveliest ones do: there is something to see."""

SMALLEST_PX = 30
"""Of what may be a nucleus; specks are smaller."""

COMPACT = 0.85
"""An ellipse has 1, two touching ones 0.9; rings, membranes and heaps have less."""

SLENDER = 0.3
"""Width over length of the slenderest nucleus."""

LEAST_SCORE = 0.5
"""Of :func:`nuclear_score`, for a channel that may show nuclei: one, among as much else."""


def sample(slide: Slide, mpp: float = SAMPLE_MPP) -> list[NDArray[np.generic]]:
    """Pixels of a slide at a scale that shows single nuclei, each (H, W, C), the slide's dtype.

    That is the whole slide, or patches from all over what is on it. Parts that do not decode are
    left out; where nothing else is left, the overview. Without a pixel size every second pixel is
    averaged with its neighbour; scans of nuclei have 0.2 to 0.5 µm per pixel.

    RegionError if nothing of the slide can be read.
    """
    downsample = 2.0 if slide.mpp is None else max(1.0, mpp / slide.mpp)
    if slide.mpp is None and min(slide.height, slide.width) < PATCH_PX:
        downsample = 1.0
    height, width = slide.lattice_shape(downsample)
    if max(height, width) <= WHOLE_PX:
        return [slide.overview(max(height, width))[0]]
    overview, step = slide.overview()
    patches = []
    for box in _lively(overview, PATCH_PX * downsample / step, (height, width)):
        with suppress(RegionError):
            patches.append(slide.read(box, downsample=downsample))
    return patches or [overview]


def _lively(overview: NDArray[np.generic], side: float, shape: tuple[int, int]) -> list[Box]:
    """Patches that hold something, evenly from the faintest to the strongest of them.

    ``side`` is that of a patch in overview pixels, ``shape`` the slide's in pixels of the sample.
    """
    values = np.nan_to_num(np.asarray(overview, dtype=np.float32))
    values = np.abs(values - np.median(values, axis=(0, 1)))
    values = (values / np.maximum(values.mean(axis=(0, 1)), 1e-6)).mean(axis=-1)
    found = []
    for box in Box(0, 0, *shape).parts(PATCH_PX):
        top, left = int(box.y0 / PATCH_PX * side), int(box.x0 / PATCH_PX * side)
        part = values[top : int(top + side) + 1, left : int(left + side) + 1]
        found.append((float(part.mean()), box))
    found.sort(key=lambda one: one[0])
    liveliest = found[-max(1, len(found) // 50)][0]
    kept = [box for much, box in found if much >= STRUCTURED * liveliest]
    places = np.linspace(0, len(kept) - 1, min(PATCHES, len(kept)))
    return [kept[round(place)] for place in places.tolist()]


def choose_channels(
    slide: Slide, look: Callable[[], Patches], wanted: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """The channel that shows what is counted, or all three of a colour slide; and why.

    SettingsError if there is no such channel.

    ``wanted`` is a number as ``cellseg info`` prints it, or a name. ``look`` gives what
    :func:`sample` does, and is asked only where names do not tell.
    """
    names = slide.channels
    if wanted is not None:
        return (slide.channel_number(wanted),), []
    if slide.is_rgb:
        return (0, 1, 2), []
    if len(names) == 1:
        return (0,), []
    by_name = [k for k, name in enumerate(names) if any(h in name.lower() for h in NUCLEAR_NAMES)]
    if by_name:
        chosen, why = by_name[0], "by its name"
    else:
        patches = look()
        scores = [
            nuclear_score([patch[..., number] for patch in patches]) for number in range(len(names))
        ]
        chosen = int(np.argmax(scores))
        why = "as it shows nuclei: compact, bright on a dark ground"
        if scores[chosen] < LEAST_SCORE:
            chosen, why = 0, "the first, as neither names nor pixels tell which shows nuclei"
    one, several = numbered(names)[chosen], ", ".join(numbered(names))
    counted = f"channel {one.removeprefix('channel ')} is counted, {why}; there are: {several}"
    return (chosen,), [Notice(counted, hint="channel")]


def nuclear_score(pixels: Patches) -> float:
    """How much a channel, patches (H, W) of :func:`sample`, looks like nuclei.

    That is the number of bright, compact objects, times their share of all that is bright; 0
    without a dark ground.
    """
    if guess_stain([patch[..., None] for patch in pixels]).protocol != "fluorescence":
        return 0.0
    smooth = [
        ndimage.gaussian_filter(np.nan_to_num(np.asarray(patch, dtype=np.float32)), 1)
        for patch in pixels
    ]
    values = np.concatenate([patch.ravel() for patch in smooth])
    low, high = np.percentile(values, [1, 99.8])
    if not high > low:
        return 0.0
    limit = float(threshold_otsu(np.clip(values, low, high)))  # type: ignore[no-untyped-call]
    found = bright = compact = 0.0
    for patch in smooth:
        areas, good = _objects(patch > limit)
        bright += areas.sum()
        compact += areas[good].sum()
        found += good.sum()
    return float(found * compact / bright) if bright else 0.0


def _objects(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Area of each object, and whether it fills the ellipse that has its second moments."""
    labels, count = ndimage.label(mask)
    y, x = np.nonzero(mask)
    place = labels[mask] - 1

    def mean(of: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.bincount(place, of, minlength=count) / areas

    areas = np.bincount(place, minlength=count).astype(np.float64)
    yy = mean(y * y) - mean(y) ** 2 + 1 / 12
    xx = mean(x * x) - mean(x) ** 2 + 1 / 12
    xy = mean(x * y) - mean(x) * mean(y)
    # Of the covariance: the product and half the sum of its eigenvalues.
    product, half = np.maximum(yy * xx - xy**2, 1e-9), (yy + xx) / 2
    spread = np.sqrt(np.maximum(half**2 - product, 0))
    filled = areas / (4 * np.pi * np.sqrt(product)) >= COMPACT
    wide = (half - spread) >= SLENDER**2 * (half + spread)
    return areas, filled & wide & (areas >= SMALLEST_PX)
