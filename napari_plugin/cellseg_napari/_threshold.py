"""Thresholds on one measurement, and what they make of the cells; without a widget."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.classes import grades
from cellseg.derive.scores import Blocks, Labelling, allred, h_score, spatial_blocks
from cellseg.protocol import Marker
from cellseg_napari._words import counted

if TYPE_CHECKING:
    from cellseg_napari._opened import Opened

PLACES = ("centroid_y_px", "centroid_x_px", "area_px")
"""Columns from which the blocks of the interval are made."""

POSITIVE, GRADED = ("negative", "positive"), ("negative", "1+", "2+", "3+")


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


@dataclass(frozen=True, eq=False)
class Parted:
    """One measurement of a result's cells, and thresholds on it.

    Attributes
    ----------
    marker : Marker
        Thresholds in numbers.
    values : ndarray, float64, (N,)
        In the order of :meth:`Opened.labels`.
    """

    opened: Opened
    marker: Marker
    values: NDArray[np.float64] = field(repr=False)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One or three, ascending."""
        return tuple(np.atleast_1d(np.asarray(self.marker.threshold, np.float64)).tolist())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, the lowest first."""
        return GRADED if len(self.thresholds) == 3 else POSITIVE

    @cached_property
    def codes(self) -> NDArray[np.int16]:
        """Place of each cell's class in ``names``; -1 without a value."""
        return grades(self.values, self.marker)

    @cached_property
    def scored(self) -> Labelling:
        """Cells of each class."""
        known = self.codes[self.codes >= 0]
        return Labelling(grades=tuple(np.bincount(known, minlength=len(self.names)).tolist()))

    def with_interval(self, blocks: Blocks) -> Labelling:
        """The same, with a 95 % interval of the share of positive cells."""
        return Labelling.of(self.codes, len(self.names), blocks)


def blocks_of(opened: Opened) -> Blocks:
    """Parts of the slide, each with its cells; :data:`PLACES` are read for it."""
    y, x, area = (opened.column(name) for name in PLACES)
    usual = float(np.sqrt(np.median(area) * 4 / np.pi)) if len(area) else 0.0
    return spatial_blocks(np.stack([y, x], axis=1), mpp=opened.result.frame.mpp, usual_px=usual)


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
