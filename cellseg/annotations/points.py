"""Annotated centres: a CSV with the columns image, x, y and, if there are classes, class."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError


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
    rows: dict[str, list[tuple[float, float, str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"image", "x", "y"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
            for row in reader:
                image = rows.setdefault((row["image"] or "").strip(), [])
                if row["x"] or row["y"]:
                    y, x = float(row["y"]), float(row["x"])
                    if not (math.isfinite(x) and math.isfinite(y)):
                        raise ValueError(f"{row['x']}, {row['y']}")
                    image.append((y, x, (row.get("class") or "").strip()))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: line {reader.line_num}: no place: {error}") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise InputError(f"{path}: no images in this table")
    return tuple(
        Centres(
            name,
            np.array([row[:2] for row in found], dtype=float).reshape(-1, 2),
            tuple(row[2] for row in found),
        )
        for name, found in rows.items()
    )
