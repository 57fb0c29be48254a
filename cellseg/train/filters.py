"""Filters of a crop's pixels: blur, a coarser look, JPEG, and the colours of another slide."""

from __future__ import annotations

import numpy as np
import torch
from imagecodecs import jpeg8_decode, jpeg8_encode
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage

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
    density = -image.clamp_min(1e-3).log()
    changed = torch.einsum("chw,dc->dhw", density, torch.from_numpy(matrix.astype(np.float32)))
    return (-changed.clamp_min(0)).exp()


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.clip(values, 1e-12, None)) @ vectors.T)
