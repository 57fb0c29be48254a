"""Changes of a crop's pixels: focus, resolution, JPEG, noise, stains and light."""

from __future__ import annotations

import numpy as np
import torch
from imagecodecs import jpeg8_decode, jpeg8_encode
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.stain.normalise import Light

STAINED = 0.05
"""Mean optical density (natural logarithm) from which a pixel is of tissue and not of glass."""


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

    Parameters
    ----------
    gains : ndarray, (3,)
        Factors of the stains' optical densities.
    shift : ndarray, (3, 3)
        Added to the stains' colour vectors, which keep their length.
    """
    colours = np.clip(rgb_from_hed + shift, 0.01, None)
    colours *= np.linalg.norm(rgb_from_hed, axis=1, keepdims=True) / np.linalg.norm(
        colours, axis=1, keepdims=True
    )
    return (-_mixed(density_of(image), hed_from_rgb @ np.diag(gains) @ colours)).exp()


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
    return (-_mixed(density_of(image), matrix).clamp_min(0)).exp()


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
    blue, pink, brown = _mixed(density_of(image), hed_from_rgb).clamp_min(0)
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
    return (-_mixed(torch.stack([blue, pink, label]), rgb_from_hed)).exp().clamp(0, 1)


def inverted(image: Tensor, light: Light, rng: np.random.Generator) -> tuple[Tensor, Light]:
    """An image with its light turned round, so that darkness is not what makes an object.

    Fluorescence becomes an absorbing dye of a random colour on a white ground; transmitted
    light becomes the brightness of its nuclear stain on black: haematoxylin or DAB, whichever
    is stronger.
    """
    if light == "fluorescence":
        depth = torch.from_numpy(rng.uniform(0.2, 1.6, (3, 1, 1)).astype(np.float32))
        return float(rng.uniform(0.85, 1.0)) * (-depth * image).exp(), "transmitted"
    blue, _, brown = _mixed(density_of(image), hed_from_rgb)
    dye = torch.maximum(blue, brown).clamp_min(0)
    dye = dye / dye.quantile(0.998).clamp_min(0.05)
    return dye.clamp(0, 1).expand_as(image).contiguous(), "fluorescence"


def density_of(image: Tensor) -> Tensor:
    """Optical density (natural logarithm) of an image of 0 … 1."""
    return -image.clamp_min(1e-3).log()


def _mixed(density: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Densities (C, H, W) times a matrix (C, D)."""
    return torch.einsum("chw,cd->dhw", density, torch.from_numpy(matrix.astype(np.float32)))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square root of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.clip(values, 1e-12, None)) @ vectors.T)
