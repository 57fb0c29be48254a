"""Mask probabilities of a box to a mask of pixels, inside the box only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box


def paste(
    probabilities: NDArray[np.float32],
    box: tuple[float, float, float, float],
    extent: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Resample one mask to pixels with sub-pixel accuracy.

    Parameters
    ----------
    probabilities : ndarray, float32, (M, M)
        The mask branch's output for the box.
    box : (float, float, float, float)
        (y0, x0, y1, x1) of the box, pixels, not rounded.
    extent : (int, int)
        Height and width of the image: nothing is set outside.
    threshold : float
        Probability from which a pixel belongs to the object.

    Returns
    -------
    (Box, ndarray of bool) or None
        The tight box and the mask in it; None where no pixel reaches the threshold.

    Notes
    -----
    The mask branch is trained on targets that torchvision's RoIAlign (``aligned=False``)
    draws from the annotated mask: bin ``i`` of ``M`` holds the mask at pixel *index*
    ``x0 + (i + 0.5) (x1 - x0) / M``. The same relation is inverted here, so that no half
    pixel is lost on the way (for a nucleus of 12 px half a pixel costs a tenth of its IoU).
    """
    y0, x0, y1, x1 = box
    rows = _pixels(y0, y1, extent[0])
    columns = _pixels(x0, x1, extent[1])
    if len(rows) == 0 or len(columns) == 0:
        return None
    size = probabilities.shape[0]
    vertical = _weights(rows, y0, y1, size)
    horizontal = _weights(columns, x0, x1, size)
    mask = (vertical @ probabilities @ horizontal.T) >= threshold
    inside_y, inside_x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(inside_y) == 0:
        return None
    top, bottom = int(inside_y[0]), int(inside_y[-1]) + 1
    left, right = int(inside_x[0]), int(inside_x[-1]) + 1
    tight = Box(
        int(rows[0]) + top, int(columns[0]) + left, int(rows[0]) + bottom, int(columns[0]) + right
    )
    return tight, np.ascontiguousarray(mask[top:bottom, left:right])


def _pixels(low: float, high: float, length: int) -> NDArray[np.int64]:
    """Indices of the pixels whose centre lies within [low, high)."""
    first, last = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
    return np.arange(max(first, 0), min(last, length), dtype=np.int64)


def _weights(pixels: NDArray[np.int64], low: float, high: float, size: int) -> NDArray[np.float32]:
    """Linear interpolation from ``size`` bins to ``pixels``, (P, size); edges are held."""
    position = np.clip((pixels - low) / (high - low) * size - 0.5, 0, size - 1)
    left = np.minimum(position.astype(np.int64), max(size - 2, 0))
    share = (position - left).astype(np.float32)
    weights = np.zeros((len(pixels), size), dtype=np.float32)
    index = np.arange(len(pixels))
    weights[index, left] = 1 - share
    weights[index, np.minimum(left + 1, size - 1)] += share
    return weights
