"""What a pathologist signs: the share of positive cells, the H-score, Allred's score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.interval import LEAST, Blocks, share_interval

_PROPORTIONS = (0.01, 0.1, 1 / 3, 2 / 3)


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How many cells are positive, on a slide or in a part of it.

    Attributes
    ----------
    grades : tuple of int
        Cells that are negative and positive, or negative, 1+, 2+ and 3+.
    interval : (float, float) or None
        95 % of the index, 0 … 1; see :func:`cellseg.derive.share_interval`.
    """

    grades: tuple[int, ...]
    interval: tuple[float, float] | None = field(default=None)

    @property
    def cells(self) -> int:
        """Measured cells."""
        return sum(self.grades)

    @property
    def index(self) -> float | None:
        """Labelling index: the share of positive cells; None without cells."""
        return sum(self.grades[1:]) / self.cells if self.cells else None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "cells": self.cells,
            "positive": sum(self.grades[1:]),
            "grades": list(self.grades),
            "index": self.index,
            "index_interval": None if self.interval is None else list(self.interval),
            "h_score": h_score(self.grades),
            "allred": allred(self.grades),
        }


def h_score(grades: tuple[int, ...]) -> float | None:
    """1 × the per cent of 1+, 2 × of 2+, 3 × of 3+: 0 … 300; None without three thresholds.

    McCarty et al., Arch. Pathol. Lab. Med. 109 (1985) 716.
    """
    if len(grades) != 4 or not sum(grades):
        return None
    return 100 * sum(grade * cells for grade, cells in enumerate(grades)) / sum(grades)


def allred(grades: tuple[int, ...]) -> int | None:
    """Proportion (0 … 5) and intensity (0 … 3) of positive cells, added: 0, 2 … 8.

    The proportion is 1 below 1 % of the cells, 2 to 10 %, 3 to a third, 4 to two thirds, 5 above;
    the intensity is the mean grade of positive cells, rounded (Allred et al., Mod. Pathol. 11
    (1998) 155). None without three thresholds.
    """
    if len(grades) != 4 or not sum(grades):
        return None
    positive = sum(grades[1:])
    if not positive:
        return 0
    proportion = 1 + sum(positive > share * sum(grades) for share in _PROPORTIONS)
    mean = sum(grade * cells for grade, cells in enumerate(grades)) / positive
    return int(proportion + np.floor(mean + 0.5))


def labelling(
    codes: NDArray[np.integer[Any]],
    number: int,
    blocks: Blocks,
    groups: Mapping[tuple[str, str], NDArray[np.bool_]],
) -> tuple[Labelling, dict[tuple[str, str], Labelling]]:
    """Scores of all cells, and of groups of them.

    Parameters
    ----------
    codes : ndarray, integer, (N,)
        Grade of each cell, -1 without a measurement.
    number : int
        Grades that there are: 2 or 4.
    blocks : Blocks
        Of the same cells.
    groups : mapping of (str, str) to ndarray, bool, (N,)
        By kind and name: types, regions.
    """
    return (
        _one(codes, number, blocks, np.ones(len(codes), np.bool_)),
        {name: _one(codes, number, blocks, inside) for name, inside in groups.items()},
    )


def _one(
    codes: NDArray[np.integer[Any]], number: int, blocks: Blocks, inside: NDArray[np.bool_]
) -> Labelling:
    known = inside & (codes >= 0)
    _, which = np.unique(blocks.of_cell[known], return_inverse=True)
    of_these = Blocks(which, int(which.max(initial=-1)) + 1, blocks.side_px)
    found = codes[known]
    return Labelling(
        grades=tuple(np.bincount(found, minlength=number).tolist()),
        interval=share_interval(found > 0, of_these) if of_these.number >= LEAST else None,
    )
