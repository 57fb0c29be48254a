"""A label pyramid that can be painted on: painted chunks stay in memory, compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from cellseg.geometry import Box, LazyArray, box_of
from cellseg.result.labels import CHUNK_PX, level_shapes

DECODED = 24
"""Chunks of a level that stay decoded, for cells are read one by one: about 100 MB at most."""

_PACKER = Blosc(cname="lz4", clevel=1)


class PatchedLevel(LazyArray):
    """One level: the painted chunks over a label image on the disk, uint32 (Y, X)."""

    def __init__(self, shape: tuple[int, ...], base: LazyArray | None) -> None:
        chunks = [min(CHUNK_PX, side) for side in shape]
        super().__init__(shape, np.uint32, self._patched, chunks)
        self._base = base
        self._decode = lru_cache(DECODED)(self._unpacked)
        self._painted: dict[Box, bytes] = {}
        self._lock = Lock()

    def _patched(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside the image, (h, w)."""
        out = np.zeros(box.shape, np.uint32)
        with self._lock:
            for chunk, part in self._parts(box):
                out[part.inside(box)] = self._decode(chunk)[part.inside(chunk)]
        return out

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint over a part."""
        box = Box(y0, x0, y0 + labels.shape[0], x0 + labels.shape[1])
        with self._lock:
            for chunk, part in self._parts(box):
                pixels = self._decode(chunk)
                pixels[part.inside(chunk)] = labels[part.inside(box)]
                self._painted[chunk] = _PACKER.encode(pixels)

    def _parts(self, box: Box) -> Iterator[tuple[Box, Box]]:
        """The chunks that a box has pixels of, and what it has of each."""
        height, width = self.chunks
        for row, column in box.chunks(height, width):
            whole = Box(0, 0, height, width).shifted(row * height, column * width)
            chunk = whole.intersection(Box(0, 0, *self.shape))
            yield chunk, chunk.intersection(box)

    def _unpacked(self, chunk: Box) -> NDArray[np.uint32]:
        """The labels of a chunk, which may be painted on."""
        if chunk in self._painted:
            packed = np.frombuffer(_PACKER.decode(self._painted[chunk]), np.uint32)
            return packed.reshape(chunk.shape).copy()
        if self._base is None:
            return np.zeros(chunk.shape, np.uint32)
        return np.array(self._base[chunk.pixels], np.uint32)


class PatchedPyramid:
    """A label pyramid by two, as :mod:`cellseg.result` writes it, with paint over it.

    Its levels, finest first, do not decode more than is read of them.
    """

    def __init__(self, levels: Sequence[LazyArray]) -> None:
        self.levels = [PatchedLevel(level.shape, level) for level in levels]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> PatchedPyramid:
        """Nothing painted yet, for a slide that is being counted."""
        found = cls([])
        found.levels = [PatchedLevel(side, None) for side in level_shapes(shape)]
        return found

    @property
    def extent(self) -> Box:
        """The whole image, pixels of the finest level."""
        return Box(0, 0, *self.levels[0].shape)

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
        inside = Box(y, x, y + 1, x + 1).intersection(self.extent)
        return int(self.levels[0].read(inside).max(initial=0))

    def mask_of(self, label: int, around: Box) -> tuple[Box, NDArray[np.bool_]] | None:
        """A cell's tight box and mask, looked for in ``around``; None where it is not there."""
        inside = around.intersection(self.extent)
        mask = self.levels[0].read(inside) == label
        box = box_of(mask)
        return None if box is None else (box.shifted(inside.y0, inside.x0), mask[box.pixels])
