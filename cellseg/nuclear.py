"""Which channel of a fluorescence slide shows nuclei: compact, and bright on dark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

SMALLEST_PX = 30
"""Of what may be a nucleus; specks are smaller."""

COMPACT = 0.85
"""An ellipse has 1, two touching ones 0.9; rings, membranes and heaps have less."""

SLENDER = 0.3
"""Width over length of the slenderest nucleus."""


def nuclear_score(pixels: Sequence[NDArray[np.generic]]) -> float:
    """How much a channel looks like nuclei.

    Parameters
    ----------
    pixels : sequence of ndarray, (H, W)
        Patches of one channel, from :func:`cellseg.sample.sample`.

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
    limit = threshold_otsu(np.clip(values, low, high))
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
