"""Where the cells of a finished count lie, as columns of its table: no network, no pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Region, Regions
from cellseg.derive.added import add_columns
from cellseg.derive.changing import changing
from cellseg.derive.classified import Classification
from cellseg.errors import InputError, SettingsError
from cellseg.result.result import Result, load_result
from cellseg.table.neighbours import DENSITY_UM, MOST_CLASSES, NEAR_UM, Near, neighbourhood

MOST_NEAR = {"um": 500, "px": 5000}
"""Largest distance within which neighbours are counted."""

SPATIAL = "spatial"
"""What ``run.json`` calls it; among ``stale``, columns that are older than the classes."""

_NEEDED = ("class", "centroid_y_px", "centroid_x_px")


def spatial(folder: Path, *, within: int | None = None) -> Result:
    """Measure to each cell its neighbours, the density around it and its distance to the border.

    Parameters
    ----------
    folder : Path
        A finished result; what was measured so before is replaced.
    within : int, optional
        Neighbours are counted within it, µm, or px of an image without a pixel size.
        :data:`NEAR_UM` otherwise; in px there is no usual distance, and none are counted.

    Returns
    -------
    Result
        With ``spatial`` and ``stale`` in its ``run``.

    Raises
    ------
    SettingsError
        If the distance is none.
    InputError
        If the folder is no finished result, or its table was changed since.
    OutputError
        If the disk refuses, or a run is writing there; the result stays as it was.
    """
    with changing(folder) as result:
        mpp = result.frame.mpp
        classes = tuple(str(name) for name in result.run.get("class_names", ()))
        near = Near(mpp, near_within(within, mpp), classes)
        _refuse_lost(result, near)
        there = dict(result.rows().columns)
        if missing := [name for name in _NEEDED if name not in there]:
            raise InputError(f"{result.table_path}: is of an older version: no {missing[0]}")
        table = result.rows().load(list(_NEEDED))
        looked_at, border = _looked_at(result)
        places = table[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)
        found = neighbourhood(places, table["class"].tolist(), looked_at, near)

        def values(first: int, last: int) -> Mapping[str, NDArray[np.float64]]:
            return {name: column[first:last] for name, column in found.items()}

        def about() -> dict[str, Any]:
            return {
                "within": near.within,
                "unit": "px" if mpp is None else "µm",
                "density_radius_um": None if mpp is None else DENSITY_UM,
                "border": border,
                "by_class": list(near.by_class.values()),
                "medians": _medians(found),
                "notes": _notes(near),
            }

        add_columns(result, SPATIAL, near.columns, values, about=about)
    return load_result(folder)


def near_within(within: int | None, mpp: float | None) -> int | None:
    """The distance within which neighbours are counted; None: they are not.

    Raises
    ------
    SettingsError
        If it is not above 0, or too large.
    """
    unit, shown = ("px", "px") if mpp is None else ("um", "µm")
    if within is None:
        return None if mpp is None else NEAR_UM
    if not 0 < within <= MOST_NEAR[unit]:
        raise SettingsError(
            f"neighbours are counted within 1 to {MOST_NEAR[unit]} {shown}, got {within}"
        )
    return within


def _refuse_lost(result: Result, near: Near) -> None:
    """Classes by a column need it.

    Raises
    ------
    SettingsError
    """
    made, new = Classification.of(result.run), {column.name for column in near.columns}
    for marker in () if made is None else made.markers:
        if marker.measure in {*result.added(SPATIAL)} - new:
            raise SettingsError(
                f"the cells' classes are by {marker.measure}, which would go; classify them by "
                "another measurement first"
            )


def _looked_at(result: Result) -> tuple[Regions, str]:
    """Where cells were counted, and what its border is."""
    height, width = result.frame.height, result.frame.width
    if (regions := result.regions()) is not None:
        return regions.on(height, width), "regions"
    if (tissue := result.tissue()) is not None:
        return Regions((tissue,)).on(height, width), "tissue"
    return Regions((Region.box(-0.5, -0.5, height - 0.5, width - 0.5),)), "image"


def _medians(found: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    known = {name: values[np.isfinite(values)] for name, values in found.items()}
    return {
        name: round(float(np.median(values)), 4) for name, values in known.items() if len(values)
    }


def _notes(near: Near) -> list[str]:
    notes = []
    if near.mpp is None:
        what = "density is" if near.within else "neighbours and density are"
        hint = "" if near.within else "; `cellseg spatial RESULT --within PX` counts neighbours"
        notes.append(f"without a pixel size {what} left out; pass --mpp when counting{hint}")
    if len(near.classes) > MOST_CLASSES:
        notes.append(
            f"{len(near.classes)} classes, more than {MOST_CLASSES}: the nearest cell of each is "
            "left out"
        )
    return notes
