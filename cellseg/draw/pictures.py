"""The pictures of a result: outlines, overview and histogram, drawn once a command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellseg.derive import Classification, histogram, named
from cellseg.draw import Cutting, draw_histograms, write_png
from cellseg.draw.outlined import draw_outlines, masks_of
from cellseg.draw.redrawn import redraw_overview
from cellseg.errors import CellsegError, Notice
from cellseg.protocol import Marker
from cellseg.result import Change, Ground, Result
from cellseg.result.publish import HISTOGRAM, OUTLINES, OVERVIEW
from cellseg.slide import Slide
from cellseg.table.regions import counted


def draw_pictures(
    change: Change, slide: Slide | None, *, why: CellsegError | None = None
) -> list[Notice]:
    """Draw all pictures of a result that is being changed.

    Parameters
    ----------
    slide : Slide or None
        Without it there are no outlines and no overview.
    why : CellsegError, optional
        Why there is none.

    Returns
    -------
    list of Notice
        Pictures that could not be drawn, and are left out.
    """
    result, notices = change.result, []
    if (classification := Classification.of(result.run)) is not None:
        cuttings = [
            _cutting(marker, result.table.column(marker.measure).to_numpy(np.float64), method)
            for marker, method in zip(classification.markers, classification.methods, strict=True)
        ]
        draw_histograms(change.path(HISTOGRAM), cuttings)
    if slide is None:
        change.remove(OUTLINES)
        change.remove(OVERVIEW)
        said = f"{OUTLINES} and {OVERVIEW} were left out: {why or 'the slide is not there'}"
        return [Notice(said, hint="image")]
    try:
        ground = titled(result.ground(slide), result)
        write_png(draw_outlines(ground, masks_of(result)), change.path(OUTLINES))
    except CellsegError as error:
        change.remove(OUTLINES)
        notices.append(Notice(f"{OUTLINES} was left out: {error}"))
    try:
        redraw_overview(result, slide, change.path(OVERVIEW))
    except CellsegError as error:
        change.remove(OVERVIEW)
        notices.append(Notice(f"{OVERVIEW} was left out: {error}"))
    return notices


def titled(ground: Ground, result: Result) -> Ground:
    """With the number of cells in the title."""
    title = f"{ground.title}: {counted(result.summary.cells, result.object_name)}"
    if "corrected_from" in result.run:
        title += ", corrected"
    return replace(ground, title=title)


def _cutting(marker: Marker, values: NDArray[np.float64], method: str) -> Cutting:
    seen = histogram(values, int(np.clip(2 * np.sqrt(values.size), 32, 256)))
    limits = np.atleast_1d(np.asarray(marker.threshold, np.float64))
    said = ", ".join(f"{(values >= limit).sum():,} at or above {limit:g}" for limit in limits)
    outside = seen.below + seen.above
    beyond = f"; {outside:,} beyond this picture" if outside else ""
    return Cutting(
        title=f"{named(marker)}: {marker.measure} of {seen.counts.sum():,} cells",
        counts=seen.counts,
        edges=seen.edges,
        thresholds=tuple(limits.tolist()),
        said=f"threshold: {method}; {said}{beyond}",
    )
