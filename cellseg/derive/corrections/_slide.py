"""From a result back to its slide, and to how the run measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellseg.derive.corrections._edit import EditedCell
from cellseg.errors import CellsegError, InputError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.protocol import Stain
from cellseg.result.result import Result
from cellseg.slide import Slide, open_slide
from cellseg.stain.dyes import Dyes
from cellseg.storage import Location
from cellseg.table import REGION, Scale, columns, measure


def find_slide(result: Result) -> Path:
    """Where the slide is: as recorded, or beside the folder when both were moved.

    Raises
    ------
    InputError
        If it is at neither place.
    """
    recorded = Path(str(result.section("image").get("path", "")))
    beside = result.path.absolute().parent
    for path in (recorded, beside / recorded, beside / recorded.name):
        if recorded.name and path.exists():
            return path
    raise InputError(f"{recorded}: the slide of {result.path.name} is not there any more")


def opening(result: Result) -> dict[str, Any]:
    """How the run opened its slide, as far as run.json says it."""
    settings = result.section("settings")
    kept = {key: settings[key] for key in ("z", "t", "series") if settings.get(key) is not None}
    return kept | ({} if result.frame.mpp is None else {"mpp": result.frame.mpp})


def open_result_slide(result: Result, image: Location | None = None) -> Slide:
    """The result's slide, opened as the run opened it.

    Parameters
    ----------
    image : Path or RemotePath, optional
        Where the slide is by now; looked for otherwise.

    Raises
    ------
    InputError
        If it is gone, or is another one by now.
    """
    slide = open_slide(image or find_slide(result), **opening(result))
    if (slide.height, slide.width) != (result.frame.height, result.frame.width):
        slide.close()
        raise InputError(f"{slide.path}: is not the slide that {result.path.name} was counted on")
    return slide


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
            self._slide = open_result_slide(result)
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
        names = [str(column["name"]) for column in self._result.run["columns"]]
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
