"""Counts that cannot be right: one sentence each, with what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from cellseg.errors import Notice
from cellseg.stain.quality import NAMES
from cellseg.table.summary import AreaStatistics, Summary

FEWEST = 20
"""Sizes of fewer cells say nothing."""

NUCLEUS_UM = (4.0, 20.0)
"""Diameters between which the medians of nuclei lie: lymphocytes have 6 to 7 µm, flat cultured
cells 12 to 18."""

FAR = 2.0
"""A median diameter this many times the usual one, or this part of it, is far off; an image
without pixel size may be off by as much and still be counted well."""

MANY_TIMES = 3.0
"""The most common cell with this many times the usual area is several, or none."""

CLOSE, CLOSE_PART, CLOSE_SHARE = 0.1, 0.25, 0.15
"""More cells than this share with a score so close to the threshold make a count depend on it; of
high thresholds, so close is this part of the scores above."""

AT_LIMIT = 1.2
"""Areas up to this factor from a limit are at it."""

SPECK, SPECK_SHARE = 0.25, 0.1
"""Whole cells of less than this part of their class's median area are specks; more are said."""

CUT_SHARE = 2 / 3
"""More cells than this at the image's edge leave few whole ones; of held-out smears up to 0.61."""

_STEPS = 4.0
"""Of areas, to a factor of two, when the most common one is looked for."""


_MEANS = {
    "out of focus": "cells may be missing there",
    "folded": "cells in several layers cannot be told apart",
    "marked by a pen": "cells under the ink may be missing",
    "under air bubbles": "cells may be missing there",
}

WORTH_SAYING = 0.01
"""Share of the tissue from which a fault is a doubt."""

MOST_UNKNOWN = 0.5
"""Share of the tissue without contrast from which focus was not checked."""

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of cells before they are counted, as ``expected_sizes`` of ``run.json``."""

    limits_px: tuple[float, float]  # Areas between which cells are counted, level-0 px².
    usual_px: float | None
    """The model's usual object, diameter in level-0 px; None where one cannot know."""
    mpp: float | None
    own_model: bool  # The model is one that the user trained.

    def length(self, diameter_px: float) -> str:
        """For a person."""
        if self.mpp is None:
            return f"{diameter_px:.3g} px"
        return f"{diameter_px * self.mpp:.3g} µm"

    def area(self, area_px: float) -> str:
        """For a person."""
        return f"{area_px:.3g} px²" if self.mpp is None else f"{area_px * self.mpp**2:.3g} µm²"


def doubts(summary: Summary, cells: pd.DataFrame, expected: Expected) -> list[Notice]:
    """Why a count may be wrong, a sentence each.

    ``cells`` has a row a cell: ``area_px`` (level-0 px²), ``class`` by the model, and
    ``touches_border`` where that is known.
    """
    if not summary.cells and expected.own_model:
        return [
            Notice(
                f"a model of your own found no {summary.object} at all: was it trained long "
                "enough, and on such images? Evaluate it, or count with a score of 0.1 to see more",
                hint="score",
            )
        ]
    areas, found = summary.area_px, list(_beyond_tissue(summary))
    if areas is None or summary.cells < FEWEST:
        return found
    found += _specks(summary, cells)
    if summary.touching_border > CUT_SHARE * summary.cells:
        said = (
            f"{summary.touching_border:,} of {summary.cells:,} {summary.plural} are cut by the "
            "image's edge: their areas are too small, and a number per mm² too large"
        )
        found.append(Notice(said))
    sizes = [*_far(summary, areas, expected), *_at_limits(summary, areas, expected)]
    usual = expected.usual_px
    if not sizes and usual is not None:
        # Where areas lie densest, on a scale of ratios, to about a tenth.
        steps, counts = np.unique(np.round(np.log2(cells["area_px"]) * _STEPS), return_counts=True)
        times = float(2 ** (steps[counts.argmax()] / _STEPS)) / (math.pi / 4 * usual**2)
        if times > MANY_TIMES:
            said = (
                f"the most common {summary.object} has {times:.1f} times the area of the model's "
                "usual one: several may be taken for one"
            )
            sizes.append(_scaled(said, expected))
    return [*found, *sizes]


def _specks(summary: Summary, cells: pd.DataFrame) -> Iterator[Notice]:
    """Many cells that are tiny beside the others of their class; what the edge cuts is none."""
    small = cells["area_px"] < SPECK * cells.groupby("class")["area_px"].transform("median")
    share = float((small & ~cells.get("touches_border", small & False)).mean())
    if share > SPECK_SHARE:
        said = (
            f"{100 * share:.0f} % of the {summary.plural} have less than a quarter of the median "
            "area: they may be debris or pieces; leave out the small ones"
        )
        yield Notice(said, hint="min_area")


