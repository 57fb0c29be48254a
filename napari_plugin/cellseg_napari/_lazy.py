"""A slide as a list of array-likes, one a pyramid level, that read what napari shows."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import CellsegError
from cellseg.geometry import Box, indexed
from cellseg.slide import ChunkCache
from cellseg_napari._array_like import ArrayLike

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
        self._blocks = ChunkCache(CACHE_BYTES)
        weakref.finalize(self, slide.close)

    def block(
        self, box: Box, *, downsample: float, channels: tuple[int, ...]
    ) -> NDArray[np.generic]:
        """The pixels of a box, (h, w, C); from memory when they were read before."""
        key = (downsample, channels, box)
        return self._blocks.get(key, lambda: self._read(box, downsample, channels))

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
                out[part.inside(box)] = self._read(part, downsample, channels)
        return out

    def _tell(self, what: str) -> None:
        logger.warning("%s", what)
        if not self._told:
            self._told = True
            self._on_damage(f"{what} (shown black)")


class LazyLevel(ArrayLike):
    """One level of a slide.

    Parameters
    ----------
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
        colours = (len(channels),) if len(channels) > 1 else ()
        self.shape = (*self._extent, *colours)
        self.chunks = (*(min(BLOCK_PX, side) for side in self._extent), *colours)
        self.dtype = np.dtype(np.uint8) if colours else source.slide.dtype

    def __getitem__(self, key: object) -> NDArray[np.generic]:
        """Basic indexing: integers, slices and ``...``; reads the blocks that are touched."""
        return indexed(key, self.shape, self._pixels)

    def _pixels(self, wanted: Box) -> NDArray[np.generic]:
        """(h, w) or (h, w, 3) of a box, put together from blocks."""
        out = np.zeros((*wanted.shape, *self.shape[2:]), self.dtype)
        for row, column in wanted.chunks(BLOCK_PX, BLOCK_PX):
            block = Box(0, 0, BLOCK_PX, BLOCK_PX).shifted(row * BLOCK_PX, column * BLOCK_PX)
            block = block.intersection(Box(0, 0, *self._extent))
            common = block.intersection(wanted)
            pixels = self._source.block(block, downsample=self.downsample, channels=self._channels)
            out[common.inside(wanted)] = self._shown(pixels[common.inside(block)])
        return out

    def _shown(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """One channel without its axis; colours of more than 8 bits as 8 bits."""
        if len(self._channels) == 1:
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
