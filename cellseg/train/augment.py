"""Augmentation: flips, right-angle turns, scale, density, light, stain and brightness.

Randomness comes in as a generator; nothing here seeds or reads global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.stain.normalise import Light
from cellseg.train.copies import add_copies
from cellseg.train.crops import Crop, boxes_of, cut, turned
from cellseg.train.filters import blurred, coarser, colour_moments, compressed, recoloured
from cellseg.train.negatives import add_bubbles
from cellseg.train.objects import emptied, reshaped, varied


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training images are varied.

    Attributes
    ----------
    size : int
        Side of a crop, pixels.
    scale : (float, float)
        Range of the random scale beside the image's own zoom, uniform in its logarithm.
    stretch : float
        Largest difference of the scales along y and x, in natural logarithms, in half of the
        crops: nuclei longer and rounder than the organs have that were annotated.
    diameter_px : (float, float)
        The scale is bounded so that the image's median object keeps within this range.
    stain : float
        Spread of the haematoxylin, eosin and DAB gains, in natural logarithms.
    hue : float
        Spread of each component of the stains' colour vectors (of length 1): other scanners and
        other dyes.
    tint : float
        Largest share of a colour that the glass takes away, in a third of the stained crops; a
        wrong white balance gives a third of that.
    saturation : (float, float)
        Range of the strength of colours in a third of the stained crops; 0 is grey.
    brightness : float
        Spread of the gain, in natural logarithms.
    gamma : float
        Spread of the exponent, likewise.
    softness : float
        Share of crops that are seen coarser, by up to 2.5 times, and enlarged again.
    sharpness : float
        Share of crops whose edges are raised, as some scanners do.
    compression : float
        Share of crops that went through a JPEG of quality 30 to 95.
    noise : float
        Largest standard deviation of added noise, in units of the white level.
    faint : float
        Share of fluorescent crops that are dimmed into noise, down to a signal of 5 times the
        noise's standard deviation.
    label : float
        Share of transmitted-light crops that are redrawn as immunohistochemistry.
    inversion : float
        Share of crops whose light is turned round: fluorescence to dark objects on a bright
        ground, a stain's density to bright objects on a dark one.
    density : float
        Share of crops to which copies of their own objects are added.
    bubbles : float
        Share of stained crops into which vacuoles and the like are drawn.
    shapes, objects : float
        Shares of crops of which some objects are shrunk or stretched, and faded, raised or
        blurred, each by its own degree.
    recoloured : float
        Share of stained crops that take over the stains of another image of the training.
    empty : float
        Share of crops that are reduced to bare glass or a dark field.
    """

    size: int = 256
    scale: tuple[float, float] = (0.5, 2.0)
    stretch: float = 0.35
    diameter_px: tuple[float, float] = (9.0, 90.0)
    stain: float = 0.4
    hue: float = 0.1
    tint: float = 0.12
    saturation: tuple[float, float] = (0.2, 1.6)
    brightness: float = 0.12
    gamma: float = 0.2
    softness: float = 0.15
    sharpness: float = 0.2
    compression: float = 0.35
    noise: float = 0.03
    faint: float = 0.2
    label: float = 0.3
    inversion: float = 0.08
    density: float = 0.25
    bubbles: float = 0.1
    shapes: float = 0.3
    objects: float = 0.45
    recoloured: float = 0.5
    empty: float = 0.06


