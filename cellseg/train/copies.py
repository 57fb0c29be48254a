"""Copy-paste: a crop's own objects set down again beside one another, for crowded scenes.

Ghiasi et al. 2021 (Simple Copy-Paste is a Strong Data Augmentation for Instance
Segmentation); here the copies come from the same crop, so that focus, stain and noise fit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cellseg.geometry import Box
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of

CROWDED = 0.5
"""No copies are added to a crop of which objects cover this share."""

COVERED = 0.25
"""Copies together may hide this share of another object at most."""


def add_copies(crop: Crop, copies: int, rng: np.random.Generator, *, inside: Box) -> Crop:
    """Add up to ``copies`` turned copies of whole objects, most of them touching another one.

    Parameters
    ----------
    copies : int
        Fewer are added where there is no room.
    inside : Box
        The image in the crop, pixels: what lies beyond is padding. Objects at its edge may be
        cut and are not copied; no copy leaves it.

    Returns
    -------
    Crop
        The same object where nothing was added. Objects under a copy lose what it hides.
    """
    size = crop.image.shape[1]
    whole = [
        index
        for index, (x0, y0, x1, y1) in enumerate(crop.boxes.tolist())
        if x0 > inside.x0
        and y0 > inside.y0
        and x1 < inside.x1
        and y1 < inside.y1
        and crop.outlined[index]
    ]
    if not whole or float(crop.masks.any(0).float().mean()) > CROWDED:
        return crop
    image, masks, labels = crop.image.clone(), list(crop.masks.bool()), crop.labels.tolist()
    areas, outlined = [int(mask.sum()) for mask in masks], crop.outlined.tolist()
    for source in rng.choice(whole, copies).tolist():
        pixels, mask = _lifted(crop, source, turns=int(rng.integers(4)))
        place = _place(masks[int(rng.integers(len(masks)))], mask, inside, rng)
        if place is None:
            continue
        y, x = place
        window = (slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1]))
        new = torch.zeros((size, size), dtype=torch.bool)
        new[window] = mask > 0.5
        left = [int((old & ~new).sum()) for old in masks]
        if any(
            rest < max((1 - COVERED) * area, min(area, MIN_AREA_PX))
            for rest, area in zip(left, areas, strict=True)
        ):
            continue
        image[:, window[0], window[1]] = torch.lerp(image[:, window[0], window[1]], pixels, mask)
        masks = [old & ~new for old in masks] + [new]
        areas.append(int(new.sum()))
        labels.append(labels[source])
        outlined.append(True)
    if len(masks) == len(crop.masks):
        return crop
    stacked = torch.stack(masks).to(torch.uint8)
    return replace(
        crop,
        image=image,
        boxes=boxes_of(stacked),
        masks=stacked,
        labels=torch.tensor(labels, dtype=torch.int64),
        outlined=torch.tensor(outlined),
    )


def _lifted(crop: Crop, index: int, *, turns: int) -> tuple[Tensor, Tensor]:
    """Pixels (3, h, w) and soft mask (h, w) of one object, turned, with a margin of one pixel.

    The mask falls from 1 inside the object to under a half outside.
    """
    x0, y0, x1, y1 = (int(v) for v in crop.boxes[index].tolist())
    rows, columns = slice(y0 - 1, y1 + 1), slice(x0 - 1, x1 + 1)
    hard = crop.masks[index, rows, columns].float()
    soft = F.avg_pool2d(hard[None, None], 3, 1, 1)[0, 0]
    mask = torch.where(hard > 0, soft.clamp_min(0.75), soft.clamp_max(0.45))
    pixels = crop.image[:, rows, columns]
    return pixels.rot90(turns, (1, 2)), mask.rot90(turns, (0, 1))


def _place(
    neighbour: Tensor, mask: Tensor, inside: Box, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Corner (y, x) at which a copy touches a neighbour, None where that leaves the image."""
    ys, xs = torch.nonzero(neighbour, as_tuple=True)
    middle = np.array([float(ys.float().mean()), float(xs.float().mean())])
    reach = np.sqrt(len(ys) / np.pi) + np.sqrt(float((mask > 0.5).sum()) / np.pi)
    angle = rng.uniform(0, 2 * np.pi)
    offset = reach * rng.uniform(0.85, 1.1) * np.array([np.sin(angle), np.cos(angle)])
    y, x = (int(v) for v in np.round(middle + offset - np.array(mask.shape) / 2))
    fits = y >= inside.y0 and x >= inside.x0
    fits &= y + mask.shape[0] <= inside.y1 and x + mask.shape[1] <= inside.x1
    return (y, x) if fits else None
