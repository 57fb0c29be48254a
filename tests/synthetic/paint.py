"""Painting nuclei: profile and chromatin, each nucleus inside its own box."""

from dataclasses import dataclass

import numpy as np

from synthetic.noise import smooth_noise

_BANK_PX = 512


@dataclass(frozen=True)
class Chromatin:
    """How a nucleus looks inside."""

    fine: float = 0.07
    coarse: float = 0.10
    grain_px: float = 1.2
    nucleoli: int = 4
    flatness: int = 6
    """Exponent of the profile: 2 is a ball, 8 nearly a plateau."""


class NucleusPainter:
    """Adds nuclei to an image."""

    def __init__(self, rng, chromatin):
        self._rng = rng
        self._chromatin = chromatin
        side = (_BANK_PX, _BANK_PX)
        self._bank = chromatin.fine * smooth_noise(
            rng, side, chromatin.grain_px
        ) + chromatin.coarse * smooth_noise(rng, side, 4 * chromatin.grain_px)

    def add(self, image, outlines, weights):
        """Add every outline to ``image`` (H, W) with its weight, in place."""
        for outline, weight in zip(outlines, weights, strict=True):
            image[outline.box()] += np.float32(weight) * self._one(outline)

    def _one(self, outline):
        """A nucleus of brightness about 1, of the shape of its box."""
        depth = outline.depth()
        height, width = depth.shape
        y, x = self._rng.integers(0, _BANK_PX - max(height, width), size=2)
        grain = 1.0 + self._bank[y : y + height, x : x + width]
        for _ in range(self._rng.integers(0, self._chromatin.nucleoli + 1)):
            grain = grain * self._nucleolus(outline, depth.shape)
        inside = np.clip(1.0 - depth**self._chromatin.flatness, 0.0, 1.0)
        return np.asarray(np.sqrt(inside) * np.clip(grain, 0.1, None), dtype=np.float32)

    def _nucleolus(self, outline, shape):
        """A factor that dims a small round spot somewhere in the inner part."""
        reach, rng = outline.reach_px, self._rng
        typical = float(np.median(outline.radius))
        turn, out = rng.uniform(0, 2 * np.pi), typical * 0.6 * np.sqrt(rng.random())
        dy = np.arange(shape[0])[:, None] - reach - out * np.sin(turn)
        dx = np.arange(shape[1])[None, :] - reach - out * np.cos(turn)
        size = typical * rng.uniform(0.10, 0.18)
        dip = rng.uniform(0.15, 0.45) * np.exp(-(dy**2 + dx**2) / (2 * size**2))
        return np.asarray(1.0 - dip, dtype=np.float32)