def random_crop(
    image: AnnotatedImage,
    augmentation: Augmentation,
    rng: np.random.Generator,
    references: Sequence[NDArray[np.float64]] = (),
) -> Crop:
    """Draw one augmented crop of an image.

    ``references`` are the colours (:func:`colour_moments`) of stained images to take over.

    The intensities are normalised as in counting, on the whole image. Where objects are so
    sparse that most crops would be empty, the crop is drawn around one of them.
    """
    size = augmentation.size
    sides = _sides(size / _scale(image, augmentation, rng), augmentation.stretch, rng)
    height, width = image.pixels.shape[:2]
    if image.masks and len(image.masks) * sides[0] * sides[1] < 2 * height * width:
        y0, x0, y1, x1 = (int(v) for v in image.boxes[rng.integers(len(image.boxes))])
        origin = (_around(y0, y1, height, sides[0], rng), _around(x0, x1, width, sides[1], rng))
    else:
        origin = (_start(height, sides[0], rng), _start(width, sides[1], rng))
    crop = cut(image, origin=origin, sides=sides, size=size)
    if rng.random() < augmentation.density:
        crop = add_copies(
            crop, int(rng.integers(1, 13)), rng, inside=_image_in(origin, sides, size, image)
        )
    light = image.light
    if light == "transmitted" and rng.random() < augmentation.bubbles:
        crop = add_bubbles(crop, int(rng.integers(1, 9)), rng)
    if rng.random() < augmentation.inversion:
        crop, light = inverted(crop, light, rng)
    if rng.random() < augmentation.shapes:
        crop = reshaped(crop, rng)
    crop = geometric(crop, rng)
    if rng.random() < augmentation.empty:
        crop = emptied(crop, 0.0 if light == "fluorescence" else 1.0, rng)
    crop = replace(crop, plain=crop.image)
    if light == image.light == "transmitted" and len(references):
        own = colour_moments(image)
        if own is not None and rng.random() < augmentation.recoloured:
            other, share = references[rng.integers(len(references))], rng.uniform(0.3, 1.0)
            crop = replace(crop, image=recoloured(crop.image, own, other, float(share)))
    if rng.random() < augmentation.objects:
        crop = varied(crop, rng)
    return photometric(crop, light, augmentation, rng)


