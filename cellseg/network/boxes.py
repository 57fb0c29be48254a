"""Boxes in numpy: anchors, shifts, suppression, as torchvision computes them.

Boxes are (x1, y1, x2, y2) in pixels of the network's input, float32, (B, 4).
Source: Ren et al., Faster R-CNN, NIPS 2015, https://arxiv.org/abs/1506.01497.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from cellseg.network.architecture import (
    ANCHOR_SIZES_PX,
    ASPECT_RATIOS,
    PROPOSAL_NMS,
    PROPOSAL_SCORE,
    Limits,
)

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

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
