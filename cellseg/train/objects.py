"""Variety of a crop's own objects, each by its own degree: size, contrast, focus.

The nuclei of one section differ: one is pale beside a dark one, a third is out of focus. Changes of
a whole crop do not teach that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of
from cellseg.train.filters import blurred

LEAST_CONTRAST = 0.06
"""Objects are not faded below this difference from their surroundings, in units of the white
level: taught what nobody can see, a network finds it everywhere."""


def reshaped(crop: Crop, rng: np.random.Generator) -> Crop:
    """Shrink or stretch some objects about their centres; the tissue around them gives way.

    Objects without an outline have no shape: a crop that holds one comes back as it is.
    """
    if not len(crop.boxes) or not bool(crop.outlined.all()):
        return crop
    size = crop.image.shape[1]
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    shift, weight = torch.zeros(2, size, size), torch.zeros(size, size)
    for index in torch.nonzero(_chosen(crop.boxes, rng))[:, 0].tolist():
        x0, y0, x1, y1 = crop.boxes[index].tolist()
        middle, half = ((y0 + y1) / 2, (x0 + x1) / 2), ((y1 - y0) / 2 + 1, (x1 - x0) / 2 + 1)
        rows, columns = (
            slice(max(0, int(at - 2 * reach)), int(at + 2 * reach) + 1)
            for at, reach in zip(middle, half, strict=True)
        )
        down, along = (axis[rows] - middle[0])[:, None], (axis[columns] - middle[1])[None]
        near = (2 - ((down / half[0]) ** 2 + (along / half[1]) ** 2).sqrt()).clamp(0, 1)
        factors = np.exp(rng.uniform(-0.35, 0.2) + rng.normal(0, 0.08, 2))
        shift[0, rows, columns] += near * down * float(1 / factors[0] - 1)
        shift[1, rows, columns] += near * along * float(1 / factors[1] - 1)
        weight[rows, columns] += near
    shift = shift / weight.clamp_min(1)
    places = torch.stack([axis + shift[1], axis[:, None] + shift[0]], -1)[None] * (2 / size) - 1
    labels = torch.stack([_labels(crop.masks), crop.ignored.float()])

    def moved(values: Tensor, mode: str) -> Tensor:
        return F.grid_sample(
            values[None], places, mode=mode, padding_mode="border", align_corners=False
        )[0]

    owner, ignored = moved(labels, "nearest")
    numbers = torch.arange(1, len(crop.masks) + 1, dtype=torch.float32)
    masks = (owner == numbers[:, None, None]).to(torch.uint8)
    kept = masks.sum((1, 2)) >= MIN_AREA_PX
    lost = masks[~kept].sum(0) > 0
    return replace(
        crop,
        image=moved(crop.image, "bilinear"),
        boxes=boxes_of(masks[kept]),
        masks=masks[kept],
        labels=crop.labels[kept],
        outlined=crop.outlined[kept],
        ignored=((ignored > 0) | lost).to(torch.uint8),
    )


def varied(crop: Crop, rng: np.random.Generator) -> Crop:
    """Fade some objects towards their surroundings, raise some out of them, blur some."""
    if not len(crop.boxes):
        return crop
    image, owner = crop.image, _labels(crop.masks).long()
    ground = _surroundings(image, F.max_pool2d((owner > 0).float()[None], 5, 1, 2)[0])
    difference = (image - ground).abs().mean(0)
    areas = torch.bincount(owner.flatten(), minlength=len(crop.masks) + 1)[1:].clamp_min(1)
    sums = torch.zeros(len(crop.masks) + 1).index_add_(0, owner.flatten(), difference.flatten())
    contrast = sums[1:] / areas
    usual, count = rng.uniform(0.3, 0.8), len(crop.masks)
    fade = torch.from_numpy(np.clip(usual + rng.normal(0, 0.15, count), 0.2, 1)).float()
    fade = torch.maximum(fade, (LEAST_CONTRAST / contrast.clamp_min(1e-4)).clamp(max=1))
    rise = torch.from_numpy(rng.uniform(1.1, 1.5, count)).float()
    factor = torch.where(torch.from_numpy(rng.random(count) < 0.7), fade, rise)
    chosen = _chosen(crop.boxes, rng)
    factor = torch.where(chosen, factor, torch.ones(count))
    # A pixel beyond the outline as well: a dark rim would give a faded nucleus away.
    about = F.max_pool2d(owner[None].float(), 3, 1, 1)[0].long()
    about = torch.where(owner > 0, owner, about)
    strength = blurred(torch.cat([torch.ones(1), factor])[about][None], 0.8)
    image = ground + (image - ground) * strength
    soft = chosen & torch.from_numpy(rng.random(count) < 0.4)
    if bool(soft.any()):
        near = torch.cat([torch.zeros(1), soft.float()])[owner][None]
        near = blurred(F.max_pool2d(near, 5, 1, 2), 1.2)
        image = torch.lerp(image, blurred(image, float(rng.uniform(1, 2.5))), near)
    return replace(crop, image=image.clamp(0, 1))


def emptied(crop: Crop, background: float, rng: np.random.Generator) -> Crop:
    """Bare glass, or a dark field: a shade of the crop that shows nothing, and no objects."""
    shade = blurred(crop.image, float(rng.uniform(0.8, 4))) - background
    image = background + shade * float(rng.uniform(0, 0.06))
    none = torch.zeros(0, dtype=torch.long)
    nothing = Crop.of(image, crop.masks[none], crop.labels[none])
    return replace(nothing, ignored=torch.zeros_like(crop.ignored))


def _chosen(boxes: Tensor, rng: np.random.Generator) -> Tensor:
    """A random part of the objects, or those about a random one: pale nuclei come together."""
    if rng.random() < 0.35:
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = (middles - middles[int(rng.integers(len(boxes)))]).norm(dim=1)
        return distance < float(rng.uniform(20, 90))
    return torch.from_numpy(rng.random(len(boxes)) < rng.uniform(0.1, 0.6))


def _labels(masks: Tensor) -> Tensor:
    """Number of the object at each pixel, from 1, float32 (S, S)."""
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int16)
    return (masks * numbers[:, None, None]).amax(0).float()


def _surroundings(image: Tensor, objects: Tensor) -> Tensor:
    """Mean of what is no object within some 25 px, (3, S, S)."""
    parts = torch.cat([image * (1 - objects), 1 - objects[None]])
    coarse = F.avg_pool2d(F.adaptive_avg_pool2d(parts, 16), 3, 1, 1, count_include_pad=False)
    whole = parts.mean((1, 2), keepdim=True)
    coarse = coarse + 0.02 * whole + 1e-6
    smooth = F.interpolate(coarse[None], image.shape[1:], mode="bilinear")[0]
    return smooth[:3] / smooth[3:]
