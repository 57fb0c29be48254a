"""Pictures of a place: the slide at a bounded cost, and outlines of cells over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.draw import borders, parts_of
from cellseg.errors import CellsegError
from cellseg.geometry import Box, Frame, LazyArray
from cellseg.palette import RGB
from cellseg.result import Ground, Result, labels_at
from cellseg.result.publish import OVERVIEW
from cellseg.slide import Level, Slide

TILE_SOURCE_PX = 6_000_000
"""Stored pixels that one tile may cost: 2,048² of them with room for a pyramid's odd steps."""

TILE_DECODED_PX = 40_000_000
"""Pixels of the chunks in which these lie: strips as wide as the slide are decoded whole, and fit
so into what a slide keeps decoded for the neighbours."""

WHOLE_SOURCE_PX = 40_000_000
"""Of the coarsest level, if the whole of it is read once, for tiles that would cost more."""

WHOLE_PX = 1536  # Longer side of what is kept of the whole slide.

OUTLINED_FROM_PX = 7.0
"""A usual cell's diameter in the picture; of smaller ones the share of each pixel is shown."""

SAMPLES = 4  # Along a side of a pixel, for that share.
_MARGIN_PX = 5  # Seen around a tile, so that lines meet across its edges.

_PX_PER_WIDTH = 24
_CASING = (20, 20, 24, 150)
_OPACITY = [round(225 * (covered / 255) ** 0.5) for covered in range(256)]
"""By the share of a pixel that is cells, of 255."""


def is_costly(shape: tuple[int, int], pixel: float, levels: Sequence[Level]) -> bool:
    """Whether a picture, whose pixels are ``pixel`` level-0 px wide, costs more than a tile may."""
    level = [one for one in levels if one.downsample <= pixel * 1.01 or one is levels[0]][-1]
    sides = [math.ceil(side * pixel / level.downsample) for side in shape]
    decoded = [-(-side // chunk) * chunk for side, chunk in zip(sides, level.chunk, strict=True)]
    if level.chunk == (level.height, level.width):  # decoded once, and kept
        decoded = [0, 0]
    return (
        math.prod(sides) > TILE_SOURCE_PX
        or decoded[0] * min(decoded[1], level.width) > TILE_DECODED_PX
    )


def is_coarse(slide: Slide) -> bool:
    """Whether a slide is too large to be read whole, and has no small level."""
    coarsest = slide.levels[-1]
    return coarsest.height * coarsest.width > WHOLE_SOURCE_PX


def whole_slide(result: Result, ground: Ground) -> NDArray[np.uint8]:
    """All of a slide, small, RGB; of one without a pyramid what ``overview.png`` shows of it.

    Grey where there is no such picture.
    """
    if not is_coarse(ground.slide):
        with suppress(CellsegError):
            pixels = ground.slide.overview(WHOLE_PX)[0][..., list(ground.channels)]
            return np.round(ground.normaliser.apply(pixels) * 255).astype(np.uint8)
    else:
        # Decoders raise whatever they like.
        with suppress(Exception), Image.open(result.file(OVERVIEW)) as image:
            image.load()
            return np.asarray(image.convert("RGB").crop(parts_of(image)[0]))
    return np.full((1, 1, 3), 128, np.uint8)


def enlarged(whole: NDArray[np.uint8], frame: Frame, box: Box, pixel: float) -> NDArray[np.uint8]:
    """A box on the lattice of ``pixel`` level-0 px, from a small picture of the whole slide."""
    height, width = whole.shape[:2]
    y, x = pixel * height / frame.height, pixel * width / frame.width
    place = (
        min(box.x0 * x, width - 0.5), min(box.y0 * y, height - 0.5),
        min(box.x1 * x, width), min(box.y1 * y, height),
    )  # fmt: skip
    size = (box.width, box.height)
    return np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR, box=place))


def mask_tile(
    levels: Sequence[LazyArray],
    frame: Frame,
    box: Box,
    pixel: float,
    *,
    of_label: NDArray[np.uint16] | None,
    shown: NDArray[np.bool_],
    colours: Sequence[RGB],
    diameter_px: float,
) -> bytes:
    """The cells of a box as a PNG of its size, with transparency.

    They are drawn from the label image, so that a million cost no more than one. The box lies on
    the slide's lattice of ``pixel`` level-0 px, inside its extent. ``of_label``, (L + 1,), gives by
    label 0 for no cell, otherwise the class's index plus 1; None: all are of one class. ``shown``,
    (C,), says which classes are drawn. ``diameter_px`` is a usual cell's, level-0 pixels.
    """
    palette = np.array([(0, 0, 0, 0), *((*c, 255) for c in colours)], np.uint8)
    palette[1:][~shown] = 0
    if diameter_px / pixel < OUTLINED_FROM_PX:
        finer = Box(*(SAMPLES * side for side in box.corners))
        labels = labels_at(levels, frame, finer, pixel / SAMPLES)
        # The mean colour, the more opaque the more of a pixel are cells; few are seen, too.
        small = Image.fromarray(palette[_classes(labels, of_label)]).reduce(SAMPLES)
        small.putalpha(small.getchannel("A").point(_OPACITY))
        return _png(small)
    extent = Box(0, 0, -(-frame.height // int(pixel)), -(-frame.width // int(pixel)))
    around = box.widened(_MARGIN_PX).intersection(extent)
    labels = labels_at(levels, frame, around, pixel)
    classes = _classes(labels, of_label)
    labels[palette[classes, 3] == 0] = 0
    width = int(np.clip(round(diameter_px / pixel / _PX_PER_WIDTH + 0.7), 1, 4))
    picture = palette[np.where(borders(labels, width), classes, 0)]
    picture[(labels == 0) & borders((labels == 0).astype(np.uint8), 1)] = _CASING
    return _png(Image.fromarray(picture[box.inside(around)]))


def _classes(
    labels: NDArray[np.uint32], of_label: NDArray[np.uint16] | None
) -> NDArray[np.integer]:
    """Of each pixel: 0 for no cell, otherwise its class's index plus 1."""
    if of_label is None:
        return (labels > 0).astype(np.uint8)
    return of_label[np.where(labels < len(of_label), labels, 0)]


def _png(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()
