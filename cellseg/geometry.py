"""Boxes and the slide-wide lattice of tiles.

All geometry of a run lies on one lattice of model pixels: (y, x), half-open.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

STRIDE_PX = 32  # Tile origins are multiples of this, the largest stride of the network.


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

    def widened(self, margin: int) -> Box:
        """The box grown by ``margin`` px on every side (it may leave the slide)."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def intersection(self, other: Box) -> Box:
        """The common part; an empty box of size 0 where there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def intersects(self, other: Box) -> bool:
        """Whether the two share at least one pixel."""
        return (
            self.y0 < other.y1
            and other.y0 < self.y1
            and self.x0 < other.x1
            and other.x0 < self.x1
            and self.area > 0
            and other.area > 0
        )


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


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a slide of ``height`` × ``width`` lattice pixels.

    Attributes
    ----------
    tile : int
        Side of a core, a multiple of 32 px; cores at the far edges are smaller.
    halo : int
        Width of the halo, a multiple of 32 px.
    """

    height: int
    width: int
    tile: int
    halo: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"expected a size of at least 1 × 1 px, got {self}")
        for name, side, least in (("tile", self.tile, STRIDE_PX), ("halo", self.halo, 0)):
            if side < least or side % STRIDE_PX:
                raise ValueError(
                    f"expected a {name} that is a multiple of {STRIDE_PX} px, got {side}"
                )

    @property
    def extent(self) -> Box:
        return Box(0, 0, self.height, self.width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    def __len__(self) -> int:
        return self.rows * self.columns

    def at(self, row: int, column: int) -> Tile:
        """The tile at a place in the grid."""
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no tile ({row}, {column}) in a grid of {self.rows} × {self.columns}")
        y, x = row * self.tile, column * self.tile
        core = Box(y, x, y + self.tile, x + self.tile).intersection(self.extent)
        return Tile(row, column, core, core.widened(self.halo).intersection(self.extent))

    def __iter__(self) -> Iterator[Tile]:
        """All tiles in stripes of 8 columns, row by row: neighbours come close together."""
        for first in range(0, self.columns, 8):
            for row in range(self.rows):
                for column in range(first, min(first + 8, self.columns)):
                    yield self.at(row, column)

    def seeing(self, box: Box) -> list[tuple[int, int]]:
        """(row, column) of every tile whose padded box shares a pixel with ``box``."""
        reach = box.widened(self.halo).intersection(self.extent)
        return list(reach.chunks(self.tile, self.tile))


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
