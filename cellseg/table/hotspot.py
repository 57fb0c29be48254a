"""Hot spots: the place where most cells of a kind lie together, and how far choosing it misleads.

Whoever takes the best of all places gets a high share of positive cells even where they lie by
chance. So the same is done with the cells' classes shuffled: what the best place has then is what
the choice alone brings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cellseg.errors import SettingsError

SHUFFLES = 200

MOST_LOOKED_AT = 20_000
"""Places at which a number of cells is looked for together."""

MOST_SQUARES = 2_000_000
"""Squares into which the slide is divided, at most; usually twelve across a hot spot."""

HOT = "hot spot"
"""Name and class of its region."""

Cells = NDArray[np.bool_]
_NEXT = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2, indexing="ij"), -1).reshape(-1, 2)
"""Circles that are tried about the best square, in units of it."""


class HotSpot(BaseModel):
    """The hot spot that is asked for: a circle's area, or a number of measured cells.

    ``of`` is a class of cells: of a type by the model, these alone are looked at; any other class
    is what makes a place hot. Empty: positive cells of the first marker do, or any cell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mm2: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    cells: int | None = Field(default=None, ge=20, le=1_000_000)
    of: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.mm2 is None) == (self.cells is None):
            raise ValueError("a hot spot is an area in mm² or a number of cells")
        return self

    def __str__(self) -> str:
        """For a person."""
        size = f"{self.mm2:g} mm²" if self.cells is None else f"{self.cells:,} cells"
        return f"{size} of {self.of}" if self.of else size


@dataclass(frozen=True, eq=False)
class FoundSpot:
    """The hottest place: a circle, level-0 pixels.

    ``shuffled``, (S,), are shares of hot cells in the best place, each time that the classes were
    shuffled; empty where all cells are hot.
    """

    y: float
    x: float
    radius: float
    looked_at: int  # Places that were compared.
    shuffled: NDArray[np.float64]

    def contains(self, places: NDArray[np.float64]) -> Cells:
        """Which cells lie in it, (N,)."""
        return np.asarray(np.hypot(*(places - (self.y, self.x)).T) <= self.radius)


def hottest(
    places: NDArray[np.float64], hot: Cells, asked: HotSpot, *, mpp: float | None
) -> FoundSpot:
    """Find the circle that holds most hot cells; a SettingsError if there are too few cells.

    Where no cell is hot it is the one that holds most cells. ``places``, (N, 2), are those of the
    cells that are looked at, (y, x), level-0 pixels. Without a pixel size a number of cells is
    asked for.
    """
    if not hot.any():
        hot = np.ones_like(hot)
    if asked.cells is not None:
        if len(places) < asked.cells:
            raise SettingsError(
                f"no hot spot: {asked.cells:,} cells are wanted, there are {len(places):,}",
                hint="hotspot",
            )
        return _of_cells(places, hot, asked.cells)
    if not len(places):
        raise SettingsError("no hot spot: there are no cells")
    assert mpp is not None  # else the recipe would have been refused
    assert asked.mm2 is not None
    return _of_area(places, hot, 1000 / mpp * math.sqrt(asked.mm2 / math.pi))


def _of_cells(places: NDArray[np.float64], hot: Cells, number: int) -> FoundSpot:
    """Around each of many cells the nearest ones: where most of them are hot."""
    from scipy.spatial import cKDTree  # late: it takes a second to load

    chosen = np.linspace(0, len(places) - 1, min(len(places), MOST_LOOKED_AT)).astype(np.int64)
    # In order of the tree, so that those that are left out lie among the others.
    tree = cKDTree(places)
    chosen = tree.indices[chosen]
    near = np.empty((len(chosen), number), np.int32)
    radii = np.empty(len(chosen))
    for first in range(0, len(chosen), 1000):
        part = slice(first, first + 1000)
        away, near[part] = tree.query(places[chosen[part]], k=number)
        radii[part] = away[:, -1]
    held = _held(hot, near)
    best = int(np.lexsort((radii, -held))[0])
    y, x = places[chosen[best]]
    rng, shuffled = np.random.default_rng(0), []
    for _ in range(0 if hot.all() else SHUFFLES):
        shuffled.append(_held(rng.permutation(hot), near).max() / number)
    radius = float(radii[best]) * (1 + 1e-9)  # the farthest of them lies inside
    return FoundSpot(float(y), float(x), radius, len(chosen), np.array(shuffled))


def _held(hot: Cells, near: NDArray[np.int32]) -> NDArray[np.int64]:
    """Hot cells among those near each place."""
    return np.concatenate(
        [np.count_nonzero(hot[near[n : n + 2000]], axis=1) for n in range(0, len(near), 2000)]
    )


def _of_area(places: NDArray[np.float64], hot: Cells, radius: float) -> FoundSpot:
    """Cells by squares, and sums over discs of squares; then exact circles about the best of them.

    What is shuffled is looked through in the same way, so that both shares are of one kind.
    """
    corner = places.min(axis=0)
    side = max(radius / 6, float(np.sqrt(np.prod(np.ptp(places, axis=0) + 1) / MOST_SQUARES)))
    reach = math.ceil(radius / side)
    at = ((places - corner) / side).astype(np.int64) + reach
    height, width = (at.max(axis=0) + reach + 1).tolist()
    flat = at[:, 0] * width + at[:, 1]
    rows = range(-reach, reach + 1)
    half = [int(np.sqrt(max(0.0, (radius / side) ** 2 - row**2))) for row in rows]

    def summed(chosen: Cells) -> NDArray[np.int32]:
        """Chosen cells in the disc around each square."""
        squares = np.bincount(flat[chosen], minlength=height * width).astype(np.int32)
        padded = np.zeros((height + 2 * reach, width + 2 * reach + 1), np.int32)
        padded[reach:-reach, reach + 1 : reach + 1 + width] = squares.reshape(height, width)
        sums = padded.cumsum(axis=1, dtype=np.int32)
        found = np.zeros((height, width), np.int32)
        for row, reached in zip(rows, half, strict=True):
            line = sums[reach + row : reach + row + height]
            last, first = reach + reached + 1, reach - reached
            found += line[:, last : last + width] - line[:, first : first + width]
        return found

    def best(chosen: Cells) -> tuple[NDArray[np.float64], float]:
        """The middle of the circle that holds most chosen cells, and their share of its cells."""
        square = np.unravel_index(summed(chosen).argmax(), (height, width))
        middle = (np.array(square) - reach + 0.5) * side + corner
        near = (np.abs(places - middle) <= radius + 2 * side).all(axis=1)
        around, kind = places[near], chosen[near]
        centres = middle + _NEXT * side
        inside = np.hypot(*(around[None] - centres[:, None]).transpose(2, 0, 1)) <= radius
        held = (inside & kind).sum(axis=1)
        most = int(held.argmax())
        return centres[most], float(held[most] / inside[most].sum())

    (y, x), _ = best(hot)
    rng = np.random.default_rng(0)
    shuffled = [best(rng.permutation(hot))[1] for _ in range(0 if hot.all() else SHUFFLES)]
    looked_at = int(np.count_nonzero(summed(np.ones(len(places), np.bool_))))
    return FoundSpot(float(y), float(x), radius, looked_at, np.array(shuffled))
