"""A label pyramid that can be painted on: what is painted stays in memory, compressed."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Sequence
from threading import RLock
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from cellseg.geometry import Box

CHUNK_PX = 1024

DECODED = 24
"""Chunks of a level that stay decoded: about 100 MB for the finest."""


class Labels2D(Protocol):
    """As much of an array's interface as a label image needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - zarr's or numpy's


class PatchedLevel:
    """One level: the painted chunks over what is on the disk, uint32 (Y, X)."""

    ndim = 2
    dtype = np.dtype(np.uint32)

    def __init__(
        self, shape: tuple[int, int], base: Labels2D | None, decoded: int | None = None
    ) -> None:
        self.shape = shape
        self._most = decoded or DECODED
        self.chunks = (min(CHUNK_PX, shape[0]), min(CHUNK_PX, shape[1]))
        self._base = base
        self._store: zarr.Array[Any] | None = None
        self._painted: set[tuple[int, int]] = set()
        self._decoded: OrderedDict[tuple[int, int], NDArray[np.uint32]] = OrderedDict()
        self._lock = RLock()

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def __array__(
        self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: object) -> NDArray[np.uint32]:
        """Basic indexing: integers, slices and ``...``."""
        keys: list[Any] = [k for k in (key if isinstance(key, tuple) else (key,)) if k is not ...]
        keys += [slice(None)] * (2 - len(keys))
        bounds, inner = [], []
        for k, side in zip(keys, self.shape, strict=True):
            if isinstance(k, slice):
                touched = range(*k.indices(side))
                if not len(touched):
                    bounds.append((0, 0))
                    inner.append(slice(None))
                    continue
                low, high = min(touched[0], touched[-1]), max(touched[0], touched[-1]) + 1
                bounds.append((low, high))
                inner.append(slice(None, None, touched.step))
            else:
                place = operator.index(k)
                if not -side <= place < side:
                    raise IndexError(f"index {place} is outside of {side} pixels")
                bounds.append((place % side, place % side + 1))
                inner.append(0)  # type: ignore[arg-type]
        (y0, y1), (x0, x1) = bounds
        return np.asarray(self.read(Box(y0, x0, y1, x1))[tuple(inner)])

    def read(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside the image, (h, w)."""
        out = np.zeros(box.shape, np.uint32)
        for row, column in self._chunks_of(box):
            chunk = self._chunk(row, column)
            part = chunk.intersection(box)
            out[_inside(part, box)] = self._decode(row, column)[_inside(part, chunk)]
        return out

    def _decode(self, row: int, column: int) -> NDArray[np.uint32]:
        """A chunk; the last ones stay decoded, because cells are read one by one."""
        key = (row, column)
        with self._lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
            chunk = self._chunk(row, column)
            found: Any
            if key in self._painted:
                found = self._memory()[chunk.y0 : chunk.y1, chunk.x0 : chunk.x1]
            elif self._base is not None:
                found = self._base[chunk.y0 : chunk.y1, chunk.x0 : chunk.x1]
            else:
                return np.zeros(chunk.shape, np.uint32)
            return self._keep(key, np.asarray(found, np.uint32))

    def _keep(self, key: tuple[int, int], chunk: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Decoded, the most recent; what is painted is compressed when it has to go."""
        self._decoded[key] = chunk
        self._decoded.move_to_end(key)
        while len(self._decoded) > self._most:
            old, labels = self._decoded.popitem(last=False)
            if old in self._painted:
                place = self._chunk(*old)
                self._memory()[place.y0 : place.y1, place.x0 : place.x1] = labels
        return chunk

    def read_base(self, box: Box) -> NDArray[np.uint32]:
        """What is on the disk, whatever was painted over it."""
        if self._base is None:
            return np.zeros(box.shape, np.uint32)
        return np.asarray(self._base[box.y0 : box.y1, box.x0 : box.x1], np.uint32)

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint over a part."""
        box = Box(y0, x0, y0 + labels.shape[0], x0 + labels.shape[1])
        if not box.area:
            return
        with self._lock:
            for row, column in self._chunks_of(box):
                chunk = self._chunk(row, column)
                part = chunk.intersection(box)
                painted = np.array(self._decode(row, column))
                painted[_inside(part, chunk)] = labels[_inside(part, box)]
                self._painted.add((row, column))
                self._keep((row, column), painted)

    def _memory(self) -> zarr.Array[Any]:
        if self._store is None:
            self._store = zarr.create_array(
                zarr.storage.MemoryStore(),
                shape=self.shape,
                chunks=self.chunks,
                dtype="uint32",
                fill_value=0,
            )
        return self._store

    def _chunks_of(self, box: Box) -> list[tuple[int, int]]:
        height, width = self.chunks
        if not box.area:
            return []
        return [
            (row, column)
            for row in range(box.y0 // height, (box.y1 - 1) // height + 1)
            for column in range(box.x0 // width, (box.x1 - 1) // width + 1)
        ]

    def _chunk(self, row: int, column: int) -> Box:
        height, width = self.chunks
        whole = Box(row * height, column * width, (row + 1) * height, (column + 1) * width)
        return whole.intersection(Box(0, 0, *self.shape))


class PatchedPyramid:
    """A label pyramid by two, as :mod:`cellseg.results` writes it, with paint over it.

    Attributes
    ----------
    levels : list of PatchedLevel
        Finest first. Reading does not decode more than it touches.

    Parameters
    ----------
    levels : sequence of array-likes, uint32 (Y, X)
        Each half of the one before, rounded up.
    decoded : int, optional
        Chunks of each level that stay decoded, :data:`DECODED` otherwise.
    """

    def __init__(self, levels: Sequence[Labels2D], decoded: int | None = None) -> None:
        self.levels = [
            PatchedLevel((level.shape[0], level.shape[1]), level, decoded) for level in levels
        ]

    @classmethod
    def empty(cls, shape: tuple[int, int], *, coarsest_px: int = 512) -> PatchedPyramid:
        """Nothing painted yet, for a slide that is being counted."""
        found = cls([])
        found.levels = [PatchedLevel(shape, None)]
        while max(shape) > coarsest_px:
            shape = (-(-shape[0] // 2), -(-shape[1] // 2))
            found.levels.append(PatchedLevel(shape, None))
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """Of the finest level."""
        return self.levels[0].shape

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint a part of the finest level, and the coarser ones to match."""
        y1, x1 = y0 + labels.shape[0], x0 + labels.shape[1]
        for number, level in enumerate(self.levels):
            step = 2**number
            top, left = -(-y0 // step), -(-x0 // step)
            part = labels[top * step - y0 : y1 - y0 : step, left * step - x0 : x1 - x0 : step]
            level.write(top, left, part)

    def label_at(self, y: int, x: int) -> int:
        """The cell at a lattice pixel; 0 where there is none, also outside of the slide."""
        height, width = self.shape
        if not (0 <= y < height and 0 <= x < width):
            return 0
        return int(self.levels[0].read(Box(y, x, y + 1, x + 1))[0, 0])

    def mask_of(self, label: int, around: Box) -> tuple[Box, NDArray[np.bool_]] | None:
        """A cell's tight box and mask, looked for in ``around``; None where it is not there."""
        inside = around.intersection(Box(0, 0, *self.shape))
        if not inside.area:
            return None
        mask = self.levels[0].read(inside) == label
        ys, xs = np.nonzero(mask)
        if not ys.size:
            return None
        y0, y1, x0, x1 = int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1
        box = Box(inside.y0 + y0, inside.x0 + x0, inside.y0 + y1, inside.x0 + x1)
        return box, mask[y0:y1, x0:x1]


def _inside(part: Box, whole: Box) -> tuple[slice, slice]:
    return (
        slice(part.y0 - whole.y0, part.y1 - whole.y0),
        slice(part.x0 - whole.x0, part.x1 - whole.x0),
    )
