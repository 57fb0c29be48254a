"""Where cells lie: what is looked at, and what is recorded of distances and neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Region, Regions
from cellseg.errors import Notice
from cellseg.result import Result
from cellseg.table.neighbours import DENSITY_UM, MOST_CLASSES, Neighbours


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

    Parameters
    ----------
    border : str
        Of :func:`looked_at`.
    found : mapping of ndarray, (N,)
        Holds the values of the columns of ``near``.
    """
    medians = {}
    for column in near.columns:
        values = np.asarray(found[column.name], np.float64)
        if len(known := values[np.isfinite(values)]):
            medians[column.name] = round(float(np.median(known)), 4)
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
