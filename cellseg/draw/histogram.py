"""``histogram.png``: how measurements are distributed, and where thresholds part the cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.classes import Classification, classes_of, named
from cellseg.derive.threshold import example, histogram
from cellseg.palette import colours
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.text import visible

_GRID, _INK = "#cdcdd2", "#202024"
Axes = Any  # Of matplotlib, which is loaded late.
_EXAMPLE = "none was found, the line is an example"


def draw_histograms(
    result: Result, given: Classification | None, path: Path, *, asked: Sequence[Marker] = ()
) -> None:
    """Draw one panel for each marker, as PNG; for those ``asked``, an example of a threshold.

    Bars have the colours of the classes' outlines; their height grows with the root of the
    number, so that a few positive cells are seen beside many negative ones.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second to load
    from matplotlib.figure import Figure

    markers = [*(given.markers if given else ()), *asked]
    figure = Figure(figsize=(8, 0.4 + 3.6 * len(markers)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(markers), 1, squeeze=False)[:, 0]
    methods = [*(given.methods if given else ()), *[_EXAMPLE] * len(asked)]
    for axes, marker, method in zip(panels, markers, methods, strict=True):
        values = result.table.column(marker.measure).to_numpy(np.float64)
        _draw(axes, values, marker, method, result.stain)
    figure.savefig(path, format="png")


def _draw(axes: Axes, values: NDArray[np.float64], marker: Marker, method: str, stain: str) -> None:
    from matplotlib.ticker import MaxNLocator

    seen = histogram(values, int(np.clip(2 * np.sqrt(values.size), 32, 256)))
    line, limits = "-", np.atleast_1d(np.asarray(marker.threshold)).tolist()
    if marker.threshold == "auto":
        line, limits = "--", [found for found in (example(values),) if found is not None]
    names = classes_of([marker])
    rgb = np.array(colours(names, stain)) / 255
    grade = np.searchsorted(limits, seen.centres, side="right")
    for place, colour in enumerate(rgb):
        counts = np.where(grade == place, seen.counts, 0)
        axes.stairs(counts, seen.edges, fill=True, facecolor=colour, edgecolor=_INK, linewidth=0.2)
    for limit in limits:
        axes.axvline(limit, color=_INK, linewidth=1.2, linestyle=line)
        at = (limit, 0.96)
        axes.annotate(f" {limit:g}", at, xycoords=("data", "axes fraction"), va="top", fontsize=9)
    _index_curve(axes, values)
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, max(1, int(seen.counts.max())) * 1.15)
    axes.set_ylabel("cells (root scale)")
    title = f"{named(marker)}: {marker.measure} of {seen.counts.sum():,} cells"
    said = ", ".join(f"{(values >= limit).sum():,} at or above {limit:g}" for limit in limits)
    if seen.beyond:
        said += f"; {seen.beyond:,} beyond this picture"
    # Names come from files; a dollar sign would be taken for a formula.
    plain = [visible(text).replace("$", r"\$") for text in (title, f"threshold: {method}; {said}")]
    axes.set_title(plain[0], loc="left", fontsize=12)
    axes.set_xlabel(plain[1], fontsize=9, loc="left")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _index_curve(axes: Axes, values: NDArray[np.float64]) -> None:
    """The share of cells at or above each threshold, on an axis of its own."""
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        return
    thresholds = np.linspace(known[0], known[-1], 400)
    share = 100 * (1 - np.searchsorted(known, thresholds) / known.size)
    right = axes.twinx()
    right.plot(thresholds, share, color=_INK, linewidth=1.2, linestyle="--")
    right.set_ylim(0, 100)
    right.set_ylabel("% positive at this threshold (dashed)")
