"""Corrected cells, measured as the run measured the automatic ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.corrections.edit import EditedCell
from cellseg.derive.expand import pixels_of
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.result import Result
from cellseg.slide import Slide
from cellseg.table import Scale, measure

BORDER_PX = 2
"""A cell this near to the slide's edge touches it, as the seam rule has it."""


def instances_of(cells: Sequence[EditedCell], classes: Sequence[int] = ()) -> Instances:
    """Cells as detectors give them; ``classes`` are indices, all 0 where left out."""
    return Instances.build(
        [cell.box.corners for cell in cells],
        [cell.score for cell in cells],
        classes or [0] * len(cells),
        [cell.mask for cell in cells],
    )


def measured(result: Result, cells: Sequence[EditedCell]) -> pd.DataFrame:
    """The measurements of single cells, one row each; intensities are left out without the slide.

    Parameters
    ----------
    result : Result
        Its ``run.json`` says scale, stain, channels and white level.
    cells : sequence of EditedCell
        At least one.
    """
    frame, slide = result.frame, None
    if result.section("protocol").get("intensity"):
        try:
            slide = result.slide()
        except CellsegError:
            slide = None
    seen = pixels_of(result, () if slide is None else tuple(slide.channels))
    extent = Box(0, 0, frame.lattice_height, frame.lattice_width)
    with slide or nullcontext():
        parts = [
            measure(
                instances_of([cell]),
                None if slide is None else _pixels(slide, cell.box, frame.downsample),
                (cell.box.y0, cell.box.x0),
                scale=Scale(frame.downsample, frame.mpp),
                channels=seen.channels,
                stain=seen.stain,
                white=seen.white,
            ).assign(touches_border=near.intersection(extent) != near)
            for cell in cells
            for near in [cell.box.widened(BORDER_PX)]
        ]
    return pd.concat(parts, ignore_index=True).assign(stitched=False)


def _pixels(slide: Slide, box: Box, downsample: float) -> NDArray[Any]:
    try:
        return slide.read(box, downsample=downsample)
    except CellsegError:
        return np.full((*box.shape, len(slide.channels)), np.nan, np.float32)
