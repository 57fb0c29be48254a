"""Which instances share pixels, and what follows from it once enough is known."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from cellseg.counting.merge._cell import SAME_IOU, Cell, MergeStats, State
from cellseg.counting.merge._masks import (
    Corners,
    Mask,
    largest_piece,
    shared_px,
    tightened,
    union,
    window,
)
from cellseg.geometry import TileGrid

_DECIDABLE = (State.OPEN, State.KEPT)


class OverlapGraph:
    """Undecided instances, joined by an edge where they share pixels.

    A decision needs all tiles that see the instance, and the earlier ones of its neighbours.
    Nothing is decided on less, so what comes out does not depend on when it is asked.
    """

    def __init__(self, grid: TileGrid, absent: Collection[tuple[int, int]]) -> None:
        self._grid = grid
        self._absent = absent
        self._todo: list[Cell] = []
        self._settled: list[Cell] = []
        self.open: set[Cell] = set()
        self.stats = MergeStats()

    def link(self, first: Cell, second: Cell) -> None:
        """Take note of two instances whose boxes meet."""
        gone = first.state is State.GONE or second.state is State.GONE
        part, whole = (first, second) if first.part else (second, first)
        meets_whole = part.part and not whole.part
        # An undecided part goes, too, where the whole is suppressed already.
        if gone and not (meets_whole and part.state is State.OPEN):
            return
        shared = shared_px(first.box, first.mask, second.box, second.mask)
        if not shared:
            return
        if meets_whole and 2 * shared > part.area:
            self.stats.parts_dropped += 1
            self._end(part, State.GONE)
            return
        if not gone:
            first.edges.append((second, shared))
            second.edges.append((first, shared))

    def settle(self, touched: Iterable[Cell]) -> list[Cell]:
        """Decide what can be decided now, beginning with ``touched``; the cells that are final."""
        # The last is taken first: in the order of scores most are decided at the first look.
        self._todo.extend(sorted(touched, key=lambda cell: cell.score))
        while self._todo:
            cell = self._todo.pop()
            if cell.waits and (cell.part or not cell.edges):
                continue
            if cell.state is State.OPEN:
                if cell.part:
                    self._join(cell)
                else:
                    self._suppress(cell)
            if cell.state is State.KEPT:
                self._own(cell)
        settled, self._settled = self._settled, []
        return settled

    def _end(self, cell: Cell, state: State) -> None:
        """Nothing more happens to this one; its neighbours may go on."""
        cell.state = state
        self.open.discard(cell)
        self._wake(cell)
        cell.edges = []

    def _wake(self, cell: Cell) -> None:
        self._todo.extend(other for other, _ in cell.edges if other.state in _DECIDABLE)

    def _join(self, part: Cell) -> None:
        """Turn a part and all that agree with it into one cell, if they are all known."""
        members = {part: None}
        todo = [part]
        while todo:
            one = todo.pop()
            if one.waits:
                return
            for other, shared in one.edges:
                if other not in members and self._agree(one, other, shared):
                    members[other] = None
                    todo.append(other)
        if len(members) > 1:
            self._stitch(list(members))
        elif self._owns_centroid(part):
            part.part = False
            self._todo.append(part)
            self._wake(part)
        else:
            self.stats.parts_dropped += 1
            self._end(part, State.GONE)

    def _agree(self, one: Cell, other: Cell, shared: int) -> bool:
        """Whether two parts look the same where both of their tiles saw."""
        if not other.part or other.state is State.GONE or one.tile == other.tile:
            return False
        common = one.tile.padded.intersection(other.tile.padded)
        seen: Corners = (common.y0, common.x0, common.y1, common.x1)
        areas = [np.count_nonzero(window(cell.box, cell.mask, seen)) for cell in (one, other)]
        return bool(shared >= SAME_IOU * (sum(areas) - shared))

    def _stitch(self, members: list[Cell]) -> None:
        """Put one cell in the place of parts that agree."""
        box, mask = union([(member.box, member.mask) for member in members])
        best = members[0]
        for member in members:
            if member.before(best):
                best = member
        cell = Cell(
            box=box,
            mask=mask,
            area=int(np.count_nonzero(mask)),
            score=best.score,
            label=best.label,
            tile=best.tile,
            part=False,
            serial=best.serial,
            stitched=True,
        )
        around = dict.fromkeys(other for member in members for other, _ in member.edges)
        for other in around:
            if other.state is not State.GONE and other not in members:
                shared = shared_px(cell.box, cell.mask, other.box, other.mask)
                cell.edges.append((other, shared))
                other.edges.append((cell, shared))
        self.stats.joins += 1
        self.stats.parts_joined += len(members)
        self.open.add(cell)
        self._todo.append(cell)
        for member in members:
            self._end(member, State.GONE)

    def _owns_centroid(self, part: Cell) -> bool:
        """Whether no tile that is in saw the middle of a lone part better than its own did."""
        ys, xs = np.nonzero(part.mask)
        twice = 2 * part.area
        y = part.box[0] + (2 * int(ys.sum()) + part.area) // twice
        x = part.box[1] + (2 * int(xs.sum()) + part.area) // twice
        owner = self._grid.owner(y, x)
        return owner == (part.tile.row, part.tile.column) or owner in self._absent

    def _suppress(self, cell: Cell) -> None:
        """Keep a cell, or give it up for an earlier one of which it is a duplicate."""
        known = not cell.waits
        for other, shared in cell.edges:
            if other.state is State.GONE:
                continue
            if other.part:
                known = False
                continue
            same = shared >= SAME_IOU * (cell.area + other.area - shared)
            if same and other.before(cell):
                if other.state is not State.OPEN:
                    self.stats.duplicates += 1
                    self._end(cell, State.GONE)
                    return
                known = False
        if known:
            cell.state = State.KEPT
            self._wake(cell)

    def _own(self, cell: Cell) -> None:
        """Give a cell its pixels, once all that come before it have theirs."""
        earlier: list[tuple[Corners, Mask]] = []
        for other, _ in cell.edges:
            if other.state in (State.GONE, State.LOST):
                continue
            if other.before(cell):
                if other.result is None:
                    return
                earlier.append(other.result)
        result: tuple[Corners, Mask] | None = (cell.box, cell.mask)
        if earlier:
            mask = cell.mask.copy()
            for box, taken in earlier:
                window(cell.box, mask, box)[...] &= ~window(box, taken, cell.box)
            left = int(np.count_nonzero(mask))
            if 2 * left < cell.area:
                self.stats.half_lost += 1
                self._end(cell, State.LOST)
                return
            if left < cell.area:
                result = tightened(cell.box, largest_piece(mask))
        cell.result = result
        self.stats.stitched += cell.stitched
        self._settled.append(cell)
        self._end(cell, State.OWNED)
