"""Masks as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import shapely

from cellseg.annotations.masks import Outline, contours
from cellseg.result import Result, class_codes
from cellseg.result.cells import blocks
from cellseg.table import REGION

TOLERANCE_PX = 0.3
"""Points of an outline may be left out where it moves by less; neighbouring strands of a mask's
outline are 0.7 px apart at least."""

LARGEST_CORRECTION = 0.02  # Where leaving points out changes the area by a larger share, they stay.
OutlinedCell = tuple[int, int, str, shapely.MultiPolygon]
"""Label, place of the class in the result's list, region (empty: none) and outline."""


def outlined(result: Result) -> Iterator[tuple[pd.DataFrame, list[OutlinedCell]]]:
    """Rows of the table, those of one part of the slide together, and their cells."""
    for table, masks in blocks(result, result.table):
        drawn = outlines(masks, downsample=result.frame.downsample)
        regions = table[REGION].tolist() if REGION in table else [""] * len(table)
        codes = class_codes(table["class"], result.class_names).tolist()
        yield table, list(zip(table["label"].tolist(), codes, regions, drawn, strict=True))


def outlines(masks: Sequence[Outline], *, downsample: float) -> list[shapely.MultiPolygon]:
    """The outlines of some masks, holes and several parts included.

    They run through the middle between pixel centres of the mask and of the background, so that
    the pixels whose centres lie inside are the mask again; then each part is scaled by a hair, so
    that its area is that of its pixels. Pixels that touch at a corner are not joined.

    Returns
    -------
    list of shapely.MultiPolygon
        One for each mask: (x, y) in level-0 pixels, 0 at the corner of the first pixel, so that
        pixel centres lie at halves; outer rings counter-clockwise by RFC 7946's reckoning, holes
        the other way round.
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
