"""Outlines of cells as transparent tiles: drawn from the label image, so a million cost no more."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.draw import RGB, borders
from cellseg.geometry import Box, Frame
from cellseg.result.labels import LabelImage, labels_at

OUTLINED_FROM_PX = 7.0
"""A usual cell's diameter in the picture; of smaller ones the share of each pixel is shown."""

SAMPLES = 4
"""Along a side of a pixel, for that share."""

_MARGIN_PX = 5
"""Seen around a tile, so that lines meet across its edges."""

_PX_PER_WIDTH = 24
_CASING = (20, 20, 24, 150)
_OPACITY = np.round(225 * np.sqrt(np.arange(SAMPLES**2 + 1) / SAMPLES**2)).astype(np.uint8)
"""By the number of samples that are cells."""


def mask_tile(
    levels: Sequence[LabelImage],
    frame: Frame,
    box: Box,
    pixel: float,
    *,
    of_label: NDArray[np.uint16] | None,
    shown: NDArray[np.bool_],
    colours: Sequence[RGB],
    diameter_px: float,
) -> bytes:
    """Draw the cells of a box.

    Parameters
    ----------
    levels : sequence of LabelImage
        Finest first.
    box : Box
        On the slide's lattice of ``pixel``, inside its extent.
    pixel : float
        Level-0 pixels along a side of the picture's pixels.
    of_label : ndarray, uint16, (L + 1,), or None
        By label: 0 for no cell, otherwise the class's index plus 1. None: all are of one class.
    shown : ndarray, bool, (C,)
        By class.
    colours : sequence of (red, green, blue), C
    diameter_px : float
        Of a usual cell, level-0 pixels.

    Returns
    -------
    bytes
        PNG with transparency, box.height × box.width.
    """
    palette = np.array([(0, 0, 0, 0), *((*c, 255) for c in colours)], np.uint8)
    palette[1:][~shown] = 0
    if diameter_px / pixel < OUTLINED_FROM_PX:
        finer = Box(*(SAMPLES * side for side in (box.y0, box.x0, box.y1, box.x1)))
        numbers = _numbers(labels_at(levels, frame, finer, pixel / SAMPLES), of_label)
        return _png(_shares(numbers, palette, box.shape))
    extent = Box(0, 0, -(-frame.height // int(pixel)), -(-frame.width // int(pixel)))
    around = box.widened(_MARGIN_PX).intersection(extent)
    labels = labels_at(levels, frame, around, pixel)
    numbers = _numbers(labels, of_label)
    labels[palette[numbers, 3] == 0] = 0
    width = int(np.clip(round(diameter_px / pixel / _PX_PER_WIDTH + 0.7), 1, 4))
    picture = palette[np.where(borders(labels, width), numbers, 0)]
    picture[(labels == 0) & borders((labels == 0).astype(np.uint8), 1)] = _CASING
    y, x = box.y0 - around.y0, box.x0 - around.x0
    return _png(picture[y : y + box.height, x : x + box.width])


def _numbers(
    labels: NDArray[np.uint32], of_label: NDArray[np.uint16] | None
) -> NDArray[np.integer]:
    """Of each pixel: 0 for no cell, otherwise its class's index plus 1."""
    if of_label is None:
        return (labels > 0).astype(np.uint8)
    return of_label[np.where(labels < len(of_label), labels, 0)]


def _shares(
    numbers: NDArray[np.integer], palette: NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """The samples' mean colour, the more opaque the more of them are cells; few are seen, too."""
    covered = np.zeros(shape, np.uint8)
    colour = np.zeros((*shape, 3), np.uint16)
    for number in np.flatnonzero(np.bincount(numbers.ravel(), minlength=len(palette))).tolist():
        if palette[number, 3]:
            mine = (numbers == number).astype(np.uint8)
            rows = np.add.reduce([mine[start::SAMPLES] for start in range(SAMPLES)], dtype=np.uint8)
            share = np.add.reduce(
                [rows[:, start::SAMPLES] for start in range(SAMPLES)], dtype=np.uint8
            )
            covered += share
            colour += share[..., None] * palette[number, :3].astype(np.uint16)
    out = np.zeros((*shape, 4), np.uint8)
    out[..., :3] = colour // np.maximum(covered, 1)[..., None]
    out[..., 3] = _OPACITY[covered]
    return out


def _png(picture: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", compress_level=1)
    return out.getvalue()
