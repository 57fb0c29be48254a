"""Where cells lie: their neighbours, the density around them, the distance to the border."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Region, Regions
from cellseg.errors import Notice
from cellseg.result import Result
from cellseg.table import Column
from cellseg.table.neighbours import DENSITY_UM, MOST_CLASSES, Neighbours, neighbourhood, to_classes

Columns = dict[str, NDArray[np.generic]]


def around_each(result: Result, places: NDArray[np.float64], near: Neighbours) -> Columns:
    """The columns of ``near`` that do not depend on classes.

    Parameters
    ----------
    places : ndarray, float64, (N, 2)
        Centroids, (y, x), level-0 pixels.
    """
    looked_at, _ = _looked_at(result)
    return {**neighbourhood(places, looked_at, near)}


def to_each_class(
    places: NDArray[np.float64], classes: NDArray[np.object_], near: Neighbours
) -> Columns:
    """The distance from each cell to the nearest other one of each class."""
    return {**to_classes(places, classes, near)}


def record_of(
    result: Result, near: Neighbours, columns: list[Column], found: Columns
) -> dict[str, Any]:
    """``spatial`` of ``run.json``: what was measured, its medians, and what a person should know.

    Parameters
    ----------
    columns : list of Column
        That were added.
    found : dict of str to ndarray, (N,)
        Their values.
    """
    mpp, medians = near.mpp, {}
    for column in columns:
        values = np.asarray(found[column.name], np.float64)
        known = values[np.isfinite(values)]
        if len(known):
            medians[column.name] = round(float(np.median(known)), 4)
    notes = []
    if mpp is None:
        what = "density is" if near.within else "neighbours and density are"
        hint = "mpp" if near.within else "mpp,within"
        notes.append(Notice(f"without a pixel size {what} left out", hint=hint))
    if len(near.classes) > MOST_CLASSES:
        notes.append(
            Notice(
                f"{len(near.classes)} classes, more than {MOST_CLASSES}: the nearest cell of each "
                "is left out"
            )
        )
    return {
        "within": near.within,
        "unit": "px" if mpp is None else "µm",
        "density_radius_um": None if mpp is None else DENSITY_UM,
        "border": _looked_at(result)[1],
        "by_class": list(near.by_class.values()),
        "medians": medians,
        "columns": [column.name for column in columns],
        "notes": notes,
    }


def _looked_at(result: Result) -> tuple[Regions, str]:
    """Where cells were counted, and what its border is."""
    height, width = result.frame.height, result.frame.width
    if (regions := result.regions()) is not None:
        return regions.on(height, width), "regions"
    if (tissue := result.tissue()) is not None:
        return Regions((tissue,)).on(height, width), "tissue"
    return Regions((Region.box(-0.5, -0.5, height - 0.5, width - 0.5),)), "image"
