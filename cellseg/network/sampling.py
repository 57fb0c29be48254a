"""RoIAlign of channels-last features in numpy: samples are rows of a sparse matrix.

A sample between four pixels is a weighted sum of four rows of a (pixels, channels) table.
Source: He et al., Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870; the arithmetic is that
of ``torchvision.ops.roi_align`` with ``aligned=False``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cellseg.network.architecture import FINEST, LEVEL_AT_224_PX

Floats = NDArray[np.float32]
Levels = NDArray[np.floating]


def sampled(levels: Sequence[Levels], boxes: Floats, side: int) -> Floats:
    """One sample in the middle of each of ``side`` × ``side`` bins, (B, side, side, C).

    Levels, (H, W, C), are feature maps at strides 4, 8, 16, 32; a box, (x1, y1, x2, y2) in pixels
    of the network's input, is sampled in one of them, by its size.
    """
    out = np.empty((len(boxes), side, side, levels[0].shape[2]), np.float32)
    fitting = level_of(boxes, len(levels))
    for index, level in enumerate(levels):
        chosen = np.flatnonzero(fitting == index)
        if len(chosen):
            found = _taken(level, boxes[chosen] / np.float32(4 << index), side)
            out[chosen] = found.reshape(-1, *out.shape[1:])
    return out


def level_of(boxes: Floats, levels: int) -> NDArray[np.int64]:
    """In which of the levels each box is sampled, by its size, (B,)."""
    size = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    fitting = np.floor(LEVEL_AT_224_PX + np.log2(size / 224 + 1e-30) + 1e-6) - FINEST
    found: NDArray[np.int64] = np.clip(fitting, 0, levels - 1).astype(np.int64)
    return found


def mean_samples(levels: Sequence[Levels], boxes: Floats, side: int) -> Floats:
    """Mean of ``side`` × ``side`` samples of each box in each level, (B, levels · C)."""
    parts = []
    for index, level in enumerate(levels):
        samples = _taken(level, boxes / np.float32(4 << index), side, together=side * side)
        parts.append(samples / np.float32(side * side))
    return np.concatenate(parts, 1)


def _taken(level: Levels, boxes: Floats, side: int, *, together: int = 1) -> Floats:
    """Samples of a level, (B · side² / together, C); boxes in its pixels.

    So many samples are summed as are taken ``together``.
    """
    matrix, used = weighted(level.shape[:2], boxes, side, together=together)
    table = level.reshape(-1, level.shape[2])[used].astype(np.float32, copy=False)
    return np.asarray(matrix @ table)


def weighted(
    extent: tuple[int, ...],
    boxes: Floats,
    side: int,
    *,
    together: int = 1,
    image: NDArray[np.int64] | None = None,
) -> tuple[csr_array, NDArray[np.bool_]]:
    """The sparse matrix that makes samples of pixels, and which pixels it takes.

    They are (B · side² / together, P) and (images · height · width,), of which P are true. Boxes,
    (B, 4), are in pixels of the level, whose height and width is the ``extent``. So many samples
    are summed as are taken ``together``. ``image``, (B,), is the number of the one that each box
    lies in; levels of several lie one behind the other.
    """
    height, width = extent
    x, x_weight = _taps(boxes[:, 0], boxes[:, 2], side, width)
    y, y_weight = _taps(boxes[:, 1], boxes[:, 3], side, height)
    pixels = y[:, :, None, :, None] * width + x[:, None, :, None, :]
    images = 1
    if image is not None:
        images = int(image.max(initial=0)) + 1
        pixels = pixels + (image * (height * width))[:, None, None, None, None]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    ends = np.arange(0, pixels.size + 1, 4 * together, dtype=np.int32)
    used = np.zeros(images * height * width, bool)
    used[pixels] = True
    row = np.cumsum(used, dtype=np.int32)[pixels] - 1
    shape = (len(ends) - 1, int(row.max(initial=-1)) + 1)
    return csr_array((weights.reshape(-1), row.reshape(-1), ends), shape), used


def _taps(low: Floats, high: Floats, side: int, size: int) -> tuple[NDArray[np.int32], Floats]:
    """Along one axis the two pixels about the middle of each bin, and their weights: (B, side, 2).

    Samples more than a pixel outside have no weight.
    """
    bins = np.maximum(high - low, 1) / np.float32(side)
    at = low[:, None] + bins[:, None] * np.arange(side, dtype=np.float32) + 0.5 * bins[:, None]
    inside = (at >= -1) & (at <= size)
    at = np.clip(at, 0, size - 1)
    first = np.floor(at)
    share = at - first
    pixels = np.stack((first, np.minimum(first + 1, size - 1)), -1).astype(np.int32)
    return pixels, np.stack((1 - share, share), -1) * inside[..., None]
