"""Cells around nuclei: their label image, and the columns that are measured over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.recipe import lattice_distance
from cellseg.errors import InputError, Notice, RegionError
from cellseg.geometry import Box
from cellseg.result import Change, Result
from cellseg.result.labels import write_labels
from cellseg.result.publish import CELLS
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes
from cellseg.table import Column, Scale
from cellseg.table.around import AroundSums, ChannelPixels, around_columns
from cellseg.table.grow import BLOCK_PX, grown_blocks


def expanded(
    change: Change, by: float, slide: Slide | None
) -> tuple[list[Column], dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Grow each nucleus until it meets its neighbour or a distance, and measure what comes of it.

    Parameters
    ----------
    change : Change
        Gets ``cells.ome.zarr``.
    by : float
        µm; pixels of the image where it has no pixel size.
    slide : Slide or None
        Without it cells have areas alone.

    Returns
    -------
    columns : list of Column
    values : dict of str to ndarray, (N,)
    record : dict
        ``expansion`` of ``run.json``.

    Raises
    ------
    SettingsError
        If the distance is not above 0, less than a pixel of the masks, or too large.
    InputError
        If the masks do not fit the table.
    """
    result, frame = change.result, change.result.frame
    is_measured = slide is not None and bool(result.section("protocol").get("intensity"))
    channels = tuple(slide.channels) if slide is not None and is_measured else ()
    seen, rows = pixels_of(result, channels), len(result.table)
    sums = AroundSums(rows, Scale(frame.downsample, frame.mpp), seen)
    distance, labels, unread = lattice_distance(by, frame), result.labels()[0], 0
    if labels.shape != (frame.lattice_height, frame.lattice_width):
        raise InputError(f"{result.path}: its masks are not as large as run.json says")

    def blocks() -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        nonlocal unread
        for box, nuclei, cells in grown_blocks(labels, distance, block_px=BLOCK_PX):
            if cells.max() > rows:
                raise InputError(
                    f"{result.path}: its masks hold cell {cells.max():,}, the table only {rows:,}"
                )
            pixels = None
            if slide is not None and channels:
                try:
                    pixels = slide.read(box, downsample=frame.downsample)
                except RegionError:
                    unread += 1
            sums.add(nuclei, cells, pixels)
            yield box, cells

    write_labels(change.path(CELLS), blocks(), frame, token=result.token)
    notes = []
    if slide is None:
        notes.append(Notice("without the slide, cells have areas alone", hint="image"))
    if unread:
        notes.append(
            Notice(
                f"{unread} blocks of the slide cannot be read: what lies there is in the cells' "
                "areas, not in their means"
            )
        )
    columns = list(around_columns(channels, stain=seen.stain, has_mpp=frame.mpp is not None))
    record = {
        "by": by,
        "unit": "px" if frame.mpp is None else "µm",
        "measured": bool(channels),
        "columns": [column.name for column in columns],
        "notes": notes,
    }
    return columns, sums.table(0, rows), record


def pixels_of(result: Result, channels: tuple[str, ...]) -> ChannelPixels:
    """What is measured, as the run did for the nuclei.

    Raises
    ------
    InputError
        If ``run.json`` is damaged.
    """
    settings, stain = result.section("settings"), result.section("protocol").get("stain")
    try:
        seen = ChannelPixels(channels, stain=stain or "brightfield")
        if not seen.stains:
            return seen
        if settings.get("dyes"):
            return replace(seen, white=Dyes.from_dict(settings["dyes"]))
        return replace(seen, white=float(settings["intensity_high"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{result.path}/run.json: does not say the slide's white (intensity_high) or its "
            f"dyes: {type(error).__name__}: {error}"
        ) from error
