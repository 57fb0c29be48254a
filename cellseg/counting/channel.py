"""Which channel is counted: the wanted one, or the one that shows nuclei, by name or by pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from cellseg.errors import Notice, SettingsError
from cellseg.slide import Slide, numbered
from cellseg.stain.stain import guess_stain

NUCLEAR_NAMES = ("dapi", "hoechst", "draq", "dna", "nucle", "nuclei", "sytox", "topro", "h2b")

Patches = Sequence[NDArray[np.generic]]

SMALLEST_PX = 30
"""Of what may be a nucleus; specks are smaller."""

COMPACT = 0.85
"""An ellipse has 1, two touching ones 0.9; rings, membranes and heaps have less."""

SLENDER = 0.3
"""Width over length of the slenderest nucleus."""

LEAST_SCORE = 0.5
"""Of :func:`nuclear_score`, for a channel that may show nuclei: one, among as much else."""


def choose_channels(
    slide: Slide, look: Callable[[], Patches], wanted: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """The channel that shows what is counted, or all three of a colour slide.

    Parameters
    ----------
    look : callable
        Gives what :func:`cellseg.counting.sample.sample` does; asked only where names do not tell.
    wanted : str or None
        A number as ``cellseg info`` prints it, or a name; None: open.

    Returns
    -------
    tuple of int
    list of str
        What was chosen, why, and how to take another; empty where there was no choice.

    Raises
    ------
    SettingsError
        If there is no such channel.
    """
    names = slide.channels
    if wanted is not None:
        return (_wanted(slide, wanted),), []
    if slide.is_rgb:
        return (0, 1, 2), []
    if len(names) == 1:
        return (0,), []
    by_name = [k for k, name in enumerate(names) if any(h in name.lower() for h in NUCLEAR_NAMES)]
    if by_name:
        chosen, why = by_name[0], "by its name"
    else:
        scores = _scores(look(), len(names))
        chosen = int(np.argmax(scores))
        why = "as it shows nuclei: compact, bright on a dark ground"
        if scores[chosen] < LEAST_SCORE:
            chosen, why = 0, "the first, as neither names nor pixels tell which shows nuclei"
    one, several = numbered(names)[chosen], ", ".join(numbered(names))
    counted = f"channel {one.removeprefix('channel ')} is counted, {why}; there are: {several}"
    return (chosen,), [Notice(counted, hint="channel")]


def _wanted(slide: Slide, wanted: str) -> int:
    names = slide.channels
    # A number first: a file's names may be numbers of their own.
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    if wanted in names:
        return names.index(wanted)
    alike = [number for number, name in enumerate(names) if name.lower() == wanted.lower()]
    if len(alike) == 1:
        return alike[0]
    raise SettingsError(
        f"{slide.path}: no channel {wanted!r}; there are: {', '.join(numbered(names))}",
        hint="channel",
    )


def _scores(patches: Patches, count: int) -> list[float]:
    """Of each channel; those without a dark ground have none."""
    found = []
    for number in range(count):
        one = [patch[..., number] for patch in patches]
        dark = guess_stain([patch[..., None] for patch in one]).protocol == "fluorescence"
        found.append(nuclear_score(one) if dark else 0.0)
    return found


def nuclear_score(pixels: Patches) -> float:
    """How much a channel looks like nuclei.

    Parameters
    ----------
    pixels : sequence of ndarray, (H, W)
        Patches of one channel, from :func:`cellseg.counting.sample.sample`.

    Returns
    -------
    float
        The number of bright, compact objects, times their share of all that is bright.
    """
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
