"""``histogram.png``: how measurements are distributed, and where thresholds part the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.draw._outlines import colours
from cellseg.text import visible

_GRID, _INK = "#cdcdd2", "#202024"


@dataclass(frozen=True, eq=False, kw_only=True)
class Cutting:
    """One measurement's histogram, parted.

    Attributes
    ----------
    counts : ndarray, int64, (B,)
    edges : ndarray, float64, (B + 1,)
    thresholds : tuple of float
        Ascending.
    said : str
        Stands below the title: how the thresholds came about, and what came of them.
    """

    title: str
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    thresholds: tuple[float, ...]
    said: str


def draw_histograms(path: Path, cuttings: Sequence[Cutting]) -> None:
    """Draw one panel for each measurement, as PNG.

    Bars have the colours that the classes' outlines have where there is one measurement; their
    height grows with the root of the number, so that a few positive cells are seen beside many
    negative ones.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second to load
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 0.4 + 3.6 * len(cuttings)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, cutting in zip(figure.subplots(len(cuttings), 1, squeeze=False)[:, 0], cuttings,
                             strict=True):  # fmt: skip
        middles = (cutting.edges[1:] + cutting.edges[:-1]) / 2
        grade = np.searchsorted(cutting.thresholds, middles, side="right")
        rgb = np.array(colours(len(cutting.thresholds) + 1)) / 255
        axes.bar(
            middles,
            cutting.counts,
            width=np.diff(cutting.edges),
            color=rgb[grade],
            edgecolor=_INK,
            linewidth=0.2,
        )
        for limit in cutting.thresholds:
            axes.axvline(limit, color=_INK, linewidth=1.2)
            axes.annotate(f" {limit:g}", (limit, 0.96), xycoords=("data", "axes fraction"),
                          va="top", fontsize=9)  # fmt: skip
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, max(1, int(cutting.counts.max())) * 1.15)
        axes.set_ylabel("cells (root scale)")
        # Names come from files; a dollar sign would be taken for a formula.
        axes.set_title(_plain(cutting.title), loc="left", fontsize=12)
        axes.set_xlabel(_plain(cutting.said), fontsize=9, loc="left")
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    figure.savefig(path, format="png")


def _plain(text: str) -> str:
    return visible(text).replace("$", r"\$")
