"""Many masks to pixels at once, inside their boxes only."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box

Pasted = tuple[Box, NDArray[np.bool_]]

THRESHOLD = 0.54
"""Probability from which a pixel belongs to its object; at 0.5 small nuclei's outlines are 4 to 5 %
too large (docs/lab/tried.md)."""

_SIDES = (0, 12, 16, 20, 24, 32, 48, 96, 192, 384, 1 << 30)
"""Boxes between two of these sides are pasted together, all as large as the largest."""

_PIXELS = 1 << 22
"""At once; more of them go one after another."""


def paste_all(
    probabilities: NDArray[np.float32],
    boxes: NDArray[np.float32],
    extent: tuple[int, int],
) -> list[Pasted | None]:
    """Resample the mask branch's output, (D, M, M), to pixels, inside the boxes only.

    ``boxes``, (D, 4), are (x1, y1, x2, y2), not rounded; ``extent`` is the image's height and
    width. What comes is the tight box and the mask in it of each, in order; None where no pixel
    reaches the threshold.

    The mask branch is trained on targets that torchvision's RoIAlign (``aligned=False``)
    draws from the annotated mask: bin ``i`` of ``M`` holds the mask at pixel *index*
    ``x0 + (i + 0.5) (x1 - x0) / M``. The same relation is inverted here, so that no half
    pixel is lost on the way (for a nucleus of 12 px half a pixel costs a tenth of its IoU).
    """
    found: list[Pasted | None] = [None] * len(boxes)
    corners = boxes.astype(np.float64)
    low, high = corners[:, [1, 0]], corners[:, [3, 2]]
    first = np.clip(np.ceil(low - 0.5), 0, None).astype(np.int64)
    last = np.minimum(np.ceil(high - 0.5).astype(np.int64), extent)
    sides = (last - first).max(1, initial=0)
    for least, most in pairwise(_SIDES):
        chosen = np.flatnonzero((sides > least) & (sides <= most))
        side = int(sides[chosen].max(initial=1))
        step = max(1, _PIXELS // side**2)
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            places = (low[part], high[part], first[part], last[part])
            pasted = _paste(probabilities[part], places, side)
            for place, one in zip(part.tolist(), pasted, strict=True):
                found[place] = one
    return found


_Places = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]
"""Ends of boxes, (y, x), and their first and last pixels, each (D, 2)."""


def _paste(probabilities: NDArray[np.float32], places: _Places, side: int) -> list[Pasted | None]:
    """Objects whose pixels fit into squares of one side."""
    size = probabilities.shape[-1]
    vertical, horizontal = (_weights(places, axis, side, size) for axis in (0, 1))
    pixels = vertical @ probabilities @ horizontal.transpose(0, 2, 1)
    masks: NDArray[np.bool_] = np.greater_equal(pixels, THRESHOLD)
    lines: list[NDArray[np.bool_]] = [np.any(masks, 2), np.any(masks, 1)]
    ends = [end for line in lines for end in (line.argmax(1), side - line[:, ::-1].argmax(1))]
    bounds = np.stack([*ends, lines[0].any(1), *places[2].T], 1).tolist()
    found: list[Pasted | None] = []
    for mask, (top, bottom, left, right, any_pixel, y, x) in zip(masks, bounds, strict=True):
        place = Box(y + top, x + left, y + bottom, x + right)
        inside = np.ascontiguousarray(mask[top:bottom, left:right])
        found.append((place, inside) if any_pixel else None)
    return found


def _weights(places: _Places, axis: int, side: int, size: int) -> NDArray[np.float32]:
    """Linear interpolation from ``size`` bins to pixels, (D, side, size); 0 beyond the last."""
    low, high, first, last = (place[:, axis, None] for place in places)
    pixels = first + np.arange(side)
    position = np.clip((pixels - low) / (high - low) * size - 0.5, 0, size - 1)
    # A tent of width 1 about each bin.
    distance = np.abs(position[..., None] - np.arange(size))
    weights = np.clip(1 - distance, 0, None) * (pixels < last)[..., None]
    return np.asarray(weights, np.float32)
