"""All cells of a result in memory, some bytes each, for questions about places and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.result import Result


def area_column(result: Result) -> str:
    """In µm², or in px² of a slide without pixel size."""
    return "area_um2" if "area_um2" in result.table else "area_px"


def read_cells(
    result: Result, corrections: Corrections | None, names: Sequence[str]
) -> pd.DataFrame:
    """The table as corrected, ordered by place.

    Parameters
    ----------
    names : sequence of str
        Of the classes.

    Returns
    -------
    DataFrame
        ``y`` and ``x`` of the centroids (level-0 pixels, pixel centres at integers), ascending by
        ``y``; ``area``, see :func:`area_column`; ``class``, an index into ``names``; ``label``.

    Raises
    ------
    InputError
        If the table cannot be read, or does not say where its cells lie.
    """
    area = area_column(result)
    wanted = ["label", "class", "centroid_y_px", "centroid_x_px", area]
    numbers = {name: number for number, name in enumerate(names)}
    try:
        if corrections is not None and corrections.touched:
            tables = [corrections.table(wanted)]
        else:
            tables = list(result.table.batches(wanted)) or [result.table.load(wanted)]
    except KeyError as error:
        raise InputError(f"{result.path}: its table has no column {error}") from error
    parts = [_part(table, numbers, area) for table in tables if len(table)]
    cells = pd.concat(parts or [_part(tables[0], numbers, area)], ignore_index=True)
    if len(cells) and (cells["class"].min() < 0 or cells["label"].min() < 1):
        raise InputError(f"{result.path}: classes that run.json does not list")
    if len(cells) and cells["label"].max() > 2 * len(cells) + 2**20:
        raise InputError(f"{result.path}: is no table of cells: a label {cells['label'].max()}")
    return cells.sort_values("y", kind="stable", ignore_index=True)


def _part(table: pd.DataFrame, numbers: dict[str, int], area: str) -> pd.DataFrame:
    """Some rows in fewer bytes; a class that is not known is -1."""
    columns = {
        "y": table["centroid_y_px"].astype(np.float64),
        "x": table["centroid_x_px"].astype(np.float64),
        "area": table[area].astype(np.float32),
        "class": np.array([numbers.get(name, -1) for name in table["class"]], np.int32),
        "label": table["label"].astype(np.int64),
    }
    return pd.DataFrame(columns)


def class_of_label(cells: pd.DataFrame) -> NDArray[np.uint16]:
    """By label: 0 where there is no such cell, otherwise the class's index plus 1."""
    found = np.zeros(int(cells["label"].max()) + 1 if len(cells) else 1, np.uint16)
    found[cells["label"]] = cells["class"] + 1
    return found


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
