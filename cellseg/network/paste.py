"""Many masks to pixels at once, on the device where they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.geometry import Box

Pasted = tuple[Box, NDArray[np.bool_]]

THRESHOLD = 0.54
"""Probability from which a pixel belongs to its object; at 0.5 small nuclei's outlines are 4 to 5 %
too large (docs/lab/tried.md)."""

_SIDES = (0, 12, 16, 20, 24, 32, 48, 96, 192, 384, 1 << 30)
"""Boxes between two of these sides are pasted together, all as large as the largest."""

_PIXELS = 1 << 24
"""At once; more of them go one after another."""


def paste_all(
    probabilities: Tensor, boxes: Tensor, extents: Tensor, *, threshold: float = THRESHOLD
) -> list[Pasted | None]:
    """Resample the mask branch's output to pixels, inside the boxes only.

    Parameters
    ----------
    probabilities : Tensor, float32, (D, M, M)
        The mask branch's output for each box.
    boxes : Tensor, float32, (D, 4)
        (x1, y1, x2, y2), pixels, not rounded.
    extents : Tensor, (2,)
        Height and width of the image, pixels.
    threshold : float
        Probability from which a pixel belongs to the object.

    Returns
    -------
    list of (Box, ndarray of bool) or None
        The tight box and the mask in it, in order; None where no pixel reaches the threshold.

    Notes
    -----
    The mask branch is trained on targets that torchvision's RoIAlign (``aligned=False``)
    draws from the annotated mask: bin ``i`` of ``M`` holds the mask at pixel *index*
    ``x0 + (i + 0.5) (x1 - x0) / M``. The same relation is inverted here, so that no half
    pixel is lost on the way (for a nucleus of 12 px half a pixel costs a tenth of its IoU).
    Few transfers, whatever the number of objects: a GPU does not wait for each of them.
    """
    found: list[Pasted | None] = [None] * len(boxes)
    if not found:
        return found
    # MPS has no float64; a border that moves by rounding is no matter.
    exact = torch.float32 if boxes.device.type == "mps" else torch.float64
    low, high = boxes[:, [1, 0]].to(exact), boxes[:, [3, 2]].to(exact)
    first = (low - 0.5).ceil().clamp(min=0).long()
    last = torch.minimum((high - 0.5).ceil().long(), extents.long())
    sides = (last - first).amax(1).cpu().numpy()
    for least, most in pairwise(_SIDES):
        chosen = np.flatnonzero((sides > least) & (sides <= most))
        if not len(chosen):
            continue
        side = int(sides[chosen].max())
        step = max(1, _PIXELS // side**2)
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            index = torch.from_numpy(part).to(boxes.device)
            places = (low[index], high[index], first[index], last[index])
            pasted = _paste(probabilities[index], places, side, threshold)
            for place, one in zip(part.tolist(), pasted, strict=True):
                found[place] = one
    return found


def _paste(
    probabilities: Tensor, places: tuple[Tensor, Tensor, Tensor, Tensor], side: int, limit: float
) -> list[Pasted | None]:
    """Objects whose pixels fit into squares of one side."""
    size = probabilities.shape[-1]
    vertical, horizontal = (_weights(places, axis, side, size) for axis in (0, 1))
    masks = torch.einsum("dpm,dmn,dqn->dpq", vertical, probabilities, horizontal) >= limit
    rows, columns = masks.any(2), masks.any(1)
    ends = [
        end
        for line in (rows, columns)
        for end in (line.byte().argmax(1), side - line.flip(1).byte().argmax(1))
    ]
    # One transfer of the bounds, one of the pixels.
    bounds = torch.stack([*ends, rows.any(1).long(), *places[2].unbind(1)], dim=1).tolist()
    found: list[Pasted | None] = []
    for mask, (top, bottom, left, right, there, y, x) in zip(
        masks.cpu().numpy(), bounds, strict=True
    ):
        place = Box(y + top, x + left, y + bottom, x + right) if there else None
        inside = np.ascontiguousarray(mask[top:bottom, left:right])
        found.append(None if place is None else (place, inside))
    return found


def _weights(
    places: tuple[Tensor, Tensor, Tensor, Tensor], axis: int, side: int, size: int
) -> Tensor:
    """Linear interpolation from ``size`` bins to pixels, (D, side, size); 0 beyond the last."""
    low, high, first, last = (place[:, axis, None] for place in places)
    pixels = first + torch.arange(side, device=first.device)
    position = ((pixels - low) / (high - low) * size - 0.5).clamp(0, size - 1)
    left = position.long().clamp(max=max(size - 2, 0))
    share = (position - left).float()
    weights = torch.zeros((*pixels.shape, size), device=first.device)
    weights.scatter_(2, left[..., None], (1 - share)[..., None])
    weights.scatter_add_(2, (left + 1).clamp(max=size - 1)[..., None], share[..., None])
    return weights * (pixels < last)[..., None]
