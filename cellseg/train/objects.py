"""Changes of a crop's own objects: more of them, other sizes, contrast and focus, or none.

The nuclei of one section differ: one is pale beside a dark one, a third is out of focus. Changes of
a whole crop do not teach that, so here each object is changed by its own degree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cellseg.geometry import Box
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of
from cellseg.train.filters import blurred, density_of

CROWDED = 0.5
"""No copies are added to a crop of which objects cover this share."""

COVERED = 0.25
"""Copies together may hide this share of another object at most."""

LEAST_CONTRAST = 0.06
"""Objects are not faded below this difference from their surroundings, in units of the white
level: taught what nobody can see, a network finds it everywhere."""


def add_copies(crop: Crop, copies: int, rng: np.random.Generator, *, inside: Box) -> Crop:
    """A crop with up to ``copies`` turned copies of whole objects, most of them touching one.

    Objects under a copy lose what it hides. The copies come from the same crop, so that focus,
    stain and noise fit (after Ghiasi et al., Simple Copy-Paste, CVPR 2021).

    Parameters
    ----------
    copies : int
        Fewer are added where there is no room.
    inside : Box
        The image in the crop, pixels: what lies beyond is padding. Objects at its edge may be
        cut and are not copied; no copy leaves it.
    """
    low, high = torch.tensor([inside.x0, inside.y0]), torch.tensor([inside.x1, inside.y1])
    whole = (crop.boxes[:, :2] > low).all(1) & (crop.boxes[:, 2:] < high).all(1) & crop.outlined
    sources = torch.nonzero(whole)[:, 0].numpy()
    if not len(sources) or float(crop.masks.any(0).float().mean()) > CROWDED:
        return crop
    image, masks, kinds = crop.image.clone(), crop.masks.bool(), list(range(len(crop.masks)))
    areas = masks.sum((1, 2))
    for source in rng.choice(sources, copies).tolist():
        pixels, soft = _lifted(crop, source, turns=int(rng.integers(4)))
        place = _place(masks[int(rng.integers(len(masks)))], soft, inside, rng)
        if place is None:
            continue
        new = torch.zeros_like(masks[0])
        new[place.pixels] = soft > 0.5
        uncovered = (masks & ~new).sum((1, 2))
        if bool(
            (uncovered < torch.maximum((1 - COVERED) * areas, areas.clamp(max=MIN_AREA_PX))).any()
        ):
            continue
        there = (slice(None), *place.pixels)
        image[there] = torch.lerp(image[there], pixels, soft)
        masks = torch.cat([masks & ~new, new[None]])
        areas = torch.cat([areas, new.sum()[None]])
        kinds.append(source)
    masks = masks.to(torch.uint8)
    return replace(
        crop,
        image=image,
        boxes=boxes_of(masks),
        masks=masks,
        labels=crop.labels[kinds],
        outlined=crop.outlined[kinds],
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
    return crop.image[:, rows, columns].rot90(turns, (1, 2)), mask.rot90(turns, (0, 1))


def _place(neighbour: Tensor, mask: Tensor, inside: Box, rng: np.random.Generator) -> Box | None:
    """A place at which a copy touches a neighbour, None where that leaves the image."""
    points = torch.nonzero(neighbour)
    reach = np.sqrt(len(points) / np.pi) + np.sqrt(float((mask > 0.5).sum()) / np.pi)
    angle = rng.uniform(0, 2 * np.pi)
    offset = reach * rng.uniform(0.85, 1.1) * np.array([np.sin(angle), np.cos(angle)])
    corner = points.float().mean(0).numpy() + offset - np.array(mask.shape) / 2
    y, x = (int(v) for v in np.round(corner))
    place = Box(y, x, y + mask.shape[0], x + mask.shape[1])
    return place if place.intersection(inside) == place else None


def add_bubbles(crop: Crop, count: int, rng: np.random.Generator) -> Crop:
    """A stained crop with up to ``count`` vacuoles, fat and glassy debris where no object is.

    They are pale ellipses with a darker rim; fewer are drawn where there is no room.
    """
    size = crop.image.shape[1]
    taken = torch.cat([crop.masks, crop.ignored[None]]).amax(0).bool()
    density = density_of(crop.image)
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    for _ in range(count):
        centre, radius = rng.uniform(0, size, 2), float(np.exp(rng.uniform(np.log(3), np.log(24))))
        stretch, angle = float(rng.uniform(1, 1.8)), float(rng.uniform(0, np.pi))
        y, x = (axis - centre[0])[:, None], (axis - centre[1])[None]
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        distance = ((along / stretch) ** 2 + across**2).sqrt() - radius
        if bool((taken & (distance < 2)).any()):
            continue
        pale = torch.sigmoid(-2 * distance) * float(rng.uniform(0.6, 1.0))
        rim = torch.exp(-((distance / float(rng.uniform(0.7, 1.6))) ** 2))
        density = density * (1 - pale) * (1 + float(rng.uniform(0, 0.8)) * rim)
    return replace(crop, image=(-density).exp())


def emptied(crop: Crop, background: float, rng: np.random.Generator) -> Crop:
    """Bare glass, or a dark field: a shade of the crop that shows nothing, and no objects."""
    shade = blurred(crop.image, float(rng.uniform(0.8, 4))) - background
    image = background + shade * float(rng.uniform(0, 0.06))
    return Crop.of(image, crop.masks[:0], crop.labels[:0])


def reshaped(crop: Crop, rng: np.random.Generator) -> Crop:
    """A crop with some objects shrunk or stretched; the tissue around them gives way.

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

    def moved(values: Tensor, mode: str) -> Tensor:
        seen: Tensor = F.grid_sample(
            values[None], places, mode=mode, padding_mode="border", align_corners=False
        )
        return seen[0]

    owner, ignored = moved(torch.stack([_owners(crop.masks), crop.ignored.float()]), "nearest")
    numbers = torch.arange(1, len(crop.masks) + 1, dtype=torch.float32)
    masks = (owner == numbers[:, None, None]).to(torch.uint8)
    kept = masks.sum((1, 2)) >= MIN_AREA_PX
    return Crop(
        image=moved(crop.image, "bilinear"),
        boxes=boxes_of(masks[kept]),
        masks=masks[kept],
        labels=crop.labels[kept],
        outlined=crop.outlined[kept],
        ignored=((ignored > 0) | (masks[~kept].sum(0) > 0)).to(torch.uint8),
    )


