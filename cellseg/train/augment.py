"""Random crops of annotated images: where, how large, with which changes.

Randomness comes in as a generator; nothing here seeds or reads global state.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from imagecodecs import jpeg8_decode, jpeg8_encode
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.stain.normalise import Light
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of, cut, turned

SCALES = (0.5, 2.0)
"""Range of the random scale beside the image's own zoom, uniform in its logarithm."""

STRETCH = 0.35
"""Largest difference of the scales along y and x, natural logarithm, in half of the crops."""

DIAMETERS_PX = (9.0, 90.0)
"""The scale is bounded so that the image's median object keeps within this range."""

CROWDED = 0.5
"""No copies are added to a crop of which objects cover this share."""

COVERED = 0.25
"""Copies together may hide this share of another object at most."""


def random_crop(
    image: AnnotatedImage,
    size: int,
    rng: np.random.Generator,
    diameters_px: tuple[float, float] = DIAMETERS_PX,
) -> Crop:
    """One augmented crop of an image.

    Intensities are normalised as in counting, on the whole image. Where objects are so
    sparse that most crops would be empty, the crop is drawn around one of them.
    """
    crop = geometric(random_window(image, size, rng, diameters_px), rng)
    return photometric(crop, image.light, rng)


def random_window(
    image: AnnotatedImage, size: int, rng: np.random.Generator, diameters_px: tuple[float, float]
) -> Crop:
    """A crop as the image shows it, in a quarter of the cases with copies of its own objects."""
    side = size / _scale(image, diameters_px, rng)
    half = rng.uniform(-STRETCH, STRETCH) / 2 if rng.random() < 0.5 else 0.0
    sides = max(32, round(side * math.exp(half))), max(32, round(side * math.exp(-half)))
    extent = image.pixels.shape[:2]
    if image.masks and len(image.masks) * math.prod(sides) < 2 * math.prod(extent):
        box = image.boxes[rng.integers(len(image.boxes))]
        middle = (int(box[0] + box[2]) // 2, int(box[1] + box[3]) // 2)
        y, x = (
            _start(length, long, rng, at)
            for length, long, at in zip(extent, sides, middle, strict=True)
        )
    else:
        y, x = (_start(length, long, rng) for length, long in zip(extent, sides, strict=True))
    crop = cut(image, origin=(y, x), sides=sides, size=size)
    if rng.random() >= 0.25:
        return crop
    down, along = size / sides[0], size / sides[1]
    inside = Box(
        max(0, math.ceil(-y * down)),
        max(0, math.ceil(-x * along)),
        min(size, math.floor((extent[0] - y) * down)),
        min(size, math.floor((extent[1] - x) * along)),
    )
    return add_copies(crop, int(rng.integers(1, 13)), rng, inside=inside)


def _scale(
    image: AnnotatedImage, diameters_px: tuple[float, float], rng: np.random.Generator
) -> float:
    scale = image.zoom * float(np.exp(rng.uniform(*np.log(SCALES))))
    smallest, largest = diameters_px
    diameter = image.median_diameter_px
    if diameter * scale > largest:
        scale = largest * float(rng.uniform(0.5, 1.0)) / diameter
    return max(scale, smallest / diameter)


def _start(length: int, side: int, rng: np.random.Generator, middle: int | None = None) -> int:
    """First pixel of a window along one axis; it holds ``middle`` where one is given."""
    if length <= side:
        return -int(rng.integers(0, side - length + 1))
    if middle is None:
        return int(rng.integers(0, length - side + 1))
    return min(max(middle - int(rng.integers(0, side)), 0), length - side)


def add_copies(crop: Crop, copies: int, rng: np.random.Generator, *, inside: Box) -> Crop:
    """A crop with up to ``copies`` turned copies of whole objects, most of them touching one.

    Objects under a copy lose what it hides. The copies come from the same crop, so that focus,
    stain and noise fit (after Ghiasi et al., Simple Copy-Paste, CVPR 2021). The image lies
    ``inside`` the crop: objects at its edge may be cut and are not copied; no copy leaves it.
    """
    low, high = torch.tensor([inside.x0, inside.y0]), torch.tensor([inside.x1, inside.y1])
    whole = (crop.boxes[:, :2] > low).all(1) & (crop.boxes[:, 2:] < high).all(1) & crop.outlined
    sources = torch.nonzero(whole)[:, 0].numpy()
    if not len(sources) or float(crop.masks.any(0).float().mean()) > CROWDED:
        return crop
    image, masks, kinds = crop.image.clone(), crop.masks.bool(), list(range(len(crop.masks)))
    areas = left = masks.sum((1, 2))
    for source in rng.choice(sources, copies).tolist():
        pixels, soft = _lifted(crop, source, turns=int(rng.integers(4)))
        place = _place(masks[int(rng.integers(len(masks)))], soft, inside, rng)
        if place is None:
            continue
        hidden, there = soft > 0.5, (slice(None), *place.pixels)
        uncovered = left - (masks[there] & hidden).sum((1, 2))
        if bool(
            (uncovered < torch.maximum((1 - COVERED) * areas, areas.clamp(max=MIN_AREA_PX))).any()
        ):
            continue
        image[there] = torch.lerp(image[there], pixels, soft)
        masks[there] &= ~hidden
        new = torch.zeros_like(masks[:1])
        new[there] = hidden
        masks = torch.cat([masks, new])
        areas, left = (torch.cat([each, hidden.sum()[None]]) for each in (areas, uncovered))
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


def geometric(crop: Crop, rng: np.random.Generator) -> Crop:
    """One of the eight flips and right-angle turns, drawn uniformly."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    masks = turned(crop.masks, turns, flip=flip)
    return replace(
        crop,
        image=turned(crop.image, turns, flip=flip),
        boxes=boxes_of(masks),
        masks=masks,
        ignored=turned(crop.ignored, turns, flip=flip),
    )


def photometric(crop: Crop, light: Light, rng: np.random.Generator) -> Crop:
    """A crop as another laboratory and another scanner would show it."""
    image = crop.image
    if light == "transmitted":
        image = _stained(image, rng)
    gain, exponent = np.exp(rng.normal(0, (0.12, 0.2)))
    image = (image * float(gain)).clamp(1e-4, 1) ** float(exponent)
    if light == "fluorescence":
        # Slides hold brighter and dimmer fields than their percentiles show.
        image = image * float(rng.uniform(0.6, 1.0)) + float(rng.uniform(0, 0.06))
    if rng.random() < 0.25:
        image = blurred(image, float(rng.uniform(0.4, 1.2)))
    if rng.random() < 0.15:
        image = coarser(image, float(rng.uniform(1, 2.5)))
    if rng.random() < 0.2:  # edges are raised, as some scanners do
        smooth = blurred(image, float(rng.uniform(0.6, 1.5)))
        image = image + (image - smooth) * float(rng.uniform(0.3, 1.5))
    if light == "fluorescence" and rng.random() < 0.2:
        image = dimmed(image, rng)
    elif rng.random() < 0.5:
        channels = 1 if light == "fluorescence" else 3
        noise = rng.normal(0, rng.uniform(0, 0.03), (channels, *image.shape[1:]))
        image = image + torch.from_numpy(noise.astype(np.float32))
    if rng.random() < 0.35:
        image = compressed(image, int(rng.integers(30, 96)))
    return replace(crop, image=image.clamp(0, 1))


def _stained(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Other strengths and hues of the stains; in thirds another white, and weaker colours."""
    image = with_stains(image, np.exp(rng.normal(0, 0.4, 3)), rng.normal(0, 0.1, (3, 3)))
    if rng.random() < 1 / 3:
        white = 1 - rng.uniform(-0.04, 0.12, (3, 1, 1))
        image = image * torch.from_numpy(white.astype(np.float32))
    if rng.random() < 1 / 3:
        image = torch.lerp(image.mean(0, keepdim=True), image, float(rng.uniform(0.2, 1.6)))
    return image


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image (C, H, W) behind a Gaussian point spread."""
    smooth = gaussian_filter(image.numpy(), (0, sigma, sigma), mode="nearest", truncate=3.0)
    return torch.from_numpy(smooth)


def coarser(image: Tensor, factor: float) -> Tensor:
    """An image seen with pixels ``factor`` times as large, and enlarged again."""
    size = image.shape[1:]
    small = [max(8, round(side / factor)) for side in size]
    shrunk = F.interpolate(image[None], small, mode="bilinear", antialias=True)
    return F.interpolate(shrunk, size, mode="bilinear")[0]


def compressed(image: Tensor, quality: int) -> Tensor:
    """An image of 0 … 1 after a JPEG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    decoded = jpeg8_decode(jpeg8_encode(pixels.numpy(), quality))
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image.dtype) / 255


