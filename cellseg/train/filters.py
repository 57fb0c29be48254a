"""Changes of a crop's pixels: focus, resolution, JPEG, noise and stains."""

from __future__ import annotations

import numpy as np
import torch
from imagecodecs import jpeg8_decode, jpeg8_encode
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional as F


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
    return (-mixed(density_of(image), hed_from_rgb @ np.diag(gains) @ colours)).exp()


def density_of(image: Tensor) -> Tensor:
    """Optical density (natural logarithm) of an image of 0 … 1."""
    return -image.clamp_min(1e-3).log()


def mixed(density: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Densities (C, H, W) times a matrix (C, D)."""
    return torch.einsum("chw,cd->dhw", density, torch.from_numpy(matrix.astype(np.float32)))
