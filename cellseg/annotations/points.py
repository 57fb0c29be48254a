"""Annotated centres: a CSV with the columns image, x, y and, if there are classes, class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.errors import InputError, line_of
from cellseg.text import visible


@dataclass(frozen=True, eq=False)
class Centres:
    """The centres of one image.

    Attributes
    ----------
    name : str
        Of the image, as the table has it.
    places : ndarray, float64, (N, 2)
        (y, x), pixels of the image.
    classes : tuple of str, N
        Empty text: of no class.
    """

    name: str
    places: NDArray[np.float64]
    classes: tuple[str, ...]


def read_points(path: Path) -> tuple[Centres, ...]:
    """The images of a table, in its order; a row without x and y is an image without cells.

    Raises
    ------
    InputError
        If it cannot be read, lacks a column, or a place is no number.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig",
                            index_col=False)  # fmt: skip
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {line_of(error)}") from error
    missing = {"image", "x", "y"} - {*table.columns}
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
    if table.empty:
        raise InputError(f"{path}: no images in this table")
    table = table.fillna("").apply(lambda column: column.str.strip())
    table["class"] = table.get("class", "")
    has_place = (table["x"] != "") | (table["y"] != "")
    places = table[["y", "x"]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong = np.flatnonzero(has_place & ~np.isfinite(places).all(axis=1))
    if wrong.size:
        x, y = table.loc[wrong[0], ["x", "y"]]
        raise InputError(f"{path}: line {wrong[0] + 2}: no place: {x!r}, {y!r}")
    found = []
    for name, rows in table.groupby("image", sort=False):
        rows = rows[has_place[rows.index]]
        at = places.loc[rows.index].to_numpy()
        found.append(Centres(str(name), at, tuple(map(visible, rows["class"]))))
    return tuple(found)
