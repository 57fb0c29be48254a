"""A label pyramid that can be painted on: painted chunks stay in memory, compressed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import RLock

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from cellseg.geometry import Box, LazyArray, box_of

CHUNK_PX = 1024

DECODED = 24
"""Chunks of a level that stay decoded: about 100 MB for the finest."""

_PACKER = Blosc(cname="lz4", clevel=1)


class PatchedLevel(LazyArray):
    """One level: the painted chunks over a label image on the disk, uint32 (Y, X)."""

    def __init__(self, shape: tuple[int, ...], base: LazyArray | None, decoded: int) -> None:
        chunks = [min(CHUNK_PX, side) for side in shape]
        super().__init__(shape, np.uint32, self._patched, chunks)
        self._base, self._most = base, decoded
        # Cells are read one by one: the last chunks stay decoded, painted or not.
        self._decoded: OrderedDict[tuple[int, int], NDArray[np.uint32]] = OrderedDict()
        self._painted: set[tuple[int, int]] = set()
        self._packed: dict[tuple[int, int], bytes] = {}
        self._lock = RLock()

    def _patched(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside the image, (h, w)."""
        out = np.zeros(box.shape, np.uint32)
        with self._lock:
            for key in box.chunks(*self.chunks):
                chunk = self._chunk(key)
                part = chunk.intersection(box)
                out[part.inside(box)] = self._decode(key)[part.inside(chunk)]
        return out

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint over a part."""
        box = Box(y0, x0, y0 + labels.shape[0], x0 + labels.shape[1])
        with self._lock:
            for key in box.chunks(*self.chunks):
                chunk = self._chunk(key)
                part = chunk.intersection(box)
                pixels = self._decode(key)
                if key not in self._painted:
                    pixels = self._decoded[key] = pixels.copy()
                    self._painted.add(key)
                pixels[part.inside(chunk)] = labels[part.inside(box)]

    def _decode(self, key: tuple[int, int]) -> NDArray[np.uint32]:
        if key in self._decoded:
            self._decoded.move_to_end(key)
            return self._decoded[key]
        chunk = self._chunk(key)
        if key in self._packed:
            found = np.frombuffer(_PACKER.decode(self._packed.pop(key)), np.uint32).copy()
        elif self._base is not None:
            found = np.asarray(self._base[chunk.pixels], np.uint32)
        else:
            found = np.zeros(chunk.shape, np.uint32)
        self._decoded[key] = found.reshape(chunk.shape)
        if len(self._decoded) > self._most:
            old, labels = self._decoded.popitem(last=False)
            if old in self._painted:
                self._packed[old] = _PACKER.encode(labels)
        return self._decoded[key]

    def _chunk(self, key: tuple[int, int]) -> Box:
        (row, column), (height, width) = key, self.chunks
        whole = Box(row * height, column * width, (row + 1) * height, (column + 1) * width)
        return whole.intersection(Box(0, 0, *self.shape))


class PatchedPyramid:
    """A label pyramid by two, as :mod:`cellseg.result` writes it, with paint over it.

    Its levels, finest first, do not decode more than is read of them; so many chunks of each stay
    decoded.
    """

    def __init__(self, levels: Sequence[LazyArray], decoded: int = DECODED) -> None:
        self.levels = [PatchedLevel(level.shape, level, decoded) for level in levels]

    @classmethod
    def empty(cls, shape: tuple[int, int], *, coarsest_px: int = 512) -> PatchedPyramid:
        """Nothing painted yet, for a slide that is being counted."""
        found = cls([])
        found.levels = [PatchedLevel(shape, None, DECODED)]
        while max(shape) > coarsest_px:
            shape = (-(-shape[0] // 2), -(-shape[1] // 2))
            found.levels.append(PatchedLevel(shape, None, DECODED))
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """Of the finest level."""
        height, width = self.levels[0].shape
        return height, width

    @property
    def extent(self) -> Box:
        """The whole image, pixels of the finest level."""
        return Box(0, 0, *self.shape)

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
