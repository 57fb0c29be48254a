"""Corrected cells, measured as the run measured the automatic ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.corrections.edit import EditedCell
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.protocol import Stain
from cellseg.result import Result
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes
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
    frame, protocol = result.frame, result.section("protocol")
    stain: Stain = protocol.get("stain", "brightfield")
    settings = result.section("settings")
    white = None if stain == "fluorescence" else settings.get("intensity_high")
    if settings.get("dyes"):
        white = Dyes.from_dict(settings["dyes"])
    slide: Slide | None = None
    if protocol.get("intensity"):
        try:
            slide = result.slide()
        except CellsegError:
            slide = None
    channels = () if slide is None else tuple(slide.channels)
    with slide or nullcontext():
        parts = [
            measure(
                instances_of([cell]),
                None if slide is None else _pixels(slide, cell.box, frame.downsample),
                (cell.box.y0, cell.box.x0),
                scale=Scale(frame.downsample, frame.mpp),
                channels=channels,
                stain=stain,
                white=white,
            )
            for cell in cells
        ]
    height, width = frame.lattice_height, frame.lattice_width
    touches = [
        min(cell.box.y0, cell.box.x0) < BORDER_PX
        or cell.box.y1 > height - BORDER_PX
        or cell.box.x1 > width - BORDER_PX
        for cell in cells
    ]
    return pd.concat(parts, ignore_index=True).assign(touches_border=touches, stitched=False)


def _pixels(slide: Slide, box: Box, downsample: float) -> NDArray[Any]:
    try:
        return slide.read(box, downsample=downsample)
    except CellsegError:
        return np.full((*box.shape, len(slide.channels)), np.nan, np.float32)
