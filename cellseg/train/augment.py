"""Random crops of annotated images: where, how large, with which changes, each in a share of them.

Randomness comes in as a generator; nothing here seeds or reads global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.stain.normalise import Light
from cellseg.train.crops import Crop, boxes_of, cut, turned
from cellseg.train.filters import (
    blurred,
    coarser,
    colour_moments,
    compressed,
    dimmed,
    inverted,
    labelled,
    recoloured,
    with_stains,
)
from cellseg.train.objects import add_bubbles, add_copies, emptied, reshaped, varied

SCALES = (0.5, 2.0)
"""Range of the random scale beside the image's own zoom, uniform in its logarithm."""

STRETCH = 0.35
"""Largest difference of the scales along y and x, natural logarithm, in half of the crops."""

DIAMETERS_PX = (9.0, 90.0)
"""The scale is bounded so that the image's median object keeps within this range."""

LABELLED = 0.3
"""Share of stained crops that are redrawn as immunohistochemistry."""


def random_crop(
    image: AnnotatedImage,
    size: int,
    rng: np.random.Generator,
    *,
    diameters_px: tuple[float, float] = DIAMETERS_PX,
    references: Sequence[NDArray[np.float64]] = (),
) -> Crop:
    """One augmented crop of an image.

    Intensities are normalised as in counting, on the whole image. Where objects are so
    sparse that most crops would be empty, the crop is drawn around one of them.

    Parameters
    ----------
    size : int
        Side of the crop, pixels.
    diameters_px : (float, float)
        As :data:`DIAMETERS_PX`.
    references : sequence of ndarray
        Colours (:func:`colour_moments`) of stained images, which others take over.
    """
    crop = _window(image, size, diameters_px, rng)
    light = image.light
    if light == "transmitted" and rng.random() < 0.1:
        crop = add_bubbles(crop, int(rng.integers(1, 9)), rng)
    if rng.random() < 0.08:
        pixels, light = inverted(crop.image, light, rng)
        crop = replace(crop, image=pixels)
    if rng.random() < 0.3:
        crop = reshaped(crop, rng)
    crop = geometric(crop, rng)
    if rng.random() < 0.06:
        crop = emptied(crop, 0.0 if light == "fluorescence" else 1.0, rng)
    crop = replace(crop, plain=crop.image)
    if light == image.light == "transmitted" and len(references) and rng.random() < 0.5:
        own, other = colour_moments(image), references[int(rng.integers(len(references)))]
        if own is not None:
            share = float(rng.uniform(0.3, 1.0))
            crop = replace(crop, image=recoloured(crop.image, own, other, share))
    if rng.random() < 0.45:
        crop = varied(crop, rng)
    return photometric(crop, light, rng)


def _window(
    image: AnnotatedImage, size: int, diameters_px: tuple[float, float], rng: np.random.Generator
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


def photometric(
    crop: Crop, light: Light, rng: np.random.Generator, *, labels: float = LABELLED
) -> Crop:
    """A crop as another laboratory and another scanner would show it.

    Parameters
    ----------
    labels : float
        As :data:`LABELLED`.
    """
    image = crop.image
    if light == "transmitted":
        image = _stained(labelled(image, crop.masks, rng) if rng.random() < labels else image, rng)
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
