"""Boxes in numpy: anchors, shifts, suppression and RoIAlign, as torchvision computes them.

Boxes are (x1, y1, x2, y2) in pixels of the network's input, float32, (B, 4). RoIAlign is that of
``torchvision.ops.roi_align`` with ``aligned=False``: a sample between four pixels is a weighted sum
of four rows of a (pixels, channels) table, and samples are rows of a sparse matrix.
Sources: Ren et al., Faster R-CNN, NIPS 2015, https://arxiv.org/abs/1506.01497; He et al., Mask
R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cellseg.network.architecture import (
    ANCHOR_SIZES_PX,
    ASPECT_RATIOS,
    FINEST,
    LEVEL_AT_224_PX,
    PROPOSAL_NMS,
    PROPOSAL_SCORE,
    Limits,
)

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Levels = NDArray[np.floating]

LARGEST_SHIFT = math.log(1000 / 16)
"""Of a side's logarithm."""

LEAST_SIDE_PX = 1e-3


def anchors(extent: tuple[int, int], grids: Sequence[tuple[int, int]]) -> list[Floats]:
    """Anchors of each level, finest first, three at each place of a level.

    ``extent`` and ``grids`` are (height, width) of the image and of each level.
    """
    heights = np.sqrt(np.array(ASPECT_RATIOS))
    found = []
    for size, (rows, columns) in zip(ANCHOR_SIZES_PX, grids, strict=True):
        sides = np.stack([size / heights, size * heights, -size / heights, -size * heights], 1)
        cell = np.round(-sides / 2)
        y = np.arange(rows) * (extent[0] // rows)
        x = np.arange(columns) * (extent[1] // columns)
        place = np.stack(np.broadcast_arrays(x, y[:, None], x, y[:, None]), -1)
        found.append((place[:, :, None] + cell).reshape(-1, 4).astype(np.float32))
    return found


def shifted(boxes: Floats, shifts: Floats, weights: tuple[float, float] = (1.0, 1.0)) -> Floats:
    """Boxes moved and resized by the network's shifts (B, 4): of centres, and of log sides.

    ``weights`` divide the former and the latter.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sides + shifts[:, :2] / np.float32(weights[0]) * sides
    scale = np.minimum(shifts[:, 2:] / np.float32(weights[1]), np.float32(LARGEST_SHIFT))
    half = 0.5 * np.exp(scale) * sides
    return np.concatenate([centres - half, centres + half], 1)


def clipped(boxes: Floats, extent: tuple[int, int]) -> Floats:
    """Boxes cut at the image's edge."""
    height, width = extent
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def proposals(
    scores: Floats,
    shifts: Floats,
    sites: Floats,
    level: NDArray[np.int8],
    limits: Limits,
    extent: tuple[int, int],
) -> Floats:
    """Boxes that are worth a second look, best first; one level's suppress only one another.

    ``scores``, (A,), are logits of the anchors ``sites``, (A, 4), and ``shifts`` move them.
    """
    chosen = np.flatnonzero(scores > math.log(PROPOSAL_SCORE / (1 - PROPOSAL_SCORE)))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    parts = []
    for one in np.unique(level[chosen]):
        part = chosen[level[chosen] == one][: limits.pre_nms]
        boxes = clipped(shifted(sites[part], shifts[part]), extent)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE_PX).all(1)
        part, boxes = part[large], boxes[large]
        keep = unsuppressed(boxes, PROPOSAL_NMS)
        parts.append((part[keep], boxes[keep]))
    if not parts:
        return np.empty((0, 4), np.float32)
    index, found = (np.concatenate(column) for column in zip(*parts, strict=True))
    return found[np.argsort(-scores[index], kind="stable")][: limits.proposals]


def unsuppressed(boxes: Floats, overlap: float) -> Indices:
    """Indices of boxes, best first, that no better one overlaps by a larger IoU."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    drawn = shapely.box(*boxes.T)
    first, second = shapely.STRtree(drawn).query(drawn)
    first, second = first[first < second], second[first < second]
    inner = np.minimum(boxes[first, 2:], boxes[second, 2:])
    inner = np.clip(inner - np.maximum(boxes[first, :2], boxes[second, :2]), 0, None).prod(1)
    rival = inner > overlap * (area[first] + area[second] - inner)
    first, second = first[rival], second[rival]
    is_open, kept = np.ones(len(boxes), bool), np.zeros(len(boxes), bool)
    while is_open.any():
        # Kept are those that no box stands against which may still be kept itself.
        kept[np.setdiff1d(np.flatnonzero(is_open), second)] = True
        is_open[kept] = is_open[second[kept[first]]] = False
        live = is_open[first] & is_open[second]
        first, second = first[live], second[live]
    return np.flatnonzero(kept)


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
