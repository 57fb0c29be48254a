"""The cells around the nuclei of a finished count: label image, columns and record, in one step.

The nuclei, their labels and their measurements stay byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.added import add_columns
from cellseg.derive.changing import changing
from cellseg.derive.corrections import open_result_slide
from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.geometry import Box, Frame
from cellseg.result import publish
from cellseg.result.labels import write_label_blocks
from cellseg.result.result import Result, load_result
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes
from cellseg.storage import Location
from cellseg.table import Scale
from cellseg.table.around import AroundSums, Seen, around_columns
from cellseg.table.grow import BLOCK_PX, grown_blocks

MOST_UM, MOST_PX = 50.0, 200.0
"""Largest distance: µm, or pixels of an image without a pixel size."""

_MOST_LATTICE_PX = 512


def expand(
    folder: Path,
    by: float,
    *,
    image: Location | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Result:
    """Grow each nucleus until it meets its neighbour or a distance, and measure what comes of it.

    Parameters
    ----------
    folder : Path
        A finished result; an earlier expansion is replaced.
    by : float
        µm; pixels of the image where it has no pixel size.
    image : Path or RemotePath, optional
        Where the slide is by now, if it was moved.
    on_progress : callable, optional
        Gets the share that is done, 0 … 1.

    Returns
    -------
    Result
        With ``expansion`` and ``stale`` in its ``run``.

    Raises
    ------
    SettingsError
        If the distance is not above 0, less than a pixel of the masks, or too large.
    InputError
        If the folder is no finished result, or its table was changed since.
    OutputError
        If the disk refuses, or a run is writing there; the result stays as it was.
    """
    with changing(folder) as result, ExitStack() as stack:
        distance = lattice_distance(by, result.frame)
        slide, notes = None, []
        try:
            slide = stack.enter_context(open_result_slide(result, image))
        except CellsegError as error:
            notes.append(f"{error}; cells have areas alone, say where it is with --image")
        work = _Expansion(result, slide, by, distance, notes)
        work.publish(on_progress or (lambda share: None))
    return load_result(folder)


def lattice_distance(by: float, frame: Frame) -> float:
    """A distance in lattice pixels.

    Raises
    ------
    SettingsError
    """
    unit, most = ("px", MOST_PX) if frame.mpp is None else ("µm", MOST_UM)
    if not (math.isfinite(by) and 0 < by <= most):
        raise SettingsError(f"cells can grow by more than 0 and up to {most:g} {unit}, got {by:g}")
    pixel = frame.downsample * (frame.mpp or 1)
    if by < pixel:
        raise SettingsError(
            f"{by:g} {unit} is less than a pixel of the masks, which is {pixel:.3g} {unit}"
        )
    if by / pixel > _MOST_LATTICE_PX:
        raise SettingsError(
            f"{by:g} {unit} is {by / pixel:,.0f} pixels of the masks, at most {_MOST_LATTICE_PX}; "
            "is the pixel size right?"
        )
    return by / pixel


class _Expansion:
    def __init__(
        self, result: Result, slide: Slide | None, by: float, distance: float, notes: list[str]
    ) -> None:
        self._result, self._by, self._distance = result, by, distance
        self._slide, self._notes, self._unread = slide, notes, 0
        frame = result.frame
        measured = slide is not None and result.section("protocol").get("intensity")
        channels = tuple(slide.channels) if slide is not None and measured else ()
        self._seen = _seen(result, channels)
        self._rows = len(result.rows())
        scale = Scale(frame.downsample, frame.mpp)
        self._sums = AroundSums(self._rows, scale, self._seen)
        self._columns = around_columns(
            channels, stain=self._seen.stain, has_mpp=frame.mpp is not None
        )

    def publish(self, on_progress: Callable[[float], None]) -> None:
        """Labels, table and record into place, all or none."""

        def labels(staging: Path, token: str) -> None:
            blocks, frame = self._blocks(on_progress), self._result.frame
            write_label_blocks(staging / publish.CELLS, blocks, frame, token=token)

        add_columns(
            self._result,
            "expansion",
            self._columns,
            self._sums.table,
            about=self._about,
            before=labels,
        )

    def _about(self) -> dict[str, Any]:
        notes = list(self._notes)
        if self._unread:
            notes.append(
                f"{self._unread} blocks of the slide cannot be read: what lies there is in the "
                "cells' areas, not in their means"
            )
        return {
            "by": self._by,
            "unit": "px" if self._result.frame.mpp is None else "µm",
            "measured": bool(self._seen.channels),
            "notes": notes,
        }

    def _blocks(
        self, on_progress: Callable[[float], None]
    ) -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        frame, labels = self._result.frame, self._result.labels()[0]
        if labels.shape != (frame.lattice_height, frame.lattice_width):
            raise InputError(f"{self._result.labels_path}: is not as large as run.json says")
        for box, nuclei, cells in grown_blocks(labels, self._distance, block_px=BLOCK_PX):
            if cells.max() > self._rows:
                raise InputError(
                    f"{self._result.labels_path}: has cell {cells.max():,}, "
                    f"the table only {self._rows:,}"
                )
            self._sums.add(nuclei, cells, self._pixels(box))
            yield box, cells
            on_progress(box.y1 / frame.lattice_height)

    def _pixels(self, box: Box) -> NDArray[Any] | None:
        if self._slide is None or not self._seen.channels:
            return None
        try:
            return self._slide.read(box, downsample=self._result.frame.downsample)
        except RegionError:
            self._unread += 1
            return None


def _seen(result: Result, channels: tuple[str, ...]) -> Seen:
    """What is measured, as the run did for the nuclei.

    Raises
    ------
    InputError
        If ``run.json`` is damaged.
    """
    settings, stain = result.section("settings"), result.section("protocol").get("stain")
    try:
        seen = Seen(channels, stain=stain or "brightfield")
        if not seen.stains:
            return seen
        if settings.get("dyes"):
            return replace(seen, white=Dyes.from_dict(settings["dyes"]))
        return replace(seen, white=float(settings["intensity_high"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{result.run_path}: does not say the slide's white (intensity_high) or its dyes: "
            f"{type(error).__name__}: {error}"
        ) from error
