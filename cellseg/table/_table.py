"""The columns of ``cells.csv``, and how instances and pixels become its rows."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Frame
from cellseg.instances import Instances
from cellseg.protocol import Stain
from cellseg.stain.dyes import Dyes
from cellseg.stain.normalise import DARKEST, HED_FROM_RGB
from cellseg.table._shape import Floats, PixelLists, bounds, flatten, shapes

REGION = "region"
"""Name of the column that says in which regions a cell lies."""

RGB = ("red", "green", "blue")
"""The channels from which stains can be told apart."""

ADDED_LATER = ("label", "image", "t", "class", "object", "touches_border", "stitched", REGION)
"""Columns that only the whole run knows."""

BATCH_PX = 200_000
"""Box pixels that are measured at once: what is known of them stays in the processor's cache."""

_LENGTHS = (
    "perimeter",
    "axis_major_length",
    "axis_minor_length",
    "feret_diameter_max",
    "equivalent_diameter_area",
)
_RATIOS = ("eccentricity", "solidity", "extent", "circularity")
_STAINS = ("hematoxylin", "eosin", "dab")


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    name: str
    unit: str  # px (level 0), px², µm, µm², deg, OD, raw (the slide's own intensities), or empty.
    dtype: str  # As pandas calls it: int64, float32, float64, str or bool.
    meaning: str  # One sentence, with the formula where there is one.


def columns(
    channels: Sequence[str],
    *,
    stain: Stain,
    has_mpp: bool,
    has_regions: bool = False,
    has_t: bool = False,
) -> tuple[Column, ...]:
    """All columns of ``cells.csv``, in order.

    There are no ``channels`` where intensities are not measured; red, green and blue ones of ``he``
    and ``ihc`` also give stains' optical densities. Without a pixel size the columns in µm and µm²
    are left out. With ``has_regions`` the last column names the regions that hold the cell;
    ``has_t``: one time point of several was asked for.
    """
    found = (
        *_FIRST,
        *(column for slug in channel_slugs(channels) for column in _intensity(slug)),
        *(_mean_density(name) for name in densities(channels, stain=stain)),
        *_LAST,
    )
    left_out = {"t": not has_t, REGION: not has_regions}
    return tuple(
        column
        for column in found
        if not left_out.get(column.name) and (has_mpp or not column.unit.startswith("µm"))
    )


def densities(channels: Sequence[str], *, stain: Stain) -> tuple[str, ...]:
    """Names of the stains whose optical density is measured, none for unstained slides."""
    if channel_slugs(channels) != RGB:
        return ()
    if stain == "he":
        return ("hematoxylin", "eosin")
    return ("hematoxylin", "dab") if stain == "ihc" else ()


def channel_slugs(channels: Sequence[str], *, unnamed: str = "channel") -> tuple[str, ...]:
    """Channel names as they stand in column names: only ``a-z``, ``0-9`` and ``_``, no two alike.

    >>> channel_slugs(["DAPI", "Alexa Fluor 488", "dapi", "µ"])
    ('dapi', 'alexa_fluor_488', 'dapi_2', 'channel_3')
    """
    slugs: list[str] = []
    for number, channel in enumerate(channels):
        ascii_only = unicodedata.normalize("NFKD", channel).encode("ascii", "ignore").decode()
        base = re.sub("[^a-z0-9]+", "_", ascii_only.lower()).strip("_") or f"{unnamed}_{number}"
        slug, repeat = base, 1
        while slug in slugs:
            repeat += 1
            slug = f"{base}_{repeat}"
        slugs.append(slug)
    return tuple(slugs)


def _lengths(name: str, meaning: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_px", "px", "float64", meaning),
        Column(f"{name}_um", "µm", "float64", meaning),
    )


