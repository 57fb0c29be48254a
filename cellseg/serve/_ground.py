"""The slide under the outlines, a tile at a time, at a cost that is bounded."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.draw import parts_of
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.result import Ground, Result
from cellseg.result.publish import OVERVIEW
from cellseg.slide import Level, Slide
from cellseg.stain.normalise import Light, Normaliser
from cellseg.storage import Location

TILE_SOURCE_PX = 6_000_000
"""Stored pixels that one tile may cost: 2,048² of them with room for a pyramid's odd steps."""

TILE_DECODED_PX = 40_000_000
"""The same with the chunks in which they lie: strips as wide as the slide are decoded whole, and
fit so into what a slide keeps decoded for the neighbours."""

WHOLE_SOURCE_PX = 40_000_000
"""Of the coarsest level, if the whole of it is read once, for tiles that would cost more."""

WHOLE_PX = 1536
"""Longer side of what is kept of the whole slide."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(eq=False)
class SlidePicture:
    """A slide as the run saw it, from the whole down to single pixels.

    Attributes
    ----------
    overview : Path or None
        ``overview.png`` of the result: what is shown from afar of a slide without a pyramid,
        which would have to be read whole.
    """

    ground: Ground
    overview: Path | None
    _whole: NDArray[np.uint8] | None = None
    _looked: bool = False
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, result: Result, image: Location | None = None) -> SlidePicture:
        """Of a result's slide, opened as the run opened it.

        Raises
        ------
        InputError
            If it is gone, is another one, or does not open.
        """
        slide = result.slide(image)
        try:
            try:
                ground = result.ground(slide)
            except CellsegError:  # an older record does not say the channels or their scale
                ground = _fitted(slide)
        except BaseException:
            slide.close()
            raise
        path = result.file(OVERVIEW)
        return cls(ground, path if path.is_file() else None)

    @property
    def slide(self) -> Slide:
        return self.ground.slide

    @property
    def is_coarse(self) -> bool:
        """Whether views from afar are blurred, for want of a pyramid."""
        coarsest = self.slide.levels[-1]
        return coarsest.height * coarsest.width > WHOLE_SOURCE_PX

    def read(self, box: Box, pixel: float) -> NDArray[np.uint8]:
        """(H, W, 3) of a box on the lattice of ``pixel`` level-0 px a pixel.

        Raises
        ------
        RegionError
            If a part of the slide that it needs is damaged.
        """
        levels = self.slide.levels
        fine = [level for level in levels if level.downsample <= pixel * 1.01]
        if is_costly(box.shape, pixel, fine[-1] if fine else levels[0]):
            return self._enlarged(box, pixel)
        return self.ground.read(box, pixel)

    def _enlarged(self, box: Box, pixel: float) -> NDArray[np.uint8]:
        """From what is kept of the whole slide; grey where there is no such picture."""
        with self._lock:
            if not self._looked:
                self._whole, self._looked = self._made(), True
        if self._whole is None:
            return np.full((*box.shape, 3), 128, np.uint8)
        height, width = self._whole.shape[:2]
        y, x = pixel * height / self.slide.height, pixel * width / self.slide.width
        place = (
            min(box.x0 * x, width - 0.5), min(box.y0 * y, height - 0.5),
            min(box.x1 * x, width), min(box.y1 * y, height),
        )  # fmt: skip
        part = Image.fromarray(self._whole).resize(
            (box.width, box.height), Image.Resampling.BILINEAR, box=place
        )
        return np.asarray(part)

    def _made(self) -> NDArray[np.uint8] | None:
        if not self.is_coarse:
            with suppress(CellsegError):
                pixels = self.slide.overview(WHOLE_PX)[0][..., list(self.ground.channels)]
                return np.round(self.ground.normaliser.apply(pixels) * 255).astype(np.uint8)
        if self.overview is not None:
            with suppress(*_UNREADABLE), Image.open(self.overview) as image:
                image.load()
                parts = parts_of(image)
                if parts:
                    return np.asarray(image.convert("RGB").crop(parts[0]))
        return None


def is_costly(shape: tuple[int, int], pixel: float, level: Level) -> bool:
    """Whether a picture of ``shape`` costs more stored pixels of a level than a tile may."""
    sides = [math.ceil(side * pixel / level.downsample) for side in shape]
    decoded = [-(-side // chunk) * chunk for side, chunk in zip(sides, level.chunk, strict=True)]
    if level.chunk == (level.height, level.width):  # decoded once, and kept
        decoded = [0, 0]
    return (
        math.prod(sides) > TILE_SOURCE_PX
        or decoded[0] * min(decoded[1], level.width) > TILE_DECODED_PX
    )


def _fitted(slide: Slide) -> Ground:
    """A slide as it looks by itself: its colours, or its first channel stretched."""
    side = min(512, slide.height, slide.width)
    level = min(slide.levels[-1].downsample, max(slide.height, slide.width) / side)
    height, width = slide.lattice_shape(level)
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    box = Box(top, left, min(top + side, height), min(left + side, width))
    channels = (0, 1, 2) if slide.is_rgb else (0,)
    pixels = slide.read(box, downsample=level, channels=channels)
    light: Light = "transmitted" if slide.is_rgb else "fluorescence"
    if slide.is_rgb and slide.dtype == np.uint8:
        return Ground(slide=slide, channels=channels, normaliser=Normaliser(0, 255, "transmitted"))
    return Ground(slide=slide, channels=channels, normaliser=Normaliser.fit(pixels, light))


def coarsest_halving(height: int, width: int, side: int) -> int:
    """How often a slide is halved until its longer side has at most ``side`` px."""
    return max(0, math.ceil(math.log2(max(height, width) / side)))
