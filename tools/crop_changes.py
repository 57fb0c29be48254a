"""Changes of training crops that made the shipped models, beside those of ``cellseg train``.

For a model of many stains and scanners; docs/lab/tried.md says what came of each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.stain.normalise import Light
from cellseg.train.augment import blurred, density_of, geometric, mixed, photometric, random_window
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of

STAINED = 0.05
"""Mean optical density (natural logarithm) from which a pixel is of tissue and not of glass."""

LEAST_CONTRAST = 0.06
"""Objects are not faded below this difference from their surroundings, in units of the white
level: taught what nobody can see, a network finds it everywhere."""

LABELLED = 0.3
"""Share of stained crops that are redrawn as immunohistochemistry."""


def crop_of_any_stain(
    image: AnnotatedImage, size: int, rng: np.random.Generator, diameters_px: tuple[float, float]
) -> Crop:
    """One changed crop of an image, as the default model learns from."""
    crop, light = random_window(image, size, rng, diameters_px), image.light
    if light == "transmitted" and rng.random() < 0.1:
        crop = add_bubbles(crop, int(rng.integers(1, 9)), rng)
    if rng.random() < 0.08:
        pixels, light = inverted(crop.image, light, rng)
        crop = replace(crop, image=pixels)
    if light == "transmitted" and rng.random() < LABELLED:
        crop = replace(crop, image=labelled(crop.image, crop.masks, rng))
    return photometric(geometric(crop, rng), light, rng)


def colour_moments(image: AnnotatedImage) -> NDArray[np.float64] | None:
    """Second moments, (3, 3), of the optical density of an image's tissue; None without tissue.

    They hold the directions of its stains and how much there is of each.
    """
    step = max(1, max(image.pixels.shape[:2]) // 128)
    values = image.normaliser.apply(image.pixels[::step, ::step]).reshape(-1, 3)
    density = -np.log(np.clip(values, 1e-3, 1).astype(np.float64))
    density = density[density.mean(1) > STAINED]
    if len(density) < 100:
        return None
    moments = density.T @ density / len(density)
    return np.asarray(moments + 0.003 * np.trace(moments) * np.eye(3))


def recoloured(
    image: Tensor, own: NDArray[np.float64], other: NDArray[np.float64], share: float
) -> Tensor:
    """A stained image with the stains of another slide, glass staying glass.

    The linear map of optical densities that gives ``own`` moments the ``other`` ones and moves
    them least (Pitié and Kokaram 2007, the Monge-Kantorovitch map), mixed with none at all.
    """
    root = _root(own)
    back = np.linalg.inv(root)
    matrix = (1 - share) * np.eye(3) + share * back @ _root(root @ other @ root) @ back
    return (-mixed(density_of(image), matrix).clamp_min(0)).exp()


def labelled(image: Tensor, masks: Tensor, rng: np.random.Generator) -> Tensor:
    """H&E redrawn as immunohistochemistry: the eosin fades, a brown label (DAB) comes.

    The label lies in a random part of the nuclei, in patches of the tissue beside them, or in
    both; what is dark in one stain stays the texture of the other.

    Parameters
    ----------
    image : Tensor, float32, (3, S, S)
    masks : Tensor, uint8, (N, S, S)

    Returns
    -------
    Tensor, float32, (3, S, S)
    """
    blue, pink, brown = mixed(density_of(image), hed_from_rgb).clamp_min(0)
    where = int(rng.integers(3))
    objects = (masks.sum(0) > 0).to(image.dtype)
    label = brown * float(rng.uniform(0, 1))
    if where != 1:
        chosen = masks[torch.from_numpy(rng.random(len(masks)) < rng.uniform(0.1, 0.9))]
        inside = blurred((chosen.sum(0) > 0).to(image.dtype)[None], 0.8)[0]
        label = label + inside * (blue + pink) * float(rng.uniform(0.6, 2.0))
        blue = blue * (1 - inside * float(rng.uniform(0.3, 1.0)))
    if where != 0:
        coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *(int(rng.integers(3, 9)),) * 2)))
        field = F.interpolate(coarse, image.shape[1:], mode="bicubic")[0, 0].to(image.dtype)
        patch = torch.sigmoid(4 * (field - float(rng.uniform(-0.8, 1.0))))
        outside = 1 - float(rng.uniform(0.4, 1.0)) * objects
        texture = 0.25 + pink / pink.mean().clamp_min(1e-3)
        if rng.random() < 0.5:  # membranes and cytoplasm: about the nuclei, and darkest there
            reach = 2 * int(rng.integers(2, 8)) + 1
            patch = patch * (0.3 + F.max_pool2d(objects[None], reach, 1, reach // 2)[0])
        label = label + patch * outside * texture * float(np.exp(rng.uniform(-2.5, 0.7)))
    pink = pink * float(rng.uniform(0, 0.4))
    blue = blue * float(rng.uniform(0.5, 1.1))
    return (-mixed(torch.stack([blue, pink, label]), rgb_from_hed)).exp().clamp(0, 1)


def with_brown_tissue(image: Tensor, masks: Tensor, rng: np.random.Generator) -> Tensor:
    """H&E redrawn as a label (DAB) of membranes and cytoplasm, which lies over pale nuclei.

    Brown is darkest half-way between neighbouring nuclei, where membranes are, and uneven. Nuclei
    are a pale blue-grey with soft edges: often no darker than what lies around them. Parts of the
    crop stay without label, as stroma does. Shapes are those of :func:`labelled`.
    """
    blue, pink, _ = mixed(density_of(image), hed_from_rgb).clamp_min(0)
    owner = _owners(masks) if len(masks) else torch.zeros(image.shape[1:])
    soft = float(rng.uniform(0.7, 2.5))
    inside = blurred((owner > 0).float()[None], soft)[0]
    gland = _noise(image, int(rng.integers(2, 5)), rng) - float(rng.uniform(-3, 0.3))
    gland = torch.sigmoid(6 * gland)
    uneven = (_noise(image, int(rng.integers(3, 12)), rng) * float(rng.uniform(0.1, 0.4))).exp()
    grain = _noise(image, int(rng.integers(20, 80)), rng) * float(rng.uniform(0.1, 0.35))
    label, kept = uneven * (1 + grain).clamp_min(0), torch.zeros(len(masks) + 1)
    if len(masks):
        distance, places = distance_transform_edt(owner.numpy() == 0, return_indices=True)
        nearest = owner[places[0], places[1]][None]
        edge = (F.max_pool2d(nearest, 3, 1, 1) != -F.max_pool2d(-nearest, 3, 1, 1)).float()
        edge = blurred(edge, float(rng.uniform(0.6, 1.6)))[0]
        near = torch.from_numpy(np.exp(-distance / rng.uniform(4, 20)).astype(np.float32))
        label = label + uneven * edge * near * float(rng.uniform(0, 5))
        kept[1:] = torch.from_numpy(rng.normal(rng.uniform(0.05, 0.5), 0.12, len(masks)))
    over = blurred(kept.clamp(0, 0.8)[owner.long()][None], soft)[0]
    label = label * (1 - inside + over) * float(np.exp(rng.uniform(-1.3, 0.2)))
    pale, even = float(np.exp(rng.uniform(-1.2, 0.1))), float(rng.uniform(0, 1))
    usual = (blue * inside).sum() / inside.sum().clamp_min(1)
    painted = inside * pale * (even * usual + (1 - even) * blue) + (1 - inside) * blue * 0.2
    blue = torch.lerp(blue * float(rng.uniform(0.6, 1.1)), painted, gland)
    pink = pink * float(rng.uniform(0, 0.3)) * (1 - 0.8 * gland)
    return (-mixed(torch.stack([blue, pink, label * gland]), rgb_from_hed)).exp().clamp(0, 1)


def drawn_out(crop: Crop, factor: float, rng: np.random.Generator) -> Crop:
    """A crop that is ``factor`` times as high for its width, beside its mirror image.

    What lies at the line between the two becomes one with its reflection.
    """
    size, root = crop.image.shape[1], float(np.sqrt(factor))
    sides = round(size * root), max(8, round(size / root))
    parts = torch.cat([crop.image, crop.ignored[None], crop.masks]).float()[None]
    smooth = F.interpolate(parts[:, :3], sides, mode="bilinear")[0]
    hard = F.interpolate(parts[:, 3:], sides, mode="nearest")[0]
    start = int(rng.integers(sides[0] - size + 1))
    left = torch.cat([smooth, hard])[:, start : start + size]
    right = left.flip(2)[:, :, : size - sides[1]]
    image = torch.cat([left[:3], right[:3]], 2)
    ignored = torch.cat([left[3], right[3]], 1).to(torch.uint8)
    cut = left[4:, :, -1].amax(1) > 0
    nothing = torch.zeros_like(right[4:])
    own = torch.cat([left[4:], torch.where(cut[:, None, None], right[4:], nothing)], 2)
    other = torch.cat([torch.zeros_like(left[4:]), right[4:]], 2)[~cut]
    masks = torch.cat([own, other]).to(torch.uint8)
    kept = masks.sum((1, 2)) >= MIN_AREA_PX
    masks, known = masks[kept], torch.cat([crop.outlined, crop.outlined[~cut]])[kept]
    labels = torch.cat([crop.labels, crop.labels[~cut]])[kept]
    return Crop(image, boxes_of(masks), masks, labels, known, ignored)


def _noise(image: Tensor, cells: int, rng: np.random.Generator) -> Tensor:
    """Smooth noise of deviation 1 with so many humps a side, perhaps drawn out, (S, S)."""
    sides = cells, max(2, int(cells * rng.uniform(0.3, 1)))
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *rng.permutation(sides))))
    return F.interpolate(coarse, image.shape[1:], mode="bicubic")[0, 0].to(image.dtype)


def inverted(image: Tensor, light: Light, rng: np.random.Generator) -> tuple[Tensor, Light]:
    """An image with its light turned round, so that darkness is not what makes an object.

    Fluorescence becomes an absorbing dye of a random colour on a white ground; transmitted
    light becomes the brightness of its nuclear stain on black: haematoxylin or DAB, whichever
    is stronger.
    """
    if light == "fluorescence":
        depth = torch.from_numpy(rng.uniform(0.2, 1.6, (3, 1, 1)).astype(np.float32))
        return float(rng.uniform(0.85, 1.0)) * (-depth * image).exp(), "transmitted"
    blue, _, brown = mixed(density_of(image), hed_from_rgb)
    dye = torch.maximum(blue, brown).clamp_min(0)
    dye = dye / dye.quantile(0.998).clamp_min(0.05)
    return dye.clamp(0, 1).expand_as(image).contiguous(), "fluorescence"


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


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square root of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.clip(values, 1e-12, None)) @ vectors.T)
