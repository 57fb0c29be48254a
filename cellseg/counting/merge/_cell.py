"""One instance on its way through the merge, and the order of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.merge._masks import Corners, Mask
from cellseg.geometry import Tile, TileGrid
from cellseg.instances import Instances

SAME_IOU = 0.5
"""Outlines whose masks overlap by so much are of one cell."""

PART_PX = 2
"""Closer to an inner edge of the padded tile, an instance is a part."""


@dataclass
class MergeStats:
    """What became of the instances so far.

    When all is settled, ``received`` equals the cells handed out + ``duplicates`` +
    ``parts_dropped`` + ``half_lost`` + (``parts_joined`` − cells made of them).
    """

    received: int = 0  # Instances that their tile contributed.
    outside: int = 0  # Instances that it did not, because they lie too far from its core.
    duplicates: int = 0  # Suppressed by an earlier cell.
    parts_dropped: int = 0  # Cut remains of a cell that another tile saw better.
    parts_joined: int = 0  # Parts that went into stitched cells.
    joins: int = 0  # Cells that were made of parts, whatever became of them.
    stitched: int = 0  # Stitched cells that were handed out.
    half_lost: int = 0  # Cells of which earlier ones took more than half.


@dataclass(frozen=True, eq=False)
class Settled:
    """Cells that are final: their masks are disjoint, their boxes tight."""

    instances: Instances  # On the slide's lattice, in no particular order.
    stitched: NDArray[np.bool_]  # (N,): made of parts that several tiles saw.
    touches_border: NDArray[np.bool_]  # (N,): closer to the slide's own edge than :data:`PART_PX`.

    def __len__(self) -> int:
        return len(self.instances)

    def take(self, chosen: NDArray[np.integer]) -> Settled:
        """Only some of them, by their indices."""
        return Settled(
            self.instances.take(chosen), self.stitched[chosen], self.touches_border[chosen]
        )


class State(Enum):
    """Where an instance stands."""

    OPEN = "not decided"
    KEPT = "survived the suppression, has no pixels yet"
    OWNED = "final, has its pixels"
    LOST = "survived the suppression, but earlier cells took more than half"
    GONE = "suppressed, dropped, or joined into another"


@dataclass(slots=True, eq=False)
class Cell:
    """One instance, and the instances that it shares pixels with."""

    box: Corners  # As the detector drew it, tight.
    mask: Mask
    area: int  # px
    score: float
    label: int
    tile: Tile  # Where it comes from; only parts ask.
    part: bool  # Whether it is a part that nothing has been decided about.
    serial: int
    """Tells apart instances that are equal in all else: which of them wins shows nowhere."""
    stitched: bool = False
    waits: int = 0  # Tiles that see it and are not in yet.
    state: State = State.OPEN
    edges: list[tuple[Cell, int]] = field(default_factory=list)
    """The others and the pixels shared; symmetric while both are undecided."""
    result: tuple[Corners, Mask] | None = None  # Tight, of what it owns in the end.

    def before(self, other: Cell) -> bool:
        """Whether this one comes first in the total order."""
        if self.score != other.score:
            return self.score > other.score
        if self.box != other.box:
            return self.box < other.box
        mine, theirs = self.mask.tobytes(), other.mask.tobytes()
        if mine != theirs:
            return mine < theirs
        return (self.label, self.stitched, self.serial) < (
            other.label,
            other.stitched,
            other.serial,
        )


def handed_out(cells: Iterable[Cell], grid: TileGrid) -> Settled:
    """The owned cells as a struct of arrays."""
    given = list(cells)
    results = [cell.result for cell in given if cell.result is not None]
    instances = Instances.build(
        [box for box, _ in results],
        [cell.score for cell in given],
        [cell.label for cell in given],
        [mask for _, mask in results],
    )
    y0, x0, y1, x1 = instances.boxes.T
    low, bottom, right = PART_PX, grid.height - PART_PX, grid.width - PART_PX
    border = (y0 < low) | (x0 < low) | (y1 > bottom) | (x1 > right)
    return Settled(instances, np.array([cell.stitched for cell in given], dtype=np.bool_), border)
