"""Pyramids as napari wants them: a list of levels, each read where it is shown."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cellseg.derive.corrections import PatchedLevel, PatchedPyramid
from cellseg.errors import CellsegError
from cellseg.geometry import Box, LazyArray
from cellseg.slide import ChunkCache, Slide

logger = logging.getLogger(__name__)

BLOCK_PX = 512
"""Side of what is read of a slide and kept at once."""

COARSEST_PX = 1024
"""The coarsest level's longer side is at most this: it is what opening reads."""

CACHE_BYTES = 512 * 2**20
"""Decoded blocks kept for one slide."""

DAMAGE_PX = 64
"""Side of the smallest box that is shown black for a damaged chunk."""


def label_levels(
    pyramid: PatchedPyramid, show: Callable[[NDArray[np.uint32]], NDArray[Any]], dtype: DTypeLike
) -> list[LazyArray]:
    """A label image, finest level first; ``show`` gives what is shown in place of labels."""

    def read(level: PatchedLevel, step: int, box: Box) -> NDArray[Any]:
        rows, columns = (slice(step * p.start, step * p.stop, step) for p in box.pixels)
        return show(level[rows, columns])

    steps = [(level, 1) for level in pyramid.levels]
    if len(steps) == 1:
        # napari takes a list of one for one array with another axis.
        steps.append((pyramid.levels[0], 2))
    return [
        LazyArray([-(-side // n) for side in level.shape], dtype, partial(read, level, n),
                  level.chunks)
        for level, n in steps
    ]  # fmt: skip


class SlideSource:
    """A slide, which is closed when the last level is gone, and the blocks read from it last.

    A region that does not decode is black; ``on_damage`` hears of the first one, in a line.
    """

    def __init__(self, slide: Slide, *, on_damage: Callable[[str], None]) -> None:
        self.slide = slide
        self._on_damage = on_damage
        self._told = False
        self._blocks = ChunkCache(CACHE_BYTES)
        weakref.finalize(self, slide.close)

    def levels(self, channels: tuple[int, ...]) -> list[LazyArray]:
        """The slide's own levels, and coarser ones by 2 until one is small enough to open with.

        One channel makes (y, x) levels; three make (y, x, rgb), 8 bits.
        """
        downsamples = sorted({1.0, *(level.downsample for level in self.slide.levels)})
        while max(self.slide.lattice_shape(downsamples[-1])) > COARSEST_PX:
            downsamples.append(downsamples[-1] * 2)
        colours = (len(channels),) if len(channels) > 1 else ()
        dtype = np.dtype(np.uint8) if colours else self.slide.dtype
        levels = []
        for downsample in downsamples:
            extent = self.slide.lattice_shape(downsample)
            chunks = (*(min(BLOCK_PX, side) for side in extent), *colours)
            read = partial(self._pixels, Box(0, 0, *extent), downsample, channels)
            levels.append(LazyArray((*extent, *colours), dtype, read, chunks))
        return levels

    def _pixels(
        self, extent: Box, downsample: float, channels: tuple[int, ...], wanted: Box
    ) -> NDArray[Any]:
        """(h, w) or (h, w, 3) of a box, put together from blocks that are kept."""
        out = np.zeros((*wanted.shape, len(channels)), self.slide.dtype)
        for row, column in wanted.chunks(BLOCK_PX, BLOCK_PX):
            block = Box(0, 0, BLOCK_PX, BLOCK_PX).shifted(row * BLOCK_PX, column * BLOCK_PX)
            block = block.intersection(extent)
            read = partial(self._read, block, downsample, channels)
            pixels = self._blocks.get((downsample, channels, block), read)
            common = block.intersection(wanted)
            out[common.inside(wanted)] = pixels[common.inside(block)]
        return out[..., 0] if len(channels) == 1 else _eight_bits(out)

    def _read(self, box: Box, downsample: float, channels: tuple[int, ...]) -> NDArray[np.generic]:
        """A box; where it does not decode, small parts of it, so that little is lost."""
        read = partial(self.slide.read, downsample=downsample, channels=channels)
        with suppress(CellsegError):
            return read(box)
        out = np.zeros((*box.shape, len(channels)), self.slide.dtype)
        for part in box.parts(DAMAGE_PX):
            try:
                out[part.inside(box)] = read(part)
            except CellsegError as error:
                logger.warning("%s", error)
                if not self._told:
                    self._told = True
                    self._on_damage(f"{error} (shown black)")
        return out


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of more bits as 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = np.right_shift(pixels, 8)
    elif pixels.dtype.kind == "f":
        pixels = np.rint(np.clip(pixels, 0, 1) * 255)
    return pixels.astype(np.uint8)
