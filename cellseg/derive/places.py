"""Places of a result beside those that were counted in: its hot spot, and what people drew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from cellseg.annotations.geojson import is_empty, read_regions
from cellseg.annotations.region import Region, Regions
from cellseg.derive.classes import Classification
from cellseg.derive.scores import share_interval, spatial_blocks
from cellseg.errors import Notice, SettingsError, output_errors
from cellseg.result import Result
from cellseg.result.files import write_json
from cellseg.result.publish import DRAWN
from cellseg.table.hotspot import HOT, HotSpot, hottest
from cellseg.table.neighbours import DENSITY_UM, MOST_CLASSES, Neighbours

MOST_DRAWN = 500
"""Regions that people draw on one slide."""

_ARC = 64
"""Sides of a quarter of a circle; its polygon lies around it, so that no cell falls out."""


def find_hot_spot(
    result: Result,
    asked: HotSpot,
    table: pd.DataFrame,
    given: Classification | None,
    types: NDArray[np.object_],
) -> dict[str, Any]:
    """``hotspot`` of ``run.json``: where it is, and how far the choice of the best place misleads.

    ``types`` are the classes by the model of the table's cells, (N,). A SettingsError if it is
    larger than the tissue, wants more cells than there are, or a class is unknown.
    """
    mpp, tissue = result.frame.mpp, result.section("found").get("tissue_mm2")
    if tissue is None and mpp is not None:
        tissue = result.frame.height * result.frame.width * (mpp / 1000) ** 2
    if asked.mm2 is not None and tissue is not None and asked.mm2 > tissue:
        raise SettingsError(
            f"no hot spot: {asked.mm2:g} mm² are more than the tissue, which is {tissue:.3g} mm²; "
            "a number of cells may be written 30cells",
            hint="hotspot",
        )
    classes = table["class"].to_numpy(dtype=object)
    held = hot = np.ones(len(table), np.bool_)
    what = asked.of
    if given is not None and asked.of in ("", *given.types):
        grades, what = given.grades(classes), "positive"
        held = (grades >= 0) & ((types == asked.of) if asked.of else True)
        hot = grades > 0
    elif asked.of:
        if asked.of not in (known := dict.fromkeys([*classes, *types])):
            raise SettingsError(
                f"no hot spot: there are no cells of class {asked.of!r}, but of {', '.join(known)}",
                hint="hotspot",
            )
        hot = np.asarray((classes == asked.of) | (types == asked.of))
    places = table[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)
    spot = hottest(places[held], hot[held], asked, mpp=mpp)
    inside = spot.contains(places) & held
    cells, number = int(inside.sum()), int((hot & inside).sum())
    chance = None
    if spot.shuffled.size:
        chance = [float(np.mean(spot.shuffled)), float(np.percentile(spot.shuffled, 95))]
    blocks = spatial_blocks(places[inside], table["area_px"].to_numpy(), mpp=mpp)
    found = {
        "asked": asked.model_dump(),
        "y_px": spot.y,
        "x_px": spot.x,
        "radius_px": spot.radius,
        "looked_at": spot.looked_at,
        "cells": cells,
        "hot": number,
        "what": what or "cells",
        "index_interval": None if chance is None else share_interval(hot[inside], blocks),
        "slide_share": float(hot[held].mean()),
        "shuffled_share": chance,
    }
    return {**found, "said": _told(found, asked)}


def _told(found: Mapping[str, Any], asked: HotSpot) -> str:
    """One line on a hot spot, with what the choice of the best place alone brings."""
    cells, between, chance = found["cells"], found["index_interval"], found["shuffled_share"]
    said = f"hot spot of {asked} around y {found['y_px']:,.0f}, x {found['x_px']:,.0f} px: "
    said += f"{cells:,} cells"
    if chance is None:
        none = "" if found["hot"] else f"; no cell is {found['what']}"
        return f"{said}, the densest place{none}"
    said += f", {100 * found['hot'] / max(cells, 1):.1f} % of them {found['what']}"
    if between is not None:
        said += " (95 %: {:.1f} … {:.1f} %)".format(*(100 * share for share in between))
    return (
        f"{said}, of all {100 * found['slide_share']:.1f} %. It is the best of "
        f"{found['looked_at']:,} places, so its share is too high: with the classes shuffled the "
        f"best place has {100 * chance[0]:.1f} %, below {100 * chance[1]:.1f} % in 95 of 100 cases"
    )


def hot_spot(result: Result) -> Region | None:
    """The hot spot's circle; None of a result without one."""
    found = result.section("hotspot")
    try:
        y, x, radius = (float(found[name]) for name in ("y_px", "x_px", "radius_px"))
        around = radius / np.cos(np.pi / 4 / _ARC)
        circle = shapely.Point(x + 0.5, y + 0.5).buffer(around, quad_segs=_ARC)
        return Region(shapely.MultiPolygon([circle]), HOT, HOT)
    except (LookupError, TypeError, ValueError, shapely.errors.ShapelyError):
        return None


