"""A slide as a list of array-likes, one a pyramid level, that read what napari shows."""

from __future__ import annotations

import logging
import math
import operator
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import CellsegError
from cellseg.geometry import Box

if TYPE_CHECKING:
    from cellseg.slide import Slide

logger = logging.getLogger(__name__)

BLOCK_PX = 512
"""Side of what is read and kept at once."""

COARSEST_PX = 1024
"""The coarsest level's longer side is at most this: it is what opening reads."""

CACHE_BYTES = 512 * 2**20
"""Decoded blocks kept for one slide."""

DAMAGE_PX = 64
"""Side of the smallest box that is shown black for a damaged chunk."""


class SlideSource:
    """A slide, the blocks read from it last, and who hears of damage.

    Closes the slide when the last level is gone.

    Parameters
    ----------
    slide : Slide
        Open; belongs to this object from now on.
    on_damage : callable
        Called once, with one line, when a region does not decode; the region is black.
    """

    def __init__(self, slide: Slide, *, on_damage: Callable[[str], None]) -> None:
        self.slide = slide
        self._on_damage = on_damage
        self._told = False
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[object, ...], NDArray[np.generic]] = OrderedDict()
        self._bytes = 0
        weakref.finalize(self, slide.close)

    def block(
        self, box: Box, *, downsample: float, channels: tuple[int, ...]
    ) -> NDArray[np.generic]:
        """The pixels of a box, (h, w, C); from memory when they were read before."""
        key = (downsample, channels, box)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        pixels = self._read(box, downsample, channels)
        with self._lock:
            if key not in self._blocks:
                self._bytes += pixels.nbytes
            self._blocks[key] = pixels
            while self._bytes > CACHE_BYTES and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes
        return pixels

    def _read(self, box: Box, downsample: float, channels: tuple[int, ...]) -> NDArray[np.generic]:
        """A box; where it does not decode, its quarters, so that little of it is lost."""
        try:
            return self.slide.read(box, downsample=downsample, channels=channels)
        except CellsegError as error:
            out = np.zeros((*box.shape, len(channels)), self.slide.dtype)
            if min(box.shape) <= DAMAGE_PX:
                self._tell(str(error))
                return out
        middle_y, middle_x = (box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2
        for y0, y1 in ((box.y0, middle_y), (middle_y, box.y1)):
            for x0, x1 in ((box.x0, middle_x), (middle_x, box.x1)):
                part = Box(y0, x0, y1, x1)
                out[_slices(part, box)] = self._read(part, downsample, channels)
        return out

    def _tell(self, what: str) -> None:
        logger.warning("%s", what)
        if not self._told:
            self._told = True
            self._on_damage(f"{what} (shown black)")


class LazyLevel:
    """One level of a slide with as much of an array's interface as napari asks for.

    Parameters
    ----------
    source : SlideSource
    downsample : float
        Level-0 px per pixel of this level.
    channels : tuple of int
        One channel makes a (y, x) array; three make (y, x, rgb), 8 bits.
    """

    def __init__(
        self, source: SlideSource, *, downsample: float, channels: tuple[int, ...]
    ) -> None:
        self._source = source
        self._channels = channels
        self.downsample = downsample
        self._extent = source.slide.lattice_shape(downsample)
        self._is_rgb = len(channels) > 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self._extent, len(self._channels)) if self._is_rgb else self._extent

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint8) if self._is_rgb else self._source.slide.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """What napari rounds its requests to."""
        sides = tuple(min(BLOCK_PX, side) for side in self._extent)
        return (*sides, len(self._channels)) if self._is_rgb else sides

    def __array__(
        self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        return np.asarray(self[...], dtype)

    def __deepcopy__(self, memo: object) -> LazyLevel:
        """Napari's Duplicate copies a layer's data; this is only a way to read it."""
        return self

    def __getitem__(self, key: object) -> NDArray[np.generic]:
        """Basic indexing: integers, slices and ``...``; reads the blocks that are touched."""
        keys = self._expanded(key)
        spans = [_span(k, side) for k, side in zip(keys, self._extent, strict=False)]
        pixels = self._pixels(Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1]))
        inner = [
            _relative(k, side, start)
            for k, side, (start, _) in zip(keys, self._extent, spans, strict=False)
        ]
        return np.asarray(pixels[(*inner, *keys[2:])])

    def _expanded(self, key: object) -> tuple[int | slice, ...]:
        """One integer or slice per axis."""
        keys: list[Any] = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            where = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[where : where + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        if len(keys) != self.ndim:
            raise IndexError(f"expected at most {self.ndim} indices, got {key!r}")
        return tuple(k if isinstance(k, slice) else operator.index(k) for k in keys)

    def _pixels(self, wanted: Box) -> NDArray[np.generic]:
        """(h, w) or (h, w, 3) of a box, put together from blocks."""
        out = np.zeros((*wanted.shape, *self.shape[2:]), self.dtype)
        for y in range(wanted.y0 // BLOCK_PX * BLOCK_PX, wanted.y1, BLOCK_PX):
            for x in range(wanted.x0 // BLOCK_PX * BLOCK_PX, wanted.x1, BLOCK_PX):
                block = Box(
                    y, x, min(y + BLOCK_PX, self._extent[0]), min(x + BLOCK_PX, self._extent[1])
                )
                common = block.intersection(wanted)
                pixels = self._source.block(
                    block, downsample=self.downsample, channels=self._channels
                )
                out[_slices(common, wanted)] = self._shown(pixels[_slices(common, block)])
        return out

    def _shown(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """One channel without its axis; colours of more than 8 bits as 8 bits."""
        if not self._is_rgb:
            return pixels[..., 0]
        if pixels.dtype == np.uint16:
            return np.asarray(np.right_shift(pixels, 8))
        if pixels.dtype.kind == "f":
            return np.asarray(np.rint(np.clip(pixels, 0, 1) * 255))
        return pixels


def slide_levels(source: SlideSource, *, channels: tuple[int, ...]) -> list[LazyLevel]:
    """The slide's own levels, and coarser ones by 2 until one is small enough to open with.

    Returns
    -------
    list of LazyLevel
        Finest first; the first has ``downsample`` 1.
    """
    slide = source.slide
    downsamples = sorted({1.0, *(level.downsample for level in slide.levels)})
    while max(slide.lattice_shape(downsamples[-1])) > COARSEST_PX:
        downsamples.append(downsamples[-1] * 2)
    return [LazyLevel(source, downsample=d, channels=channels) for d in downsamples]


def _span(key: int | slice, side: int) -> tuple[int, int]:
    """First and one past the last pixel that an index touches."""
    if isinstance(key, slice):
        touched = range(*key.indices(side))
        if not len(touched):
            return 0, 0
        return min(touched[0], touched[-1]), max(touched[0], touched[-1]) + 1
    if not -side <= key < side:
        raise IndexError(f"index {key} is outside of {side} pixels")
    return key % side, key % side + 1


def _relative(key: int | slice, side: int, start: int) -> int | slice:
    """The same index, counted from ``start``."""
    if not isinstance(key, slice):
        return 0
    touched = range(*key.indices(side))
    if not len(touched):
        return slice(0, 0)
    last = touched[-1] - start + (1 if touched.step > 0 else -1)
    return slice(touched[0] - start, last if last >= 0 else None, touched.step)


def _slices(box: Box, origin: Box) -> tuple[slice, slice]:
    """Where a box lies in an array that begins at another box's corner."""
    return (
        slice(box.y0 - origin.y0, box.y1 - origin.y0),
        slice(box.x0 - origin.x0, box.x1 - origin.x0),
    )
