"""The cells of a result, one part of the slide after the other: rows with their masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.annotations.masks import Outline
from cellseg.errors import InputError
from cellseg.geometry import Box, LazyArray
from cellseg.result.labels import CHUNK_PX
from cellseg.result.result import Result
from cellseg.result.table import Table

BLOCK_PX = CHUNK_PX  # Side of the part of the label image whose cells are taken together.
LARGEST_CELL_PX = 4096  # Longer cells are damage, not cells; lattice pixels.
_BOX = ["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px"]


def blocks(result: Result, table: Table) -> Iterator[tuple[pd.DataFrame, list[Outline]]]:
    """All cells, those of one part of the slide together: rows of a table, and a mask for each.

    ``table`` is one of the result's: :attr:`Result.table` or :attr:`Result.measured`. A mask comes
    with its box, lattice px, and is not all background. An InputError if the label image does not
    decode, or lacks a cell that the table has.
    """
    level, boxes = result.labels()[0], _boxes(result, table)
    places = boxes[:, 0] // BLOCK_PX * (level.shape[1] // BLOCK_PX + 1) + boxes[:, 1] // BLOCK_PX
    order = np.argsort(places, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        if some.size:
            rows = table.take(some)
            yield rows, _masks(result, level, boxes[some], rows["label"].tolist())


def _boxes(result: Result, table: Table) -> NDArray[np.int32]:
    """(y0, x0, y1, x1) of all cells, lattice pixels, at most a pixel too wide on each side."""
    frame = result.frame
    try:
        edges = table.load(_BOX).to_numpy() / frame.downsample
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
) -> list[Outline]:
    boxes = [Box(*box) for box in corners.tolist()]
    around = Box.around(boxes)
    seen = level[around.pixels]
    found = []
    for label, box in zip(labels, boxes, strict=True):
        pixels = seen[box.inside(around)] == label
        if not pixels.any():
            raise InputError(f"{result.path}: its masks lack cell {label}, which the table lists")
        found.append((box, pixels))
    return found
