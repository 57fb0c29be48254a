"""Cells of a result for its exports: rows with their masks, classes, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.geometry import Box, LazyArray
from cellseg.protocol import Stain
from cellseg.result.labels import CHUNK_PX
from cellseg.result.result import Result
from cellseg.table import Column, columns
from cellseg.table.around import around_columns
from cellseg.table.neighbours import Neighbours

BLOCK_PX = CHUNK_PX  # Side of the part of the label image whose cells are taken together.
LARGEST_CELL_PX = 4096  # Longer cells are damage, not cells; lattice pixels.
_BOX = ["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px"]


@dataclass(frozen=True, eq=False)
class Mask:
    """One cell's pixels, not all background; ``y0`` and ``x0`` are the first one's, lattice px."""

    y0: int
    x0: int
    pixels: NDArray[np.bool_]


def described(result: Result) -> list[Column]:
    """The table's columns, in order; unit and meaning are empty of those that nobody describes."""
    channels = result.section("settings").get("channels") or []
    stain = cast("Stain", result.stain)
    within = result.section("spatial").get("within")
    known = {
        column.name: column
        for column in (
            *columns(channels, stain=stain, has_mpp=True, has_regions=True, has_t=True),
            *around_columns(channels, stain=stain, has_mpp=True),
            *Neighbours(result.frame.mpp, within, tuple(result.class_names)).columns,
        )
    }
    return [replace(known.get(own.name, own), dtype=own.dtype) for own in result.columns]


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table whose texts are changed."""
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name].dtype):
            new = {text: change(text) for text in table[name].unique()}
            if any(old != text for old, text in new.items()):
                table = table.assign(**{name: table[name].map(new).astype(table[name].dtype)})
    return table


def blocks(result: Result) -> Iterator[tuple[pd.DataFrame, list[Mask]]]:
    """All cells, those of one part of the slide together: rows of the table, and a mask for each.

    Raises
    ------
    InputError
        If the label image does not decode, or lacks a cell that the table has.
    """
    level, boxes = result.labels()[0], _boxes(result)
    places = boxes[:, 0] // BLOCK_PX * (level.shape[1] // BLOCK_PX + 1) + boxes[:, 1] // BLOCK_PX
    order = np.argsort(places, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        if some.size:
            table = result.table.take(some)
            yield table, _masks(result, level, boxes[some], table["label"].tolist())


def _boxes(result: Result) -> NDArray[np.int32]:
    """(y0, x0, y1, x1) of all cells, lattice pixels, at most a pixel too wide on each side."""
    frame = result.frame
    try:
        edges = result.table.load(_BOX).to_numpy() / frame.downsample
    except KeyError as error:
        raise InputError(f"{result.path}: has no column {error}") from error
    # A hair of tolerance, as where they were measured.
    extent = (frame.lattice_height, frame.lattice_width)
    low = np.maximum(np.floor(edges[:, :2] + 1e-6), 0)
    high = np.ceil(edges[:, 2:] - 1e-6)
    wrong = ((low >= extent) | (high <= low) | (high - low > LARGEST_CELL_PX)).any(axis=1)
    if wrong.any():
        raise InputError(
            f"{result.path}: the box of the cell in row {wrong.argmax() + 1} is none on this slide"
        )
    return np.concatenate([low, np.minimum(high, extent)], axis=1).astype(np.int32)


def _masks(
    result: Result, level: LazyArray, corners: NDArray[np.int32], labels: list[int]
) -> list[Mask]:
    boxes = [Box(*box) for box in corners.tolist()]
    around = Box.around(boxes)
    seen = level[around.pixels]
    found = []
    for label, box in zip(labels, boxes, strict=True):
        pixels = seen[box.inside(around)] == label
        if not pixels.any():
            raise InputError(f"{result.path}: its masks lack cell {label}, which the table lists")
        found.append(Mask(box.y0, box.x0, pixels))
    return found
