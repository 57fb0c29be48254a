"""How large the cells are, by slide and class: histograms as small drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.draw import colours
from cellseg.draw.page import safe
from cellseg.result.result import load_result

BINS = 40
_WIDTH, _HEIGHT = 600, 30


@dataclass(frozen=True, eq=False)
class Axis:
    """Areas on a scale of ratios.

    Attributes
    ----------
    unit : str
        ``µm²`` or ``px²``.
    column : str
        Of ``cells.csv``.
    low, high : float
    """

    unit: str
    column: str
    low: float
    high: float

    @classmethod
    def over(cls, quantiles: Sequence[dict[int, float]], *, unit: str, column: str) -> Axis:
        """One that holds nine of ten cells of each slide, with as much again on either side."""
        low = min(areas[5] for areas in quantiles) / 2
        high = max(areas[95] for areas in quantiles) * 2
        return cls(unit, column, max(low, high / 1e4), high)

    def place(self, area: float) -> float:
        """From 0 at the left to 1 at the right."""
        return math.log(area / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """1, 2 and 5 × 10ⁿ; of a long axis only 10ⁿ."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
        found = [step * 10.0**power for power in powers for step in steps]
        return [area for area in found if self.low * 1.05 <= area <= self.high / 1.05]


def histograms(folder: Path, axis: Axis) -> dict[str, NDArray[np.int64]]:
    """Cells of each class in each of :data:`BINS`; what lies beyond the axis is in its end bins.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    table = load_result(folder).table.load(["class", axis.column])
    areas = table[axis.column].to_numpy(np.float64)
    edges = np.geomspace(axis.low, axis.high, BINS + 1)
    bins = np.clip(np.searchsorted(edges, areas, side="right") - 1, 0, BINS - 1)
    names = table["class"]
    return {
        str(name): np.bincount(bins[(names == name).to_numpy()], minlength=BINS)
        for name in names.unique()
    }


def drawn(
    counts: dict[str, NDArray[np.int64]], classes: Sequence[str], axis: Axis, median: float
) -> str:
    """One slide's histograms as SVG, a colour a class, the slide's median a line."""
    palette = dict(zip(classes, hexes(len(classes)), strict=True))
    top = max(int(one.max()) for one in counts.values())
    parts = [
        f"<line class='grid' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{_HEIGHT}'/>"
        for x in (_WIDTH * axis.place(area) for area in axis.ticks())
    ]
    for name in classes:
        if name in counts:
            parts.append(
                f"<path d='{_outline(counts[name], top)}' fill='{palette[name]}' "
                "fill-opacity='.75' stroke='currentColor' stroke-opacity='.4' "
                "vector-effect='non-scaling-stroke'/>"
            )
    x = _WIDTH * min(max(axis.place(median), 0), 1)
    parts.append(
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{_HEIGHT}' stroke='currentColor' "
        "stroke-width='2' vector-effect='non-scaling-stroke'/>"
    )
    label = f"median {median:.3g} {axis.unit}"
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' preserveAspectRatio='none' role='img' "
        f"aria-label='{safe(label)}'>{''.join(parts)}</svg>"
    )


def hexes(count: int) -> list[str]:
    """Colours of classes, as pictures of outlines have them."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours(count)]


def _outline(counts: NDArray[np.int64], top: int) -> str:
    step = _WIDTH / BINS
    heights = _HEIGHT - 1 - (_HEIGHT - 2) * counts / top
    steps = "".join(
        f"V{height:.1f}H{step * (number + 1):.0f}" for number, height in enumerate(heights)
    )
    return f"M0 {_HEIGHT - 1}{steps}V{_HEIGHT - 1}Z"
