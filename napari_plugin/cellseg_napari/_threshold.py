"""Thresholds on one measurement, and what they make of the cells; without a widget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.classes import grades
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


def marker_of(measure: str, thresholds: tuple[float, ...]) -> Marker:
    """One or three thresholds; three of the same value are moved apart a little."""
    if len(thresholds) == 1:
        return Marker(measure=measure, threshold=thresholds[0])
    first, second, third = thresholds
    second = max(second, float(np.nextafter(first, np.inf)))
    third = max(third, float(np.nextafter(second, np.inf)))
    return Marker(measure=measure, threshold=(first, second, third))


@dataclass(frozen=True, eq=False)
class Thresholded:
    """All cells' values of one measurement, and thresholds on it.

    Attributes
    ----------
    marker : Marker
        Thresholds in numbers.
    values : ndarray, float64, (N,)
        NaN where a cell has none.
    """

    marker: Marker
    values: NDArray[np.float64]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One or three, ascending."""
        return tuple(np.atleast_1d(np.asarray(self.marker.threshold, np.float64)).tolist())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, the lowest first."""
        graded = len(self.thresholds) == 3
        return ("negative", "1+", "2+", "3+") if graded else ("negative", "positive")

    @cached_property
    def codes(self) -> NDArray[np.int16]:
        """Place of each cell's class in ``names``; -1 without a value."""
        return grades(self.values, self.marker)

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


class History:
    """Thresholds that were tried, to go back and forth."""

    def __init__(self) -> None:
        self._tried: list[Marker] = []
        self._now = -1

    def add(self, marker: Marker) -> None:
        """A new state; what was undone is forgotten."""
        if self._now >= 0 and self._tried[self._now] == marker:
            return
        self._tried[self._now + 1 :] = [marker]
        self._now += 1

    def step(self, by: int) -> Marker | None:
        """The state before (-1) or after (1) this one; None where there is none."""
        if not 0 <= self._now + by < len(self._tried):
            return None
        self._now += by
        return self._tried[self._now]