_FIRST = (
    Column("label", "", "int64", "The cell's number in `labels.ome.zarr`, from 1."),
    Column("image", "", "str", "Name of the image's file."),
    Column("t", "", "int64", "The image's time point, from 0, where one was asked for."),
    Column("class", "", "str", "The cell's type, by the model."),
    Column("object", "", "str", "What the model outlines: `nucleus` or `cell`."),
    Column("score", "", "float32", "How sure the model is of the cell and its outline, 0 … 1."),
    Column("centroid_y_px", "px", "float64", "Mean row of the mask; pixel centres are integers."),
    Column("centroid_x_px", "px", "float64", "Mean column of the mask."),
    Column("centroid_y_um", "µm", "float64", "`centroid_y_px` × µm per pixel."),
    Column("centroid_x_um", "µm", "float64", "`centroid_x_px` × µm per pixel."),
    Column("bbox_y0_px", "px", "int64", "First row of the box around the mask."),
    Column("bbox_x0_px", "px", "int64", "First column of the box."),
    Column("bbox_y1_px", "px", "int64", "One past the last row of the box."),
    Column("bbox_x1_px", "px", "int64", "One past the last column of the box."),
    Column("area_px", "px²", "float64", "Area A of the mask, holes left out, in level-0 pixels."),
    Column("area_um2", "µm²", "float64", "Area of the mask, holes left out."),
    *_lengths("perimeter", "Length P of the outline and of holes: Crofton, 4 directions."),
    *_lengths("axis_major_length", "Long axis of the ellipse with the mask's second moments."),
    *_lengths("axis_minor_length", "Short axis of that ellipse."),
    *_lengths("feret_diameter_max", "Largest distance between two points of the outline."),
    *_lengths("equivalent_diameter_area", "Diameter of the disc of the same area: √(4A/π)."),
    Column("eccentricity", "", "float64", "√(1 − (minor/major)²) of the axes: 0 round, 1 a line."),
    Column("solidity", "", "float64", "Area over the area of the convex hull's pixels."),
    Column("extent", "", "float64", "Area over the area of the box."),
    Column("circularity", "", "float64", "4πA/P², at most 1: 1 a disc."),
    Column(
        "orientation_deg",
        "deg",
        "float64",
        "From the downward direction to the long axis, counter-clockwise on the screen, "
        "−90 (excluded) … 90; empty where no axis is longer.",
    ),
)

_LAST = (
    Column("touches_border", "", "bool", "The cell touches the slide's own edge."),
    Column("stitched", "", "bool", "The cell was joined from the parts that several tiles saw."),
    Column(
        REGION,
        "",
        "str",
        "Names of all regions that hold the cell's centroid, joined by `; `; empty where a "
        "corrected cell lies in none.",
    ),
)


def _intensity(slug: str) -> tuple[Column, ...]:
    of = f"of channel `{slug}` over the mask"
    return (
        Column(f"intensity_mean_{slug}", "raw", "float64", f"Mean {of}."),
        Column(f"intensity_std_{slug}", "raw", "float64", f"Standard deviation {of} (divisor n)."),
        Column(f"intensity_min_{slug}", "raw", "float64", f"Smallest value {of}."),
        Column(f"intensity_max_{slug}", "raw", "float64", f"Largest value {of}."),
    )


def _mean_density(stain: str) -> Column:
    person = {"hematoxylin": "haematoxylin", "eosin": "eosin", "dab": "DAB"}[stain]
    meaning = f"Mean optical density (log₁₀) of {person} over the mask."
    return Column(f"{stain}_od_mean", "OD", "float64", meaning)


