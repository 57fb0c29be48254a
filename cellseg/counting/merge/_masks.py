"""Mask crops and boxes: pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.geometry import box_of

Corners = tuple[int, int, int, int]
"""(y0, x0, y1, x1), half-open: a box without the cost of one."""

Mask = NDArray[np.bool_]

_EIGHT = np.ones((3, 3), dtype=np.bool_)


def tightened(box: Corners, mask: Mask) -> tuple[Corners, Mask] | None:
    """Box and mask (a view) cut to the set pixels; None where none is set."""
    if mask.size == 0:
        return None
    some = np.count_nonzero  # several times faster than any() on so few pixels
    if some(mask[0]) and some(mask[-1]) and some(mask[:, 0]) and some(mask[:, -1]):
        return box, mask
    inner = box_of(mask)
    return None if inner is None else (inner.shifted(*box[:2]).corners, mask[inner.pixels])


def window(box: Corners, mask: Mask, other: Corners) -> Mask:
    """The view of ``mask`` inside ``other``; of size 0 where they do not meet."""
    y0, x0 = max(box[0], other[0]), max(box[1], other[1])
    y1, x1 = max(y0, min(box[2], other[2])), max(x0, min(box[3], other[3]))
    return mask[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]


def shared_px(box: Corners, mask: Mask, other_box: Corners, other: Mask) -> int:
    """Pixels set in both of two masks whose boxes meet."""
    return int(np.count_nonzero(window(box, mask, other_box) & window(other_box, other, box)))


def union(crops: list[tuple[Corners, Mask]]) -> tuple[Corners, Mask]:
    """One mask with the pixels of all."""
    corners = np.array([box for box, _ in crops])
    y0, x0 = (int(v) for v in corners[:, :2].min(axis=0))
    y1, x1 = (int(v) for v in corners[:, 2:].max(axis=0))
    joined = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    for box, mask in crops:
        joined[box[0] - y0 : box[2] - y0, box[1] - x0 : box[3] - x0] |= mask
    return (y0, x0, y1, x1), joined


def meeting_pairs(boxes: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Indices of boxes that share a pixel, (M, 2), one of each pair at ``first`` or later.

    ``boxes``, (N, 4), are (y0, x0, y1, x1), none of them empty.
    """
    order = np.argsort(boxes[:, 0], kind="stable")
    y0, x0, y1, x1 = boxes[order].T
    # In the order of the upper edges, a box meets in y exactly the ones that start before it ends.
    counts = np.searchsorted(y0, y1, side="left") - np.arange(1, len(order) + 1)
    left = np.repeat(np.arange(len(order)), counts)
    skipped = np.repeat(np.cumsum(counts) - counts, counts)
    right = left + 1 + np.arange(len(left)) - skipped
    meet = (x0[left] < x1[right]) & (x0[right] < x1[left])
    pairs = np.stack([order[left[meet]], order[right[meet]]], axis=1)
    chosen: NDArray[np.int64] = pairs[(pairs >= first).any(axis=1)]
    return chosen


def largest_piece(mask: Mask) -> Mask:
    """The largest 8-connected piece of a mask; of equal ones the first in reading order.

    Returns ``mask`` itself where it is one piece.
    """
    labels, pieces = ndimage.label(mask, _EIGHT)
    if pieces < 2:
        return mask
    largest: Mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return largest
