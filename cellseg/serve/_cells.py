"""All cells of a result in memory, some bytes each, for questions about places and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.result import Result

_PLACE = ("centroid_y_px", "centroid_x_px")


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells lie, ordered by y.

    Attributes
    ----------
    y, x : ndarray, float64, (N,)
        Centroids, level-0 pixels, pixel centres at integers.
    area : ndarray, float32, (N,)
        In ``unit``.
    unit : {'um2', 'px'}
        µm², or px² of a slide without pixel size.
    classes : ndarray, uint16, (N,)
        Index into ``names``.
    of_label : ndarray, uint16, (L + 1,)
        By label: 0 where there is no such cell, otherwise the class's index plus 1.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    area: NDArray[np.float32]
    unit: str
    classes: NDArray[np.uint16]
    names: tuple[str, ...]
    of_label: NDArray[np.uint16]

    @classmethod
    def read(cls, result: Result, corrections: Corrections | None) -> Self:
        """From the table, as corrected.

        Raises
        ------
        InputError
            If the table cannot be read, or does not say where its cells lie.
        """
        unit = "um2" if "area_um2" in result.table else "px"
        area = f"area_{unit}"
        names = tuple(result.class_names if corrections is None else corrections.classes)
        numbers = {name: number for number, name in enumerate(names)}
        wanted = ("label", "class", *_PLACE, area)
        try:
            found = [_part(part, numbers, area) for part in result.table.batches(wanted)]
        except KeyError as error:
            raise InputError(f"{result.path}: its table has no column {error}") from error
        if corrections is not None and corrections.touched:
            touched = np.array(list(corrections.touched))
            found = [tuple(v[~np.isin(part[0], touched)] for v in part) for part in found]
            found.append(_part(corrections.edited_table(), numbers, area))
        if not found:
            found = [_part(pd.DataFrame({name: [] for name in wanted}), numbers, area, str)]
        label, number, y, x, size = (np.concatenate(each) for each in zip(*found, strict=True))
        if number.size and (number.min() < 0 or label.min() < 1):
            raise InputError(f"{result.path}: classes that run.json does not list")
        if label.size and label.max() > 2 * label.size + 2**20:
            raise InputError(f"{result.path}: is no table of cells: a label {label.max()}")
        of_label = np.zeros(int(label.max(initial=0)) + 1, np.uint16)
        of_label[label] = number + 1
        order = np.argsort(y, kind="stable")
        return cls(
            y[order], x[order], size[order].astype(np.float32), unit,
            number[order].astype(np.uint16), names, of_label,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.y)

    def per_class(self) -> list[int]:
        """How many there are of each class."""
        counts: list[int] = np.bincount(self.classes, minlength=len(self.names)).tolist()
        return counts

    def within(self, box: Box, mpp: float | None) -> dict[str, Any]:
        """What lies in a rectangle.

        Parameters
        ----------
        box : Box
            Level-0 pixels; a cell is in it whose centroid is, as ``cellseg overlay --box`` has it.
        mpp : float or None
            µm per pixel.

        Returns
        -------
        dict
            ``area`` in mm², or in megapixels without pixel size; ``cells``, ``per_class``, their
            ``density`` and ``density_per_class`` by that area, ``median_area`` of the cells.
        """
        rows = slice(*np.searchsorted(self.y, (box.y0 - 0.5, box.y1 - 0.5)).tolist())
        x = self.x[rows]
        inside = (x >= box.x0 - 0.5) & (x < box.x1 - 0.5)
        counts = np.bincount(self.classes[rows][inside], minlength=len(self.names)).tolist()
        area = box.area / 1e6 * (1.0 if mpp is None else mpp**2)
        cells = int(np.count_nonzero(inside))
        return {
            "box": [box.y0, box.x0, box.y1, box.x1],
            "area": area,
            "cells": cells,
            "per_class": counts,
            "density": cells / area if area else None,
            "density_per_class": [count / area if area else None for count in counts],
            "median_area": float(np.median(self.area[rows][inside])) if cells else None,
        }


def _part(table: pd.DataFrame, numbers: Mapping[str, int], area: str) -> tuple[NDArray[Any], ...]:
    """Label, class, y, x and area; a class that is not known is -1."""
    classes = {text: numbers.get(text, -1) for text in table["class"].unique()}
    columns: Sequence[str] = ("label", *_PLACE, area)
    label, y, x, size = (table[name].to_numpy() for name in columns)
    number = table["class"].map(classes).to_numpy(np.int64)
    return label.astype(np.int64), number, *(v.astype(np.float64) for v in (y, x, size))
