"""How long a run will still take: honest where tissue is uneven.

Tiles per second mislead as soon as the top of a slide is denser than its bottom: a tile costs
what its pixels cost, what its cells cost to find, and, a while later, what they cost to merge and
measure. These prices are fitted to the tiles done so far. How many cells wait in the others is
read off how strongly an overview is stained there: a few tiles of every strength go first, so
that the slide's bottom is known from the beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Tile = TypeVar("Tile", bound=Hashable)

MOST_SCOUTS, TILES_PER_SCOUT = 32, 12
"""Tiles that go first: so many, and at most one in so many."""

CLASSES = 8
"""Of strengths of stain."""

FEWEST_BLOCKS = 4
"""Deliveries to go by before there is an estimate."""

SMALLEST_SHARE = 0.03
"""Of the work; the same."""

_REST_SECONDS = 2.0
"""Whoever takes longer with an event has paused the run."""

_OUTLIER, _OUTLIERS_FROM = 5.0, 8
"""From so many deliveries on, one counts as at most so many times what it should have taken."""

_WRITE_SECONDS, _WRITE_SHARE = 3.0, 0.15
"""Writing takes this much, and this share of what merging and measuring took."""


@dataclass(frozen=True)
class TileOutlook:
    """What is known of a tile before the network saw it.

    Attributes
    ----------
    pixels : float
        That the network has to look at.
    stain : float
        The overview's distance from the background, 0 … 1, times those pixels.
    """

    pixels: float
    stain: float

    @property
    def strength(self) -> float:
        """Stain of the average pixel."""
        return self.stain / self.pixels if self.pixels else 0.0


class Remaining(Generic[Tile]):
    """Estimates the seconds that a run still takes.

    Parameters
    ----------
    tiles : mapping
        Every tile of the run, those of an earlier, interrupted run included.
    batch : int
        Tiles that come together.
    clock : callable
        Seconds, from any start.
    """

    def __init__(
        self,
        tiles: Mapping[Tile, TileOutlook],
        *,
        batch: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._batch = batch
        self._tiles = dict(tiles)
        self._left = self._fresh = sum(tile.pixels for tile in self._tiles.values())
        self._cells = _CellModel(self._tiles.values())
        self._cost = _CostModel()
        self._counted = self._settled = 0
        self._rested = 0.0
        self._looked_at = clock()
        self._open = _Delivery(None)

    def in_order(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Tiles to do, :func:`scouts_first`."""
        return scouts_first({tile: self._tiles[tile] for tile in tiles})

    def replayed(self, tile: Tile, cells: int, *, settled: int) -> None:
        """A tile of an earlier run: it tells how cells look, and nothing about speed."""
        self._take(tile, cells)
        self._settled = settled
        self._fresh = self._left

    def done(self, tile: Tile, cells: int, *, settled: int) -> None:
        """A tile has come, just now.

        Parameters
        ----------
        tile : Tile
            One of those to do.
        cells : int
            Found in it, those of its core only.
        settled : int
            Cells of all tiles so far that were merged and measured.
        """
        now = self._clock() - self._rested
        outlook = self._take(tile, cells)
        delivery = self._open
        delivery.tiles += 1
        delivery.work += [outlook.pixels, cells, settled - self._settled]
        self._settled = settled
        if delivery.tiles < self._batch and self._tiles:
            return
        if delivery.start is not None:  # what the first one took is mostly start-up
            self._cost.add(now - delivery.start, delivery.work)
        self._open = _Delivery(now)

    def goes_on(self) -> None:
        """Whoever looks at the events asks for the next one: if late, the run was paused."""
        held = self._clock() - self._looked_at
        if held > _REST_SECONDS:
            self._rested += held

    def seconds(self, *, measured: float = 0.0) -> float | None:
        """Seconds to the end, the writing included; None until there is enough to go by.

        Parameters
        ----------
        measured : float
            Seconds that merging and measuring took so far.
        """
        self._looked_at = self._clock()
        done = 1 - self._left / self._fresh if self._fresh else 1.0
        if self._cost.blocks < FEWEST_BLOCKS or done < SMALLEST_SHARE:
            return None
        waiting = self._cells.expected()
        unsettled = max(0.0, self._counted + waiting - self._settled)
        whole = 1 + unsettled / max(1, self._settled)
        writing = _WRITE_SECONDS + _WRITE_SHARE * measured * whole
        return self._cost.seconds(np.array([self._left, waiting, unsettled])) + writing

    def _take(self, tile: Tile, cells: int) -> TileOutlook:
        outlook = self._tiles.pop(tile)
        self._left = max(0.0, self._left - outlook.pixels)
        self._cells.add(outlook, cells)
        self._counted += cells
        return outlook