def varied(crop: Crop, rng: np.random.Generator) -> Crop:
    """A crop with some objects faded towards their surroundings, raised out of them, or blurred."""
    count = len(crop.masks)
    if not count:
        return crop
    owner = _owners(crop.masks)
    ground = _surroundings(crop.image, F.max_pool2d((owner > 0).float()[None], 5, 1, 2))
    # A pixel beyond the outline as well: a dark rim would give a faded nucleus away.
    wide = F.max_pool2d(owner[None], 3, 1, 1)[0]
    owner, wide = owner.long(), torch.where(owner > 0, owner, wide).long()
    difference = (crop.image - ground).abs().mean(0).flatten()
    sums = torch.zeros(count + 1).index_add_(0, owner.flatten(), difference)
    contrast = (sums / owner.flatten().bincount(minlength=count + 1).clamp_min(1))[1:]
    fade = torch.from_numpy(rng.normal(rng.uniform(0.3, 0.8), 0.15, count)).float().clamp(0.2, 1)
    fade = torch.maximum(fade, (LEAST_CONTRAST / contrast.clamp_min(1e-4)).clamp(max=1))
    rise = torch.from_numpy(rng.uniform(1.1, 1.5, count)).float()
    factor = torch.where(torch.from_numpy(rng.random(count) < 0.7), fade, rise)
    chosen = _chosen(crop.boxes, rng)
    strength = torch.cat([torch.ones(1), torch.where(chosen, factor, torch.ones(count))])
    image = ground + (crop.image - ground) * blurred(strength[wide][None], 0.8)
    soft = chosen & torch.from_numpy(rng.random(count) < 0.4)
    near = torch.cat([torch.zeros(1), soft.float()])[owner][None]
    near = blurred(F.max_pool2d(near, 5, 1, 2), 1.2)
    image = torch.lerp(image, blurred(image, float(rng.uniform(1, 2.5))), near)
    return replace(crop, image=image.clamp(0, 1))


def _chosen(boxes: Tensor, rng: np.random.Generator) -> Tensor:
    """A random part of the objects, or those about a random one: pale nuclei come together."""
    if rng.random() < 0.35:
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = (middles - middles[int(rng.integers(len(boxes)))]).norm(dim=1)
        near: Tensor = distance < float(rng.uniform(20, 90))
        return near
    return torch.from_numpy(rng.random(len(boxes)) < rng.uniform(0.1, 0.6))


def _owners(masks: Tensor) -> Tensor:
    """Number of the object at each pixel, from 1, float32 (S, S)."""
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int16)
    return (masks * numbers[:, None, None]).amax(0).float()


def _surroundings(image: Tensor, objects: Tensor) -> Tensor:
    """Mean of what is no object within some 25 px, (3, S, S)."""
    parts = torch.cat([image * (1 - objects), 1 - objects])
    coarse = F.avg_pool2d(F.adaptive_avg_pool2d(parts, 16), 3, 1, 1, count_include_pad=False)
    coarse = coarse + 0.02 * parts.mean((1, 2), keepdim=True) + 1e-6
    smooth: Tensor = F.interpolate(coarse[None], image.shape[1:], mode="bilinear")[0]
    return smooth[:3] / smooth[3:]
