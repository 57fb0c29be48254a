"""A label pyramid that can be painted on: what is painted stays in memory, compressed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import RLock
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from cellseg.geometry import Box, box_of, indexed

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
        return indexed(key, self.shape, self.read)

    def read(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside the image, (h, w)."""
        out = np.zeros(box.shape, np.uint32)
        for row, column in box.chunks(*self.chunks):
            chunk = self._chunk(row, column)
            part = chunk.intersection(box)
            out[part.inside(box)] = self._decode(row, column)[part.inside(chunk)]
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
                found = self._memory()[chunk.pixels]
            elif self._base is not None:
                found = self._base[chunk.pixels]
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
                self._memory()[self._chunk(*old).pixels] = labels
        return chunk

    def read_base(self, box: Box) -> NDArray[np.uint32]:
        """What is on the disk, whatever was painted over it."""
        if self._base is None:
            return np.zeros(box.shape, np.uint32)
        return np.asarray(self._base[box.pixels], np.uint32)

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint over a part."""
        box = Box(y0, x0, y0 + labels.shape[0], x0 + labels.shape[1])
        with self._lock:
            for row, column in box.chunks(*self.chunks):
                chunk = self._chunk(row, column)
                part = chunk.intersection(box)
                painted = np.array(self._decode(row, column))
                painted[part.inside(chunk)] = labels[part.inside(box)]
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

    def _chunk(self, row: int, column: int) -> Box:
        height, width = self.chunks
        whole = Box(row * height, column * width, (row + 1) * height, (column + 1) * width)
        return whole.intersection(Box(0, 0, *self.shape))


class PatchedPyramid:
    """A label pyramid by two, as :mod:`cellseg.result` writes it, with paint over it.

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
        mask = self.levels[0].read(inside) == label
        box = box_of(mask)
        return None if box is None else (box.shifted(inside.y0, inside.x0), mask[box.pixels])