def scouts_first(tiles: Mapping[Tile, TileOutlook]) -> list[Tile]:
    """The tiles in their order, but for a few of every strength of stain that go first."""
    count = min(MOST_SCOUTS, len(tiles) // TILES_PER_SCOUT)
    by_stain = sorted(tiles, key=lambda tile: tiles[tile].strength)
    places = (np.arange(count) + 0.5) * len(by_stain) / max(1, count)
    scouts = dict.fromkeys(by_stain[int(place)] for place in places)
    first = [tile for tile in tiles if tile in scouts]
    return first + [tile for tile in tiles if tile not in scouts]


class _CellModel:
    """Cells of a tile from the strength of its stain, by classes of equally many tiles."""

    def __init__(self, tiles: Collection[TileOutlook]) -> None:
        strengths = np.sort([tile.strength for tile in tiles])
        groups = np.array_split(strengths, min(CLASSES, max(1, len(strengths))))
        self._edges = np.array([group[0] for group in groups[1:]])
        self._middles = np.array([group.mean() if group.size else 0.0 for group in groups])
        self._cells = np.zeros(len(groups))
        self._pixels = np.zeros(len(groups))
        self._left = np.zeros(len(groups))
        for tile in tiles:
            self._left[self._class(tile)] += tile.pixels

    def _class(self, tile: TileOutlook) -> int:
        return int(np.searchsorted(self._edges, tile.strength, side="right"))

    def add(self, tile: TileOutlook, cells: int) -> None:
        number = self._class(tile)
        self._cells[number] += cells
        self._pixels[number] += tile.pixels
        self._left[number] = max(0.0, self._left[number] - tile.pixels)

    def expected(self) -> float:
        """In the tiles that have not come; an unseen class lies between those beside it."""
        seen = self._pixels > 0
        if not seen.any():
            return 0.0
        rates = self._cells[seen] / self._pixels[seen]
        # Where nothing is stained, there are no cells.
        known = np.interp(self._middles, [0.0, *self._middles[seen]], [0.0, *rates])
        known[seen] = rates
        return float(known @ self._left)


@dataclass
class _Delivery:
    """Tiles that come together: since when, and what there was to do for them."""

    start: float | None
    tiles: int = 0
    work: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


class _CostModel:
    """Seconds for pixels, cells found and cells settled; no price is below zero."""

    def __init__(self) -> None:
        self.blocks = 0
        # Sums over deliveries of workᵀ · work and of work · seconds.
        self._squares = np.zeros((3, 3))
        self._products = np.zeros(3)

    def add(self, took: float, work: NDArray[np.float64]) -> None:
        if self.blocks >= _OUTLIERS_FROM:
            took = min(took, _OUTLIER * self.seconds(work))
        self.blocks += 1
        # A delivery of many tiles strays more, and by itself says more.
        self._squares += np.outer(work, work) / work[0]
        self._products += work * took / work[0]

    def seconds(self, work: NDArray[np.float64]) -> float:
        """What some work costs: non-negative least squares over the running sums."""
        size = np.sqrt(np.diag(self._squares))
        size[size == 0] = np.inf
        # Divided by their size, so that pixels and cells weigh the same in the rounding.
        squares = self._squares / np.outer(size, size) + 1e-6 * np.eye(3)
        root = np.linalg.cholesky(squares).T
        prices, _ = nnls(root, np.linalg.solve(root.T, self._products / size))
        return float((prices / size) @ work)


def in_words(seconds: float) -> str:
    """``about 12 min left``: as exact as an estimate can be."""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(round(minutes / 10) * 10 if minutes < 600 else minutes, 60)
    if hours < 10 and minutes:
        return f"about {hours} h {minutes} min left"
    hours += minutes >= 30
    return f"about {hours} h left" if hours < 48 else f"about {round(hours / 24)} days left"
