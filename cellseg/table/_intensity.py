"""Intensities and stains' optical densities of many cells at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.stain.dyes import Dyes
from cellseg.stain.normalise import DARKEST, HED_FROM_RGB
from cellseg.table._pixels import Floats, PixelLists

_STAINS = ("hematoxylin", "eosin", "dab")


def statistics(values: NDArray[np.generic], pixels: PixelLists) -> dict[str, Floats]:
    """``mean``, ``std`` (divisor n), ``min`` and ``max`` of each cell, float64, (N,).

    ``values``, (M,), are one a pixel. NaN and infinities are left out; a cell of nothing else gives
    NaN.
    """
    finite = np.isfinite(values)
    known = np.where(finite, values, 0).astype(np.float64)
    count = pixels.sums(finite.astype(np.int64))
    count[count == 0] = np.nan
    mean, empty = pixels.sums(known) / count, np.isnan(count)
    off = np.where(finite, known - mean[pixels.cell], 0.0)
    low = np.minimum.reduceat(np.where(finite, known, np.inf), pixels.starts)
    high = np.maximum.reduceat(np.where(finite, known, -np.inf), pixels.starts)
    return {
        "mean": mean,
        "std": np.sqrt(pixels.sums(off * off) / count),
        "min": np.where(empty, np.nan, low),
        "max": np.where(empty, np.nan, high),
    }


def white_of(dtype: np.dtype[Any]) -> float:
    """Full transmission: the largest integer of the type, 1 for floats."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def stain_densities(
    rgb: NDArray[np.generic], pixels: PixelLists, stains: Sequence[str], *, white: float | Dyes
) -> dict[str, Floats]:
    """Mean optical density of stains over each cell.

    Parameters
    ----------
    rgb : ndarray, (M, 3)
        Raw red, green and blue of each pixel. Pixels with a NaN are left out.
    stains : sequence of str
        Some of ``hematoxylin``, ``eosin``, ``dab``.
    white : float or Dyes
        The raw value of full transmission; or the slide's own dyes with their white.

    Notes
    -----
    Optical density is −log₁₀(value / white), between 0 and 2.41. It is unmixed into
    haematoxylin, eosin and DAB with the vectors of Ruifrok and Johnston [1]_
    (:data:`~cellseg.stain.normalise.HED_FROM_RGB`). Unmixing is linear and negative amounts are
    kept, so the mean of the cell's pixels has no bias towards stains that are not there.

    References
    ----------
    .. [1] A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Anal. Quant. Cytol. Histol. 23(4), 2001, 291-299.
    """
    mixed = [statistics(channel, pixels)["mean"] for channel in optical_densities(rgb, white).T]
    return unmixed(np.stack(mixed, axis=1), stains, white)


def optical_densities(rgb: NDArray[np.generic], white: float | Dyes) -> Floats:
    """Optical density of red, green and blue, (M, 3); NaN for pixels that lack one."""
    whites = white.white if isinstance(white, Dyes) else (white,) * 3
    found = np.empty(rgb.shape, np.float64)
    for number, full in enumerate(whites):
        found[:, number] = _density(rgb[:, number], full)
    if np.issubdtype(rgb.dtype, np.floating):
        found[~np.isfinite(rgb).all(axis=1)] = np.nan
    return found


def unmixed(mixed: Floats, stains: Sequence[str], white: float | Dyes) -> dict[str, Floats]:
    """Densities of red, green and blue, (N, 3), as amounts of the stains, (N,) each."""
    if isinstance(white, Dyes):
        return white.unmixed(mixed)
    amounts = mixed @ HED_FROM_RGB
    return {stain: amounts[:, _STAINS.index(stain)] for stain in stains}


def dab_density(rgb: NDArray[np.generic], white: float | Dyes | None) -> Floats:
    """Optical density of DAB in each pixel of an (H, W, 3) picture, (H, W)."""
    full = white or white_of(rgb.dtype)
    return unmixed(optical_densities(rgb.reshape(-1, 3), full), ("dab",), full)["dab"].reshape(
        rgb.shape[:2]
    )


def _density(values: NDArray[np.generic], white: float) -> Floats:
    if not (math.isfinite(white) and white > 0):
        raise ValueError(f"expected a white above 0, got {white}")
    if values.dtype in (np.uint8, np.uint16):
        levels = np.arange(white_of(values.dtype) + 1) / white
        table = -np.log10(np.clip(levels, DARKEST, 1.0))
        return np.asarray(table[values], dtype=np.float64)
    scaled = np.clip(values.astype(np.float64) / white, DARKEST, 1.0)
    return np.asarray(-np.log10(scaled), dtype=np.float64)