def marked(result: Result) -> Regions | None:
    """Regions whose totals stand in the record: those that were counted in, and the hot spot."""
    height, width = result.frame.height, result.frame.width
    counted, hot = result.regions(), hot_spot(result)
    each = [*(counted or ()), *([hot] if hot else [])]
    return Regions.of(each).on(height, width) if each else None


def looked_at(result: Result) -> tuple[Regions, str]:
    """Where cells were counted, and what its border is."""
    height, width = result.frame.height, result.frame.width
    if (regions := result.regions()) is not None:
        return regions.on(height, width), "regions"
    if (tissue := result.tissue()) is not None:
        return Regions((tissue,)).on(height, width), "tissue"
    return Regions((Region.box(-0.5, -0.5, height - 0.5, width - 0.5),)), "image"


def spatial_record(
    near: Neighbours, border: str, found: Mapping[str, NDArray[np.generic]]
) -> dict[str, Any]:
    """``spatial`` of ``run.json``: what was measured, its medians, and what a person should know.

    ``found`` holds the columns of ``near``, (N,) each.
    """
    table = pd.DataFrame({column.name: found[column.name] for column in near.columns})
    medians = table.median().dropna().round(4).to_dict()
    notes = []
    if near.mpp is None:
        what = "density is" if near.within else "neighbours and density are"
        hint = "mpp" if near.within else "mpp,within"
        notes.append(Notice(f"without a pixel size {what} left out", hint=hint))
    if (number := len(near.classes)) > MOST_CLASSES:
        notes.append(
            Notice(
                f"{number} classes, more than {MOST_CLASSES}: the nearest cell of each is left out"
            )
        )
    return {
        "within": near.within,
        "unit": "px" if near.mpp is None else "µm",
        "density_radius_um": None if near.mpp is None else DENSITY_UM,
        "border": border,
        "by_class": list(near.by_class.values()),
        "medians": medians,
        "columns": [column.name for column in near.columns],
        "notes": notes,
    }


def drawn_regions(result: Result) -> Regions | None:
    """Regions that people drew on the finished result; None where there are none."""
    path = result.file(DRAWN)
    if not path.exists():
        return None
    return read_regions(path).on(result.frame.height, result.frame.width)


def keep_drawn(result: Result, content: bytes) -> Regions | None:
    """Check regions that somebody drew, and keep them in place of those before.

    ``content`` is GeoJSON, as QuPath has it; without any feature nothing is kept. An InputError or
    a SettingsError if it is no GeoJSON of regions, two have one name, or one lies beside the slide;
    an OutputError if the disk refuses.
    """
    path, height, width = result.path / DRAWN, result.frame.height, result.frame.width
    with output_errors(path):
        if is_empty(content):
            path.unlink(missing_ok=True)
            return None
        regions = read_regions(path.name, content=content, is_named=True)
        if len(regions) > MOST_DRAWN:
            raise SettingsError(f"{len(regions):,} regions: at most {MOST_DRAWN} can be drawn")
        taken = {region.name for region in marked(result) or ()}
        for region, cut in zip(regions, regions.on(height, width), strict=True):
            if region.name in taken:
                raise SettingsError(f"the count has a region {region.name} already")
            if cut.shape.is_empty:
                raise SettingsError(f"region {region.name} lies outside of the slide")
        write_json(path, regions.as_geojson())
    return regions.on(height, width)
