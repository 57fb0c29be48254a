"""The merge as a stream: tiles in, final cells out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.merge._cell import (
    PART_PX,
    Cell,
    MergeStats,
    Settled,
    State,
    handed_out,
)
from cellseg.counting.merge._graph import OverlapGraph
from cellseg.counting.merge._masks import Corners, Mask, meeting_pairs, tightened, window
from cellseg.geometry import NEAR_PX, Box, Tile, TileGrid
from cellseg.instances import Instances


class SeamMerger:
    """Merges the instances of tiles that come in any order.

    The tiles that are ``absent``, (row, column), never come, because they were skipped.
    """

    def __init__(self, grid: TileGrid, *, absent: Collection[tuple[int, int]] = ()) -> None:
        self._grid = grid
        self._absent = frozenset(absent)
        self._in: set[tuple[int, int]] = set(self._absent)
        self._waiting: defaultdict[tuple[int, int], list[Cell]] = defaultdict(list)
        self._graph = OverlapGraph(grid, self._absent)
        self._serial = 0

    @property
    def stats(self) -> MergeStats:
        """What became of the instances so far."""
        return replace(self._graph.stats)

    def add(self, tile: Tile, instances: Instances) -> Settled:
        """Take in one tile, each once; returns the cells that became final.

        ``instances`` were found in ``tile.padded``, on the slide's lattice; none if the tile
        failed. ValueError if the tile is in already or was called absent, or if an instance lies
        outside of the padded tile or has a score that is no number.
        """
        place = (tile.row, tile.column)
        self._check(tile, instances)
        fresh = self._contributed(tile, instances)
        known = [
            cell
            for cell in self._waiting.pop(place, [])
            if not (cell.part and cell.state is State.GONE)
        ]
        self._in.add(place)
        for cell in known:
            cell.waits -= 1
        self._expect(tile, fresh)
        self._graph.open.update(fresh)
        cells = known + fresh
        if cells:
            boxes = np.array([cell.box for cell in cells], dtype=np.int64)
            for first, second in meeting_pairs(boxes, len(known)).tolist():
                self._graph.link(cells[first], cells[second])
        return handed_out(self._graph.settle(cells), self._grid)

    def finish(self) -> Settled:
        """The rest; ValueError if tiles are missing."""
        missing = len(self._grid) - len(self._in)
        if missing:
            raise ValueError(f"{missing} of {len(self._grid)} tiles are not in")
        return handed_out(self._graph.settle(self._graph.open), self._grid)

    def _check(self, tile: Tile, instances: Instances) -> None:
        place = (tile.row, tile.column)
        if place in self._in:
            state = "was called absent" if place in self._absent else "is in already"
            raise ValueError(f"tile {place} {state}")
        if not np.isfinite(instances.scores).all():
            raise ValueError(f"tile {place} has scores that are no numbers")
        outside = ~_inside(instances.boxes, tile.padded)
        if outside.any():
            index = int(np.argmax(outside))
            raise ValueError(
                f"tile {place}: instance {index} at {instances.boxes[index].tolist()} "
                f"leaves the padded tile {tile.padded}"
            )

    def _contributed(self, tile: Tile, instances: Instances) -> list[Cell]:
        """The instances that touch the widened core and are this tile's, with tight boxes."""
        near = tile.near
        reach: Corners = (near.y0, near.x0, near.y1, near.x1)
        certain = _inside(instances.boxes, near).tolist()
        cells = []
        for index, corners in enumerate(instances.boxes.tolist()):
            crop = tightened(tuple(corners), instances.masks[index])
            if crop is None or not (certain[index] or window(*crop, reach).any()):
                continue
            if self._is_anothers(tile, crop[0]):
                continue
            cells.append(self._cell(tile, crop, instances, index))
        self._graph.stats.received += len(cells)
        self._graph.stats.outside += len(instances) - len(cells)
        return cells

    def _is_anothers(self, tile: Tile, box: Corners) -> bool:
        """Whether an instance that is whole here is so, too, in the tile that owns its middle."""
        y, x = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        core, near = tile.core, NEAR_PX // 2
        is_own = core.y0 - near <= y < core.y1 + near and core.x0 - near <= x < core.x1 + near
        owner = self._grid.owner(y, x)
        if is_own or owner in self._absent or self._is_part(box, tile.padded):
            return False
        return not self._is_part(box, self._grid.at(*owner).padded)

    def _cell(
        self, tile: Tile, crop: tuple[Corners, Mask], instances: Instances, index: int
    ) -> Cell:
        box, mask = crop
        self._serial += 1
        return Cell(
            box=box,
            mask=mask,
            area=int(np.count_nonzero(mask)),
            score=float(instances.scores[index]),
            label=int(instances.classes[index]),
            tile=tile,
            part=self._is_part(box, tile.padded),
            serial=self._serial,
        )

    def _is_part(self, box: Corners, padded: Box) -> bool:
        near, grid = PART_PX, self._grid
        return (
            (box[0] < padded.y0 + near and padded.y0 > 0)
            or (box[1] < padded.x0 + near and padded.x0 > 0)
            or (box[2] > padded.y1 - near and padded.y1 < grid.height)
            or (box[3] > padded.x1 - near and padded.x1 < grid.width)
        )

    def _expect(self, tile: Tile, cells: list[Cell]) -> None:
        """Enter each cell with the missing tiles that see it: all that may still touch it."""
        missing = any(place not in self._in for place in self._grid.seeing(tile.padded))
        if not (cells and missing):
            return
        boxes = np.array([cell.box for cell in cells], dtype=np.int64)
        # Most lie where no other tile sees them: asked of all at once, it is cheap.
        seen_by = self._grid.seen_by(boxes)
        shared = (seen_by[:, :2] != seen_by[:, 2:]).any(axis=1)
        for index in np.flatnonzero(shared).tolist():
            cell = cells[index]
            top, left, bottom, right = seen_by[index].tolist()
            for place in product(range(top, bottom + 1), range(left, right + 1)):
                if place not in self._in:
                    cell.waits += 1
                    self._waiting[place].append(cell)
            if cell.waits and cell.mask.base is not None:
                cell.mask = cell.mask.copy()  # a view would keep its whole tile in memory


def _inside(boxes: NDArray[np.int64], outer: Box) -> NDArray[np.bool_]:
    """Whether each box lies in ``outer``; (N,)."""
    low = (boxes[:, :2] >= (outer.y0, outer.x0)).all(axis=1)
    high = (boxes[:, 2:] <= (outer.y1, outer.x1)).all(axis=1)
    return np.logical_and(low, high, dtype=np.bool_)
