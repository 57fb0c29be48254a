"""How large the cells are, by slide and class: histograms as small drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.result import Result
from cellseg.study.rows import SummaryRow
from cellseg.text import visible

BINS = 40
WIDTH, HEIGHT = 600, 30


@dataclass(frozen=True, eq=False)
class Axis:
    """Areas of a column of the table, on a scale of ratios."""

    unit: str
    column: str
    low: float
    high: float

    @classmethod
    def over(cls, rows: Sequence[SummaryRow], *, unit: str, column: str) -> Axis:
        """One that holds nine of ten cells of each slide, with as much again on either side."""
        low = min(row[f"{column}_p05"] for row in rows) / 2
        high = max(row[f"{column}_p95"] for row in rows) * 2
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

    def drawing(self, result: Result, palette: dict[str, str], median: float) -> dict[str, Any]:
        """``outlines``, a colour and an SVG's path a class; ``median``, the place of its line.

        Cells beyond the axis are in its end bins.
        """
        table = result.table.load(["class", self.column])
        areas = np.clip(table[self.column].to_numpy(np.float64), self.low, self.high)
        edges, names = np.geomspace(self.low, self.high, BINS + 1), table["class"]
        counts = {
            visible(str(name)): np.histogram(areas[(names == name).to_numpy()], edges)[0]
            for name in names.unique()
        }
        top = max(int(one.max()) for one in counts.values())
        return {
            "outlines": [
                (colour, _outline(counts[name], top))
                for name, colour in palette.items()
                if name in counts
            ],
            "median": WIDTH * min(max(self.place(median), 0), 1),
        }


def _outline(counts: NDArray[np.int64], top: int) -> str:
    step = WIDTH / BINS
    heights = HEIGHT - 1 - (HEIGHT - 2) * counts / top
    steps = "".join(
        f"V{height:.1f}H{step * (number + 1):.0f}" for number, height in enumerate(heights)
    )
    return f"M0 {HEIGHT - 1}{steps}V{HEIGHT - 1}Z"
