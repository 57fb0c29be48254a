"""All cells of a result in memory, some bytes each, for questions about places and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.result import Result, class_codes


def read_cells(
    result: Result, corrections: Corrections | None, names: Sequence[str]
) -> pd.DataFrame:
    """The table as corrected, ordered by place.

    Returns
    -------
    DataFrame
        ``y`` and ``x`` of the centroids (level-0 pixels, pixel centres at integers), ascending by
        ``y``; ``area`` in µm², or in px² without pixel size; ``class``, an index into ``names``;
        ``label``.

    Raises
    ------
    InputError
        If the table cannot be read, or does not say where its cells lie.
    """
    area = "area_px" if result.frame.mpp is None else "area_um2"
    wanted = ["label", "class", "centroid_y_px", "centroid_x_px", area]
    try:
        if corrections is not None and corrections.touched:
            table = corrections.table(wanted)
        else:
            table = result.table.load(wanted)
    except KeyError as error:
        raise InputError(f"{result.path}: its table has no column {error}") from error
    cells = pd.DataFrame(
        {
            "y": table["centroid_y_px"].to_numpy(np.float64),
            "x": table["centroid_x_px"].to_numpy(np.float64),
            "area": table[area].to_numpy(np.float32),
            "class": class_codes(table["class"], names).astype(np.int32),
            "label": table["label"].to_numpy(np.int64),
        }
    )
    if not cells["label"].between(1, 2 * len(cells) + 2**20).all():
        raise InputError(f"{result.path}: is no table of cells: its labels are not theirs")
    return cells.sort_values("y", kind="stable", ignore_index=True)


def cells_in(cells: pd.DataFrame, box: Box, *, mpp: float | None, classes: int) -> dict[str, Any]:
    """How many cells lie in a rectangle.

    Parameters
    ----------
    cells : DataFrame
        As :func:`read_cells` returns it.
    box : Box
        Level-0 pixels; a cell is in it whose centroid is, as in a picture of such a box.
    mpp : float or None
        µm per pixel.
    classes : int
        How many there are.

    Returns
    -------
    dict
        ``area`` in mm², or in megapixels without pixel size; ``cells``, ``per_class``, their
        ``density`` and ``density_per_class`` by that area, ``median_area`` of the cells.
    """
    first, last = np.searchsorted(cells["y"], (box.y0 - 0.5, box.y1 - 0.5))
    rows = cells[first:last]
    rows = rows[(rows["x"] >= box.x0 - 0.5) & (rows["x"] < box.x1 - 0.5)]
    counts = np.bincount(rows["class"], minlength=classes).tolist()
    area = box.area / 1e6 * (1.0 if mpp is None else mpp**2)
    return {
        "box": [box.y0, box.x0, box.y1, box.x1],
        "area": area,
        "cells": len(rows),
        "per_class": counts,
        "density": len(rows) / area if area else None,
        "density_per_class": [count / area if area else None for count in counts],
        "median_area": float(rows["area"].median()) if len(rows) else None,
    }
