"""Instances and pixels become rows of the table: places, shapes, intensities, optical densities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.instances import Instances
from cellseg.protocol import Stain
from cellseg.stain.dyes import Dyes
from cellseg.stain.normalise import DARKEST, HED_FROM_RGB
from cellseg.table._columns import REGION, Scale, channel_slugs, columns, densities
from cellseg.table._shape import Floats, PixelLists, bounds, flatten, shapes

ADDED_LATER = ("label", "image", "t", "class", "object", "touches_border", "stitched", REGION)
"""Columns that only the whole run knows."""

BATCH_PX = 1_000_000
"""Box pixels that are measured at once: what keeps memory below about 200 MB."""

_LENGTHS = (
    "perimeter",
    "axis_major_length",
    "axis_minor_length",
    "feret_diameter_max",
    "equivalent_diameter_area",
)
_RATIOS = ("eccentricity", "solidity", "extent", "circularity")
_STAINS = ("hematoxylin", "eosin", "dab")


def measure(
    instances: Instances,
    pixels: NDArray[np.generic] | None,
    origin: tuple[int, int],
    *,
    scale: Scale,
    channels: Sequence[str],
    stain: Stain,
    white: float | Dyes | None = None,
) -> pd.DataFrame:
    """Measure every instance, on the slide's lattice: one row an instance, in order.

    The columns are those of :func:`columns`, in that order, but for :data:`ADDED_LATER`, which the
    run adds.

    Parameters
    ----------
    pixels : ndarray, (h, w, C), or None
        Raw values on the same lattice, covering the boxes of all instances; None without
        ``channels``. NaN and infinite values are left out of the statistics.
    origin : tuple of int
        Lattice (y, x) of ``pixels[0, 0]``.
    channels : sequence of str, length C
        Empty where intensities are not wanted.
    white : float or Dyes, optional
        Raw value of full transmission, for optical densities, or the slide's own dyes; by default
        the largest value of an integer type, and 1 for floats.
    """
    wanted = [
        column
        for column in columns(channels, stain=stain, has_mpp=scale.mpp is not None)
        if column.name not in ADDED_LATER
    ]
    parts: dict[str, list[NDArray[np.generic]]] = {column.name: [] for column in wanted}
    for batch in _batches(instances):
        lists = flatten(batch.masks)
        found = {"score": batch.scores, **_geometry(batch, lists, scale)}
        if pixels is not None and channels:
            corner = batch.boxes[:, :2] - origin
            rows, places = lists.y + corner[lists.cell, 0], lists.x + corner[lists.cell, 1]
            found |= _intensities(pixels[rows, places], lists, channels, stain, white)
        for column in wanted:
            parts[column.name].append(found[column.name])
    return pd.DataFrame(
        {
            column.name: np.concatenate([np.empty(0, column.dtype), *parts[column.name]]).astype(
                column.dtype, copy=False
            )
            for column in wanted
        }
    )


def _batches(instances: Instances) -> Iterator[Instances]:
    """The instances in runs of about :data:`BATCH_PX` box pixels."""
    boxes = instances.boxes
    sizes = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    batch = (np.cumsum(sizes) - sizes) // BATCH_PX
    first = 0
    for end in [*(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(instances)]:
        if end > first:
            yield instances if end - first == len(instances) else instances.take(range(first, end))
        first = end


def _geometry(batch: Instances, lists: PixelLists, scale: Scale) -> dict[str, NDArray[np.generic]]:
    """Place and shape, in level-0 pixels and µm."""
    step, mpp = scale.downsample, scale.mpp or np.nan
    corner = batch.boxes[:, :2]
    found: dict[str, NDArray[np.generic]] = {}
    for name, start, inside in zip("yx", corner.T, (lists.y, lists.x), strict=True):
        centre = (start + lists.means(inside) + 0.5) * step - 0.5
        found[f"centroid_{name}_px"], found[f"centroid_{name}_um"] = centre, centre * mpp
    edges = (bounds(lists) + np.tile(corner, 2).astype(np.float64)) * step
    # A hair of tolerance: 3 × 1.9999999999 is 6, not the pixel before it.
    edges[:, :2], edges[:, 2:] = np.floor(edges[:, :2] + 1e-6), np.ceil(edges[:, 2:] - 1e-6)
    for name, edge in zip(("y0", "x0", "y1", "x1"), edges.T, strict=True):
        found[f"bbox_{name}_px"] = edge.astype(np.int64)
    shape = shapes(lists)
    found["area_px"] = shape["area"] * step**2
    found["area_um2"] = shape["area"] * step**2 * mpp**2
    for name in _LENGTHS:
        found[f"{name}_px"] = shape[name] * step
        found[f"{name}_um"] = shape[name] * step * mpp
    found |= {name: shape[name] for name in _RATIOS}
    found["orientation_deg"] = shape["orientation"]
    return found


def _intensities(
    values: NDArray[np.generic],
    lists: PixelLists,
    channels: Sequence[str],
    stain: Stain,
    white: float | Dyes | None,
) -> dict[str, NDArray[np.generic]]:
    found: dict[str, NDArray[np.generic]] = {}
    for slug, channel in zip(channel_slugs(channels), values.T, strict=True):
        for name, numbers in statistics(channel, lists).items():
            found[f"intensity_{name}_{slug}"] = numbers
    stains = densities(channels, stain=stain)
    if stains:
        full = white_of(values.dtype) if white is None else white
        means = stain_densities(values, lists, stains, white=full)
        found |= {f"{name}_od_mean": mean for name, mean in means.items()}
    return found


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
    """Mean optical density over each cell of ``hematoxylin``, ``eosin``, ``dab``, or some of them.

    ``rgb``, (M, 3), are raw red, green and blue of each pixel; pixels with a NaN are left out.
    ``white`` is the raw value of full transmission, or the slide's own dyes with their white.

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
