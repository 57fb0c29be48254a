"""Boxes and the slide-wide lattice of tiles.

All geometry of a run lies on one lattice of model pixels: (y, x), half-open.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

STRIDE_PX = 32  # Tile origins are multiples of this, the largest stride of the network.
NEAR_PX = 8
"""An object belongs to a tile only if it has a pixel in the tile's core, widened by this."""


@dataclass(frozen=True, order=True)
class Box:
    """A half-open rectangle [y0, y1) × [x0, x1) in pixels."""

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise ValueError(f"expected y0 <= y1 and x0 <= x1, got {self}")

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.y0, self.x0, self.y1, self.x1

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns, to index an array with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def inside(self, whole: Box) -> tuple[slice, slice]:
        """Its rows and columns in an array that holds the pixels of ``whole``."""
        return self.shifted(-whole.y0, -whole.x0).pixels

    def shifted(self, dy: int, dx: int) -> Box:
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    @staticmethod
    def around(boxes: Iterable[Box]) -> Box:
        """The smallest box that holds all of them; at least one."""
        y0, x0, y1, x1 = zip(*(box.corners for box in boxes), strict=True)
        return Box(min(y0), min(x0), max(y1), max(x1))

    def chunks(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """(row, column) of each chunk of ``height`` × ``width`` px that it has pixels of."""
        if self.area:
            for row in range(self.y0 // height, (self.y1 - 1) // height + 1):
                for column in range(self.x0 // width, (self.x1 - 1) // width + 1):
                    yield row, column

    def parts(self, side: int) -> list[Box]:
        """Squares that it is cut into, row by row; those at its far edges are smaller."""
        return [
            Box(y, x, y + side, x + side).intersection(self)
            for y in range(self.y0, self.y1, side)
            for x in range(self.x0, self.x1, side)
        ]

    def widened(self, margin: int) -> Box:
        """The box grown by ``margin`` px on every side (it may leave the slide)."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def intersection(self, other: Box) -> Box:
        """The common part; an empty box of size 0 where there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def intersects(self, other: Box) -> bool:
        """Whether the two share at least one pixel."""
        return self.intersection(other).area > 0


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """The box around the set pixels of a mask, (H, W); None where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


class LazyArray:
    """An array, (H, W) or (H, W, C), that is read box by box where it is indexed.

    As much of numpy's interface as napari and dask ask for. ``read`` gives the pixels of a box
    inside it, (h, w) or (h, w, C); what is asked for is rounded to ``chunks`` at best.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        read: Callable[[Box], NDArray[Any]],
        chunks: Sequence[int],
    ) -> None:
        self.shape, self.dtype, self.chunks = tuple(shape), np.dtype(dtype), tuple(chunks)
        self.ndim, self.size = len(shape), math.prod(shape)
        self.read = read

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __deepcopy__(self, memo: object) -> Self:
        """Napari's Duplicate copies a layer's data; this is only a way to read it."""
        return self

    def __getitem__(self, key: object) -> NDArray[Any]:
        """Basic indexing: integers, slices and ``...``."""
        keys: list[Any] = list(key) if isinstance(key, tuple) else [key]
        at = next((place for place, k in enumerate(keys) if k is ...), len(keys))
        keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + (at < len(keys)))
        if len(keys) != self.ndim:
            raise IndexError(f"expected at most {self.ndim} indices, got {key!r}")
        low: list[int] = []
        high: list[int] = []
        inner: list[int | slice] = []
        for k, side in zip(keys, self.shape[:2], strict=False):
            touched = range(side)[k if isinstance(k, slice) else operator.index(k)]
            if isinstance(touched, range):
                first, last = sorted((touched[0], touched[-1])) if touched else (0, -1)
                low.append(first)
                high.append(last + 1)
                inner.append(slice(None, None, touched.step))
            else:
                low.append(touched)
                high.append(touched + 1)
                inner.append(0)
        return np.asarray(self.read(Box(*low, *high))[(*inner, *keys[2:])])


@dataclass(frozen=True)
class Tile:
    """One tile of the lattice, at a place in the grid.

    Attributes
    ----------
    core : Box
        The tile's own pixels; cores partition the slide.
    padded : Box
        The core and its halo, clipped to the slide; its origin is a multiple of 32 px.
    """

    row: int
    column: int
    core: Box
    padded: Box

    @property
    def near(self) -> Box:
        """The core, widened: an object of this tile has at least a pixel in it."""
        return self.core.widened(NEAR_PX)


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a slide of ``height`` × ``width`` lattice pixels.

    All padded tiles have one size, which the network is made ready for: at the slide's far edges,
    where cores are smaller, they reach further inwards.

    Attributes
    ----------
    tile : int
        Height of a core, and its width where ``across`` is 0: multiples of 32 px.
    halo : int
        Width of the halo, a multiple of 32 px.
    across : int
        Width of a core.
    """

    height: int
    width: int
    tile: int
    halo: int
    across: int = 0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"expected a size of at least 1 × 1 px, got {self}")
        sides = (("tile", self.tile, STRIDE_PX), ("halo", self.halo, 0), ("tile", self.across, 0))
        for name, side, least in sides:
            if side < least or side % STRIDE_PX:
                raise ValueError(
                    f"expected a {name} that is a multiple of {STRIDE_PX} px, got {side}"
                )

    @property
    def extent(self) -> Box:
        return Box(0, 0, self.height, self.width)

    @property
    def core(self) -> tuple[int, int]:
        """Height and width of a core."""
        return self.tile, self.across or self.tile

    @property
    def rows(self) -> int:
        return -(-self.height // self.core[0])

    @property
    def columns(self) -> int:
        return -(-self.width // self.core[1])

    def __len__(self) -> int:
        return self.rows * self.columns

    @cached_property
    def _spans(self) -> tuple[NDArray[np.int64], ...]:
        """First and last rows, then columns, of the padded tiles; half-open."""
        sides = zip((self.height, self.width), self.core, strict=True)
        return tuple(ends for side, core in sides for ends in padded_spans(side, core, self.halo))

    def at(self, row: int, column: int) -> Tile:
        """The tile at a place in the grid."""
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no tile ({row}, {column}) in a grid of {self.rows} × {self.columns}")
        down, across = self.core
        y, x = row * down, column * across
        top, bottom, left, right = self._spans
        core = Box(y, x, y + down, x + across).intersection(self.extent)
        padded = (top[row], left[column], bottom[row], right[column])
        return Tile(row, column, core, Box(*map(int, padded)))

    def owner(self, y: int, x: int) -> tuple[int, int]:
        """(row, column) of the tile in whose core a pixel lies."""
        return y // self.core[0], x // self.core[1]

    def __iter__(self) -> Iterator[Tile]:
        """All tiles in stripes of 8 columns, row by row: neighbours come close together."""
        for first in range(0, self.columns, 8):
            for row in range(self.rows):
                for column in range(first, min(first + 8, self.columns)):
                    yield self.at(row, column)

    def seen_by(self, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
        """First row and column, and last, of the tiles whose padded boxes meet each box.

        Boxes are (y0, x0, y1, x1), both arrays (N, 4); of none the last precedes the first.
        """
        top, bottom, left, right = self._spans
        low = (bottom.searchsorted(boxes[:, 0], "right"), right.searchsorted(boxes[:, 1], "right"))
        high = (top.searchsorted(boxes[:, 2]), left.searchsorted(boxes[:, 3]))
        return np.stack([*low, high[0] - 1, high[1] - 1], 1)

    def seeing(self, box: Box) -> list[tuple[int, int]]:
        """(row, column) of every tile whose padded box shares a pixel with ``box``."""
        top, left, bottom, right = self.seen_by(np.array([box.corners]))[0].tolist()
        return [(y, x) for y in range(top, bottom + 1) for x in range(left, right + 1)]


def padded_spans(length: int, core: int, halo: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the padded tiles of a row begin and end, on the slide and half-open.

    They begin at multiples of 64 px where cores and halo are such, the last one of 32 px.
    """
    count, full = -(-length // core), -(-length // STRIDE_PX) * STRIDE_PX
    side = full if count == 1 else core + min(count - 1, 2) * halo
    first = np.clip(np.arange(count) * core - halo, 0, max(0, full - side))
    return first, np.minimum(first + side, length)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The slide's size in level-0 pixels, and how the lattice lies on it.

    Attributes
    ----------
    lattice_height, lattice_width : int
        Lattice pixels, the label image's size.
    downsample : float
        Level-0 pixels along a side of a lattice pixel.
    mpp : float or None
        µm per pixel at level 0.
    """

    height: int
    width: int
    lattice_height: int
    lattice_width: int
    downsample: float
    mpp: float | None

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.lattice_height, self.lattice_width) < 1:
            raise ValueError(f"expected sizes of at least 1 px, got {self}")
        if not self.downsample > 0 or (self.mpp is not None and not self.mpp > 0):
            raise ValueError(f"expected downsample and mpp above 0, got {self}")

    @property
    def lattice_mpp(self) -> float | None:
        """µm along a side of a lattice pixel; None without pixel size."""
        return None if self.mpp is None else self.mpp * self.downsample