def dimmed(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A fluorescent crop so dim that its brightest parts stand little out of a camera's noise.

    Not less than what can be told apart: taught nuclei in more noise, the network doubts all of it.
    The noise is white, blurred or enlarged, its standard deviation 0.015 to 0.06 of the white
    level: counting stretches no more of it (``contrast.py``).
    """
    spread, ratio = rng.uniform(0.015, 0.06), np.exp(rng.uniform(np.log(5), np.log(16)))
    noise = torch.from_numpy(rng.normal(0, 1, (1, *image.shape[1:])).astype(np.float32))
    kind = int(rng.integers(3))
    if kind:  # in grains as large as small nuclei, less can be told apart
        ratio *= 1.6
    if kind == 1:
        noise = blurred(noise, float(rng.uniform(0.5, 2.0)))
    elif kind == 2:
        noise = coarser(noise, float(rng.uniform(1.5, 3.0)))
    dark, bright = image.mean(0).flatten().quantile(torch.tensor([0.05, 0.98])).tolist()
    gain = min(1.0, float(ratio) * float(spread) / max(bright - dark, 1e-3))
    ground = float(rng.uniform(0.0, 3.0) * spread)
    faint: Tensor = (image - dark) * gain + ground + noise * (float(spread) / noise.std())
    return faint


def with_stains(image: Tensor, gains: NDArray[np.float64], shift: NDArray[np.float64]) -> Tensor:
    """Haematoxylin, eosin and DAB (Ruifrok and Johnston 2001) in other strengths and hues.

    ``gains``, (3,), are factors of the stains' optical densities; ``shift``, (3, 3), is added to
    their colour vectors, which keep their length.
    """
    colours = np.clip(rgb_from_hed + shift, 0.01, None)
    colours *= np.linalg.norm(rgb_from_hed, axis=1, keepdims=True) / np.linalg.norm(
        colours, axis=1, keepdims=True
    )
    return (-mixed(density_of(image), hed_from_rgb @ np.diag(gains) @ colours)).exp()


def density_of(image: Tensor) -> Tensor:
    """Optical density (natural logarithm) of an image of 0 … 1."""
    return -image.clamp_min(1e-3).log()


def mixed(density: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Densities (C, H, W) times a matrix (C, D)."""
    return torch.einsum("chw,cd->dhw", density, torch.from_numpy(matrix.astype(np.float32)))