def unsure(scores: NDArray[np.float64], threshold: float) -> list[Notice]:
    """The doubt that many cells were counted on a score close to the threshold.

    Cells that a person drew have the score NaN.
    """
    known = scores[np.isfinite(scores)]
    close = min(CLOSE, (1 - threshold) * CLOSE_PART)
    share = float((known < threshold + close).mean()) if len(known) >= FEWEST else 0.0
    if share <= CLOSE_SHARE:
        return []
    said = (
        f"{100 * share:.0f} % of what was counted has a score within {close:.2g} of the threshold "
        f"({threshold:g}): another threshold gives another count"
    )
    return [Notice(said, hint="score")]


def _beyond_tissue(summary: Summary) -> Iterator[Notice]:
    """Cells that cover more than the tissue they were found in."""
    if summary.area_um2 is None or not summary.tissue_mm2:
        return
    covered = summary.cells * summary.area_um2.mean / 1e6
    if covered > summary.tissue_mm2:
        yield Notice(
            f"the {summary.plural} cover {covered:.3g} mm², more than the tissue that was found "
            f"({summary.tissue_mm2:.3g} mm²): the number per mm² means nothing; count everywhere, "
            "without measuring tissue",
            hint="no_prefilter",
        )


def _far(summary: Summary, areas: AreaStatistics, expected: Expected) -> Iterator[Notice]:
    """A median size that is no nucleus's, or far from the model's usual object."""
    diameter = 2 * math.sqrt(areas.median / math.pi)
    mpp, usual = expected.mpp, expected.usual_px
    if usual is not None:
        low, high = usual / FAR, usual * FAR
        said = f"the model's usual {summary.object} is {expected.length(usual)}"
    elif summary.object == "nucleus" and mpp is not None:
        low, high = NUCLEUS_UM[0] / mpp, NUCLEUS_UM[1] / mpp
        said = "those of nuclei lie between {:g} and {:g} µm".format(*NUCLEUS_UM)
    else:
        return
    if not low <= diameter <= high:
        median = f"the median diameter of the {summary.plural} is {expected.length(diameter)}"
        yield _scaled(f"{median}, {said}", expected)


def _at_limits(summary: Summary, areas: AreaStatistics, expected: Expected) -> Iterator[Notice]:
    """Half of the cells at one of the limits of size."""
    low, high = expected.limits_px
    sides = (
        (areas.median <= low * AT_LIMIT, low, "smallest", "min_area", "pieces or noise"),
        (areas.median >= high / AT_LIMIT, high, "largest", "max_area", "several taken for one"),
    )
    for holds, limit, which, field, what in sides:
        if holds:
            said = (
                f"half of the {summary.plural} are about as large as the {which} that are counted "
                f"({expected.area(limit)}), they may be {what}"
            )
            yield _scaled(said, expected, field)


def _scaled(said: str, expected: Expected, *fields: str) -> Notice:
    """A doubt that another scale may dispel."""
    if expected.mpp is None:
        asked, known = "is the scale right?", ("diameter", "mpp")
    else:
        asked, known = "are the pixel size and the protocol right?", ("mpp", "protocol")
    return Notice(f"{said}: {asked}", hint=",".join((*known, *fields)))


@dataclass(frozen=True, kw_only=True)
class SlideQuality:
    """Shares of a slide's tissue, 0 … 1, as ``quality`` of ``run.json`` holds them.

    None where nobody looked: in fluorescence only focus is told. In tissue of ``unknown_focus``
    there is too little contrast to show whether it is in focus. ``left_out`` says whether tissue
    with a fault was left out of the count and of its area.
    """

    out_of_focus: _Share | None
    folded: _Share | None
    pen: _Share | None
    bubbles: _Share | None
    unknown_focus: _Share
    left_out: bool = False

    @property
    def faults(self) -> dict[str, float]:
        """What is wrong with a part of the tissue, and its share."""
        shares = (self.out_of_focus, self.folded, self.pen, self.bubbles)
        return {name: share for name, share in zip(NAMES.values(), shares, strict=True) if share}

    def doubts(self) -> list[Notice]:
        """Why the count may be wrong, one sentence a fault; none where it was left out."""
        worth = {n: s for n, s in self.faults.items() if s >= WORTH_SAYING and not self.left_out}
        return [
            Notice(f"{100 * share:.2g} % of the tissue is {name}: {_MEANS[name]}", hint="skip_bad")
            for name, share in worth.items()
        ]

    def said_of_left_out(self) -> Notice:
        """How much of the tissue was left out, and why."""
        every = sum(self.faults.values())
        each = ", ".join(f"{100 * share:.2g} % {name}" for name, share in self.faults.items())
        why = f" ({each}); its cells and its area do not count" if every else ""
        return Notice(f"{100 * every:.2g} % of the tissue was left out{why}")


_Kind = TypeVar("_Kind", Expected, SlideQuality)


def recorded(kind: type[_Kind], run: Mapping[str, Any], name: str) -> _Kind | None:
    """A section of a finished run's record; None where it is not there, or is damaged."""
    try:
        return TypeAdapter(kind).validate_python(run[name])
    except (LookupError, ValueError):
        return None
