"""Cells around nuclei: their label image, and the columns that are measured over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.recipe import MOST_PX, Recipe, lattice_distance
from cellseg.errors import CellsegError, InputError, Notice, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Change, Result
from cellseg.result.labels import write_labels
from cellseg.result.publish import CELLS
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes
from cellseg.table import Column
from cellseg.table.around import (
    AroundSums,
    ChannelGround,
    ChannelPixels,
    around_columns,
    follow,
    grown_blocks,
)

USUAL_UM, USUAL_DIAMETERS = 15.0, 2.0
"""How far nuclei grow over a channel unless given; nuclear diameters without a pixel size."""

RIM = 0.1
"""Of that distance, what cells without visible cytoplasm keep around their nuclei."""


def expanded(
    change: Change, recipe: Recipe, slide: Slide | None, *, is_lenient: bool = False
) -> tuple[list[Column], dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Grow each nucleus until it meets its neighbour or an end, and measure what comes of it.

    The change gets ``cells.ome.zarr``; the recipe says how far, and over which channel. Without
    the slide cells have areas alone. ``is_lenient``: nuclei grow by distance where the channel
    cannot be read.

    Returned are the columns, their values, (N,) each, and ``expansion`` of ``run.json``.
    """
    result, frame = change.result, change.result.frame
    is_measured = slide is not None and bool(result.section("protocol").get("intensity"))
    channels = tuple(slide.channels) if slide is not None and is_measured else ()
    seen, rows = pixels_of(result, channels), len(result.table)
    sums = AroundSums(rows, frame, seen)
    by, notes = recipe.expand, list[Notice]()
    if by is None:
        by = USUAL_UM if frame.mpp is not None else usual_px(result)
    distance, labels, unread = lattice_distance(by, frame), result.labels()[0], 0

    over = None
    if recipe.cells_from is not None:
        try:
            over = _followed(result, slide, recipe.cells_from, distance)
        except CellsegError as error:
            if not is_lenient:
                raise
            notes.append(Notice(f"{error}; nuclei grow by distance alone", hint=error.hint))

    def blocks() -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        nonlocal unread
        for box, nuclei, cells in grown_blocks(labels, distance, over):
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
    if slide is None:
        notes.append(Notice("the slide is not there: cells have areas alone", hint="image"))
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
        "from": recipe.cells_from if over else None,
        "unit": "px" if frame.mpp is None else "µm",
        "measured": bool(channels),
        "columns": [column.name for column in columns],
        "notes": notes,
    }
    return columns, sums.table(), record


def usual_px(result: Result) -> float:
    """How far nuclei grow by their own size, level-0 pixels; a whole number."""
    areas = result.measured.column("area_px").to_numpy(np.float64)
    usual = USUAL_DIAMETERS * 2 * np.sqrt(np.median(areas) / np.pi) if len(areas) else 0.0
    return float(min(max(np.rint(usual), np.ceil(result.frame.downsample)), MOST_PX))


def _followed(
    result: Result, slide: Slide | None, name: str, distance: float
) -> Callable[[Box, NDArray[np.uint32]], NDArray[np.uint32]]:
    """Grows the nuclei of a box over a channel; what cannot be read of it is dark."""
    if slide is None:
        raise SettingsError("cells are found on the slide, which is not there", hint="image")
    if result.stain != "fluorescence":
        raise SettingsError(
            f"cells are found from a channel of fluorescence, this is {result.stain}",
            hint="cells_from",
        )
    number = slide.channel_number(name, hint="cells_from")
    if (ground := ChannelGround.of(slide.overview()[0][..., number])) is None:
        raise SettingsError(f"channel {name} has one value everywhere", hint="cells_from")

    def grown(box: Box, nuclei: NDArray[np.uint32]) -> NDArray[np.uint32]:
        try:
            pixels = slide.read(box, downsample=result.frame.downsample, channels=[number])
        except RegionError:
            pixels = np.full((*box.shape, 1), ground.level)
        rim = max(1.0, distance * RIM)
        return follow(nuclei, pixels[..., 0], ground, distance=distance, rim=rim)

    return grown


def pixels_of(result: Result, channels: tuple[str, ...]) -> ChannelPixels:
    """What is measured, as the run did for the nuclei."""
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
