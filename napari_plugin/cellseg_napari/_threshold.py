"""Thresholds on one measurement, and what they make of the cells; without a widget."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.classes import classify
from cellseg.derive.scores import Labelling, allred, h_score
from cellseg.protocol import Marker
from cellseg.table.regions import counted


def first_measure(names: list[str]) -> str:
    """What a person most probably asks about: DAB, another stain, or a channel's mean."""
    for wanted in ("dab_od_mean", "_od_mean", "intensity_mean_", ""):
        if found := [name for name in names if wanted in name]:
            return found[0]
    return ""


def starting(values: NDArray[np.float64], number: int) -> tuple[float, ...]:
    """Where one or three thresholds begin: equal parts of the usual span."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    steps = np.linspace(low, high, number + 2)[1:-1]
    return tuple(float(f"{one:.4g}") for one in steps)


class Thresholded:
    """All cells' values of one measurement (NaN where a cell has none), and thresholds on it.

    There are one or three, ascending; three of the same value are moved apart a little.
    """

    def __init__(
        self, measure: str, thresholds: Iterable[float], values: NDArray[np.float64]
    ) -> None:
        first, *others = (float(one) for one in thresholds)
        self.thresholds: tuple[float, ...] = (first,)
        for one in others:
            self.thresholds += (max(one, float(np.nextafter(self.thresholds[-1], np.inf))),)
        self.values = values
        self.names = ("negative", "1+", "2+", "3+") if others else ("negative", "positive")
        chosen: Any = self.thresholds if others else first
        self.marker = Marker(measure=measure, threshold=chosen)

    @cached_property
    def codes(self) -> NDArray[np.int16]:
        """Place of each cell's class in ``names``; -1 without a value."""
        return classify({self.marker.measure: self.values}, [self.marker])[0]

    @property
    def labelling(self) -> Labelling:
        """Cells of each class."""
        known = self.codes[self.codes >= 0]
        return Labelling(grades=tuple(np.bincount(known, minlength=len(self.names)).tolist()))


def said(scored: Labelling, names: tuple[str, ...], thing: str) -> str:
    """Counts and scores for a person."""
    if scored.index is None:
        return "no cell has a value"
    parts = [f"{100 * scored.index:.1f} % of {counted(scored.cells, thing)} positive"]
    if scored.interval is not None:
        parts[0] += " (95 %: {:.1f} … {:.1f} %)".format(*(100 * one for one in scored.interval))
    classes = zip(names, scored.grades, strict=True)
    parts.append(", ".join(f"{number:,} {name}" for name, number in classes))
    if (score := h_score(scored.grades)) is not None:
        parts.append(f"H-score {score:.0f}, Allred {allred(scored.grades)}")
    return "\n".join(parts)
