"""The columns of ``cells.csv``: names, units, types, meaning and order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cellseg.protocol import Stain

REGION = "region"
"""Name of the column that says in which regions a cell lies."""

RGB = ("red", "green", "blue")
"""The channels from which stains can be told apart."""


@dataclass(frozen=True)
class Scale:
    """From the lattice to the slide.

    ``downsample`` are level-0 pixels along a side of a lattice pixel; ``mpp`` is µm per pixel at
    level 0, None where the slide has no pixel size.
    """

    downsample: float
    mpp: float | None

    @property
    def lattice_mpp(self) -> float | None:
        """µm along a side of a lattice pixel, None without pixel size."""
        return None if self.mpp is None else self.mpp * self.downsample


@dataclass(frozen=True)
class Column:
    """One column of the table.

    ``unit`` is ``px`` (level 0), ``px²``, ``µm``, ``µm²``, ``deg``, ``OD``, ``raw`` (intensities of
    the slide), or empty; ``dtype`` what pandas calls it: ``int64``, ``float32``, ``float64``,
    ``str`` or ``bool``; ``meaning`` one sentence, with the formula where there is one.
    """

    name: str
    unit: str
    dtype: str
    meaning: str


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
    are left out. Of a count in regions the last column names those that hold the cell; ``has_t``
    is of one time point of several, that was asked for.
    """
    found = (
        *_OF_MASKS,
        *(column for slug in channel_slugs(channels) for column in _intensity(slug)),
        *(_density(name) for name in densities(channels, stain=stain)),
        *_FLAGS,
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


_OF_MASKS = (
    Column("label", "", "int64", "The cell's number in `labels.ome.zarr`, from 1."),
    Column("image", "", "str", "Name of the image's file."),
    Column("t", "", "int64", "The image's time point, from 0, where one was asked for."),
    Column("class", "", "str", "The cell's type, by the model."),
    Column("object", "", "str", "What the model outlines: `nucleus` or `cell`."),
    Column("score", "", "float32", "The detector's confidence, 0 … 1."),
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

_FLAGS = (
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


def _density(stain: str) -> Column:
    person = {"hematoxylin": "haematoxylin", "eosin": "eosin", "dab": "DAB"}[stain]
    meaning = f"Mean optical density (log₁₀) of {person} over the mask."
    return Column(f"{stain}_od_mean", "OD", "float64", meaning)