def measure(
    instances: Instances,
    pixels: NDArray[np.generic] | None,
    origin: tuple[int, int],
    *,
    frame: Frame,
    channels: Sequence[str],
    stain: Stain,
    white: float | Dyes | None = None,
    scaled: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Measure every instance, on the slide's lattice: columns by name, (N,) each.

    They are those of :func:`columns`, in that order, but for :data:`ADDED_LATER`, which the
    run adds. With ``scaled`` the last is ``spread``: the largest standard deviation of a channel.

    Parameters
    ----------
    pixels : ndarray, (h, w, C), or None
        Raw values on the same lattice, covering the boxes of all instances; None where neither
        ``channels`` nor ``scaled`` are given. NaN and infinite values are left out.
    origin : tuple of int
        Lattice (y, x) of ``pixels[0, 0]``.
    channels : sequence of str, length C
        Empty where intensities are not wanted.
    white : float or Dyes, optional
        Raw value of full transmission, for optical densities, or the slide's own dyes; by default
        the largest value of an integer type, and 1 for floats.
    scaled : callable, optional
        Puts raw values, (1, M, C), on the intensity scale of the run.
    """
    wanted = [
        column
        for column in columns(channels, stain=stain, has_mpp=frame.mpp is not None)
        if column.name not in ADDED_LATER
    ]
    if scaled is not None:
        wanted.append(Column("spread", "", "float64", ""))
    parts: dict[str, list[NDArray[np.generic]]] = {column.name: [] for column in wanted}
    for batch in _batches(instances):
        lists = flatten(batch.masks)
        found = {"score": batch.scores, **_geometry(batch, lists, frame)}
        if pixels is not None:
            values = _inside(batch, lists, pixels, origin)
            found |= _intensities(values, lists, channels, stain, white) if channels else {}
            if scaled is not None:
                found["spread"] = np.max([_std(one, lists) for one in scaled(values[None])[0].T], 0)
        for column in wanted:
            parts[column.name].append(found[column.name])
    return {
        column.name: np.concatenate([np.empty(0, column.dtype), *parts[column.name]]).astype(
            column.dtype, copy=False
        )
        for column in wanted
    }


def _inside(
    cells: Instances, lists: PixelLists, pixels: NDArray[np.generic], origin: tuple[int, int]
) -> NDArray[np.generic]:
    """Values of the cells' pixels, (M, C)."""
    height, width, channels = pixels.shape
    first = (cells.boxes[:, :2] - origin) @ (width, 1)
    at = np.repeat(first, lists.counts) + lists.y * width + lists.x
    # Six times as fast as by y and x.
    return np.asarray(pixels.reshape(height * width, channels).take(at, axis=0))


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


def _geometry(batch: Instances, lists: PixelLists, frame: Frame) -> dict[str, NDArray[np.generic]]:
    """Place and shape, in level-0 pixels and µm."""
    step, mpp = frame.downsample, frame.mpp or np.nan
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
    known = values.astype(np.float64)
    finite, low, high = np.isfinite(known), known, known
    if not finite.all():
        low, high = np.where(finite, known, np.inf), np.where(finite, known, -np.inf)
    mean = _mean(known, finite, pixels)
    empty = np.isnan(mean)
    return {
        "mean": mean,
        "std": _std(known, pixels),
        "min": np.where(empty, np.nan, np.minimum.reduceat(low, pixels.starts)),
        "max": np.where(empty, np.nan, np.maximum.reduceat(high, pixels.starts)),
    }


def _mean(values: Floats, finite: NDArray[np.bool_], pixels: PixelLists) -> Floats:
    """Mean of each cell's values where they are finite, (N,)."""
    if finite.all():
        return pixels.means(values)
    count = pixels.sums(finite.astype(np.int64))
    count[count == 0] = np.nan
    return pixels.sums(np.where(finite, values, 0)) / count


def _std(values: NDArray[np.generic], pixels: PixelLists) -> Floats:
    """Standard deviation of each cell's finite values, (N,)."""
    known = values.astype(np.float64)
    finite = np.isfinite(known)
    off = known - np.repeat(_mean(known, finite, pixels), pixels.counts)
    return np.asarray(np.sqrt(_mean(off * off, finite, pixels)))


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
    seen = optical_densities(rgb, white)
    mixed = [_mean(channel, np.isfinite(channel), pixels) for channel in seen.T]
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
