"""Corrected cells, measured as the run measured the automatic ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellseg.derive.corrections._edit import EditedCell
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.protocol import Stain
from cellseg.result import Result
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes
from cellseg.table import REGION, Scale, columns, measure

BORDER_PX = 2
"""A cell this near to the slide's edge touches it, as the seam rule has it."""


class Measurer:
    """Measures single cells as the run did; without the slide, intensities are left empty.

    Parameters
    ----------
    result : Result
        Its run.json says scale, stain, channels and white level.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self.note: str | None = None
        self._slide: Slide | None = None
        try:
            self._slide = result.slide()
        except CellsegError as error:
            self.note = f"{error}; corrected cells are measured without intensities"

    def close(self) -> None:
        """Close the slide; a second time does nothing."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def measure(self, cells: Sequence[EditedCell]) -> pd.DataFrame:
        """One row a cell, the result's columns but ``label``, ``class`` and ``object``."""
        frame, protocol = self._result.frame, self._result.section("protocol")
        stain: Stain = protocol.get("stain", "brightfield")
        names = [column.name for column in self._result.columns_found]
        scale = Scale(frame.downsample, frame.mpp)
        channels: tuple[str, ...] = ()
        if self._slide is not None and protocol.get("intensity"):
            channels = tuple(self._slide.channels)
        instances = Instances.build(
            [c.box.corners for c in cells],
            [c.score for c in cells],
            [0] * len(cells),
            [c.mask for c in cells],
        )
        settings = self._result.section("settings")
        white = None if stain == "fluorescence" else settings.get("intensity_high")
        if settings.get("dyes"):
            white = Dyes.from_dict(settings["dyes"])
        parts = [
            measure(
                instances.take([index]),
                self._pixels(cell.box) if channels else None,
                (cell.box.y0, cell.box.x0),
                scale=scale,
                channels=channels,
                stain=stain,
                white=white,
            )
            for index, cell in enumerate(cells)
        ]
        empty = [c.name for c in columns(channels, stain=stain, has_mpp=frame.mpp is not None)]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=empty)
        height, width = frame.lattice_height, frame.lattice_width
        table["touches_border"] = [
            min(c.box.y0, c.box.x0) < BORDER_PX
            or c.box.y1 > height - BORDER_PX
            or c.box.x1 > width - BORDER_PX
            for c in cells
        ]
        table["stitched"] = False
        later = ("label", "image", "class", "object", REGION)
        wanted = [name for name in names if name not in later]
        return table.reindex(columns=wanted, fill_value=np.nan)

    def _pixels(self, box: Box) -> np.ndarray[Any, np.dtype[Any]]:
        assert self._slide is not None
        try:
            return self._slide.read(box, downsample=self._result.frame.downsample)
        except CellsegError:
            return np.full((*box.shape, len(self._slide.channels)), np.nan, np.float32)
