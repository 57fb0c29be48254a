"""The cells of a result for its exports: what columns mean, texts that a format takes, outlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import shapely

from cellseg.annotations.masks import Outline, contours
from cellseg.protocol import Stain
from cellseg.result import Result, class_codes
from cellseg.table import REGION, Column, columns
from cellseg.table.around import around_columns
from cellseg.table.neighbours import Neighbours

TOLERANCE_PX = 0.3
"""Points of an outline may be left out where it moves by less; neighbouring strands of a mask's
outline are 0.7 px apart at least."""

LARGEST_CORRECTION = 0.02  # Where leaving points out changes the area by a larger share, they stay.

OutlinedCell = tuple[int, int, str, shapely.MultiPolygon]
"""Label, place of the class in the result's list, region (empty: none) and outline."""


def described(result: Result) -> list[Column]:
    """The table's columns, in order; unit and meaning are empty of those that nobody describes."""
    channels = result.section("settings").get("channels") or []
    stain = cast("Stain", result.stain)
    within = result.section("spatial").get("within")
    known = {
        column.name: column
        for column in (
            *columns(channels, stain=stain, has_mpp=True, has_regions=True, has_t=True),
            *around_columns(channels, stain=stain, has_mpp=True),
            *Neighbours(result.frame.mpp, within, tuple(result.class_names)).columns,
        )
    }
    return [replace(known.get(own.name, own), dtype=own.dtype) for own in result.columns]


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table whose texts are changed."""
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name].dtype):
            new = {text: change(text) for text in table[name].unique()}
            if any(old != text for old, text in new.items()):
                table = table.assign(**{name: table[name].map(new).astype(table[name].dtype)})
    return table


def outlined(result: Result) -> Iterator[tuple[pd.DataFrame, list[OutlinedCell]]]:
    """Rows of the table, those of one part of the slide together, and their cells."""
    for table, masks in result.table.blocks(result.labels()[0], result.frame):
        drawn = outlines(masks, downsample=result.frame.downsample)
        regions = table[REGION].tolist() if REGION in table else [""] * len(table)
        codes = class_codes(table["class"], result.class_names).tolist()
        yield table, list(zip(table["label"].tolist(), codes, regions, drawn, strict=True))


def outlines(masks: Sequence[Outline], *, downsample: float) -> list[shapely.MultiPolygon]:
    """The outline of each mask, holes and several parts included.

    It runs through the middle between pixel centres of the mask and of the background, so that
    the pixels whose centres lie inside are the mask again; then each part is scaled by a hair, so
    that its area is that of its pixels. Pixels that touch at a corner are not joined.

    (x, y) in level-0 pixels, 0 at the corner of the first pixel, so that pixel centres lie at
    halves; outer rings are counter-clockwise by RFC 7946's reckoning, holes the other way round.
    """
    exact, owner = shapely.get_parts([_polygons(mask) for mask in masks], return_index=True)
    # Halfway between centres each corner of the pixels' edges is cut: 1/8 px² is lost where it is
    # convex and won where it is concave, and around any ring there are four more convex ones.
    area = shapely.area(exact) + 0.5 * (1 - shapely.get_num_interior_rings(exact))
    simple = shapely.simplify(exact, TOLERANCE_PX, preserve_topology=False)
    good = (
        shapely.is_valid(simple)
        & (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON)
        & (shapely.get_num_interior_rings(simple) == shapely.get_num_interior_rings(exact))
        & (np.abs(shapely.area(simple) / area - 1) < LARGEST_CORRECTION)
    )
    chosen = np.where(good, simple, exact)
    grown = np.sqrt(area / shapely.area(chosen))
    centres = shapely.get_coordinates(shapely.centroid(chosen))
    points, of = shapely.get_coordinates(chosen, return_index=True)
    points = (centres[of] + (points - centres[of]) * grown[of, None]) * downsample
    # A thousandth of a pixel, or of a lattice pixel where that is smaller.
    decimals = 3 + max(0, int(np.ceil(-np.log10(downsample))))
    placed = shapely.orient_polygons(shapely.set_coordinates(chosen, np.round(points, decimals)))
    whole: list[shapely.MultiPolygon] = shapely.multipolygons(placed, indices=owner).tolist()
    return whole


def simplest(outline: shapely.MultiPolygon) -> shapely.Polygon | shapely.MultiPolygon:
    """A polygon where there is one part."""
    return outline.geoms[0] if len(outline.geoms) == 1 else outline


def _polygons(mask: Outline) -> shapely.Polygon | shapely.MultiPolygon:
    found = [shapely.linearrings(line) for line in contours(*mask)]
    if len(found) == 1:
        return shapely.polygons(found[0])
    return shapely.build_area(shapely.geometrycollections(found))