def _sides(side: float, stretch: float, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a window, source pixels, whose usual side is ``side``."""
    half = rng.uniform(-stretch, stretch) / 2 if rng.random() < 0.5 else 0.0
    return max(32, round(side * math.exp(half))), max(32, round(side * math.exp(-half)))


def _image_in(
    origin: tuple[int, int], sides: tuple[int, int], size: int, image: AnnotatedImage
) -> Box:
    """Where the image lies in a crop of ``sides`` source pixels, drawn at ``size`` pixels."""
    down, along = size / sides[0], size / sides[1]
    (y, x), (height, width) = origin, image.pixels.shape[:2]
    return Box(
        max(0, math.ceil(-y * down)),
        max(0, math.ceil(-x * along)),
        min(size, math.floor((height - y) * down)),
        min(size, math.floor((width - x) * along)),
    )


def _scale(image: AnnotatedImage, augmentation: Augmentation, rng: np.random.Generator) -> float:
    low, high = augmentation.scale
    scale = image.zoom * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    smallest, largest = augmentation.diameter_px
    diameter = image.median_diameter_px
    if diameter * scale > largest:
        scale = largest * float(np.exp(rng.uniform(np.log(0.5), 0.0))) / diameter
    return max(scale, smallest / diameter)


def _start(length: int, side: int, rng: np.random.Generator) -> int:
    if length <= side:
        return -int(rng.integers(0, side - length + 1))
    return int(rng.integers(0, length - side + 1))


def _around(low: int, high: int, length: int, side: int, rng: np.random.Generator) -> int:
    """A start for which the square holds the middle of low … high, inside the image."""
    if length <= side:
        return _start(length, side, rng)
    start = (low + high) // 2 - int(rng.integers(0, side))
    return min(max(start, 0), length - side)


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
    crop: Crop, light: Light, augmentation: Augmentation, rng: np.random.Generator
) -> Crop:
    """Vary intensities: stain and brightness in transmitted light, contrast in fluorescence."""
    image = crop.image
    if light == "transmitted":
        if rng.random() < augmentation.label:
            image = labelled(image, crop.masks, rng)
        gains = np.exp(rng.normal(0, augmentation.stain, 3))
        image = _stain(image, gains, rng.normal(0, augmentation.hue, (3, 3)))
        if rng.random() < 1 / 3:
            glass = 1 - rng.uniform(-augmentation.tint / 3, augmentation.tint, (3, 1, 1))
            image = image * torch.from_numpy(glass.astype(np.float32))
        if rng.random() < 1 / 3:
            grey = image.mean(0, keepdim=True)
            image = torch.lerp(grey, image, float(rng.uniform(*augmentation.saturation)))
    gain = float(np.exp(rng.normal(0, augmentation.brightness)))
    exponent = float(np.exp(rng.normal(0, augmentation.gamma)))
    image = (image * gain).clamp(1e-4, 1) ** exponent
    if light == "fluorescence":
        # Slides hold brighter and dimmer fields than their percentiles show.
        image = image * float(rng.uniform(0.6, 1.0)) + float(rng.uniform(0, 0.06))
    if rng.random() < 0.25:
        sigma = float(rng.uniform(0.4, 1.2))
        image = blurred(image, sigma)
    if rng.random() < augmentation.softness:
        image = coarser(image, float(rng.uniform(1, 2.5)))
    if rng.random() < augmentation.sharpness:
        smooth = blurred(image, float(rng.uniform(0.6, 1.5)))
        image = image + (image - smooth) * float(rng.uniform(0.3, 1.5))
    if light == "fluorescence" and rng.random() < augmentation.faint:
        image = dimmed(image, rng)
    elif rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(0, augmentation.noise), image.shape)
        if light == "fluorescence":
            noise = np.broadcast_to(noise[:1], noise.shape)
        image = image + torch.from_numpy(noise.astype(np.float32))
    if rng.random() < augmentation.compression:
        image = compressed(image, int(rng.integers(30, 96)))
    return replace(crop, image=image.clamp(0, 1))


def dimmed(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Dim a fluorescent crop until its brightest parts stand little out of a camera's noise.

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


def labelled(image: Tensor, masks: Tensor, rng: np.random.Generator) -> Tensor:
    """Redraw H&E as immunohistochemistry: the eosin fades, a brown label (DAB) comes.

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
    matrix = torch.from_numpy(hed_from_rgb.astype(np.float32))
    density = -image.clamp_min(1e-3).log()
    stains = torch.einsum("chw,cd->dhw", density, matrix).clamp_min(0)
    blue, pink, brown = stains
    where = int(rng.integers(3))
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
        outside = 1 - float(rng.uniform(0.4, 1.0)) * (masks.sum(0) > 0).to(image.dtype)
        texture = 0.25 + pink / pink.mean().clamp_min(1e-3)
        if rng.random() < 0.5:  # membranes and cytoplasm: about the nuclei, and darkest there
            reach = 2 * int(rng.integers(2, 8)) + 1
            near = F.max_pool2d(
                masks.sum(0, keepdim=True).clamp(max=1).float(), reach, 1, reach // 2
            )
            patch = patch * (0.3 + near[0])
        label = label + patch * outside * texture * float(np.exp(rng.uniform(-2.5, 0.7)))
    pink = pink * float(rng.uniform(0, 0.4))
    blue = blue * float(rng.uniform(0.5, 1.1))
    back = torch.from_numpy(rgb_from_hed.astype(np.float32))
    changed = torch.einsum("dhw,dc->chw", torch.stack([blue, pink, label]), back)
    return (-changed).exp().clamp(0, 1)


def inverted(crop: Crop, light: Light, rng: np.random.Generator) -> tuple[Crop, Light]:
    """Turn the light round, so that darkness is not what makes an object.

    Fluorescence becomes an absorbing dye of a random colour on a white ground; transmitted
    light becomes the brightness of its nuclear stain on black: haematoxylin or DAB, whichever
    is stronger.
    """
    image = crop.image
    if light == "fluorescence":
        depth = torch.from_numpy(rng.uniform(0.2, 1.6, (3, 1, 1)).astype(np.float32))
        image, turned = float(rng.uniform(0.85, 1.0)) * (-depth * image).exp(), "transmitted"
    else:
        density = -image.clamp_min(1e-3).log()
        matrix = torch.from_numpy(hed_from_rgb.astype(np.float32))
        blue, _, brown = torch.einsum("chw,cd->dhw", density, matrix)
        dye = torch.maximum(blue, brown).clamp_min(0)
        dye = dye / dye.quantile(0.998).clamp_min(0.05)
        image, turned = dye.clamp(0, 1).expand_as(image).contiguous(), "fluorescence"
    return replace(crop, image=image), cast("Light", turned)


def _stain(image: Tensor, gains: NDArray[np.float64], shift: NDArray[np.float64]) -> Tensor:
    """Multiply the stains' optical densities (Ruifrok and Johnston 2001) by ``gains``.

    ``shift``, (3, 3), is added to the stains' colour vectors, which keep their length.
    """
    colours = np.clip(rgb_from_hed + shift, 0.01, None)
    colours *= np.linalg.norm(rgb_from_hed, axis=1, keepdims=True) / np.linalg.norm(
        colours, axis=1, keepdims=True
    )
    matrix = torch.from_numpy((hed_from_rgb @ np.diag(gains) @ colours).astype(np.float32))
    density = -image.clamp_min(1e-3).log()
    changed = torch.einsum("chw,cd->dhw", density, matrix)
    return (-changed).exp()
