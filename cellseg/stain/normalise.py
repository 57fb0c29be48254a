"""Intensities: one scale for a whole slide, the same in training and in counting.

A tile must never be stretched by its own percentiles: the same cell would then look
different to the network in two overlapping tiles. The scale is fitted once on a sample of
the slide (or on a whole training image) and applied everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Light = Literal["transmitted", "fluorescence"]

DARKEST = 1 / 255
"""Transmission below which a pixel is taken as saturated: an optical density of 2.41."""

RGB_FROM_HED = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
"""As ``skimage.color.rgb_from_hed``, whose import takes a tenth of a second."""

HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED)
"""Unmixes densities into hematoxylin, eosin and DAB, (3, 3)."""


@dataclass(frozen=True)
class Normaliser:
    """Maps raw intensities to 0 … 1 by one offset and one gain for every pixel.

    In transmitted light the background is bright (stained or unstained), the offset is 0 and the
    colours' ratio is kept. In fluorescence it is dark, channels are reduced to their maximum and
    the background's level goes to 0.
    """

    low: float  # Raw intensity that becomes 0.
    high: float  # Raw intensity that becomes 1.
    light: Light
    blank: bool = False  # The slide shows nothing beyond noise: nothing is to be counted.
    faint: bool = False  # Fluorescence hardly beyond noise: what is counted may be noise.
    dab: float = 1.0
    """Share of the brown dye's density that is kept: dark DAB hides the nuclei beneath it."""

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"expected low < high, got {self.low} and {self.high}")

    @property
    def background(self) -> float:
        """Normalised background: 0 in fluorescence, 1 otherwise."""
        return 0.0 if self.light == "fluorescence" else 1.0

    @classmethod
    def fit(cls, pixels: ArrayLike, light: Light) -> Normaliser:
        """Fit to a sample of raw intensities (..., C) or (...,); NaN and infinities are left out.

        A sample of a single value (an empty slide) gives a scale under which it stays dark, or
        white in transmitted light.
        """
        values = np.asarray(pixels)
        values = values.astype(_work_type(values.dtype), copy=False)
        if light == "fluorescence" and values.ndim >= 3:
            values = values.max(axis=-1)
        values = values[np.isfinite(values)]
        if values.size == 0:
            return cls(0.0, 1.0, light)
        ends = (0.1, 99.9) if light == "transmitted" else (1.0, 99.8)
        low, high = (float(value) for value in np.percentile(values, ends))
        # Black is 0 in transmitted light but in images of negative numbers.
        low = min(0.0, low) if light == "transmitted" else low
        return cls(low, high if high > low else low + max(1.0, abs(low) * 1e-6), light)

    def apply(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """Normalise one region, (H, W, 1 or 3), to float32 (H, W, 3) of 0 … 1.

        NaN and infinities become background; a single channel is repeated three times.
        """
        if image.ndim != 3 or image.shape[2] not in (1, 3):
            raise ValueError(f"expected (H, W, 1 or 3), got {image.shape}")
        values = np.asarray(image)
        if self.light == "fluorescence" and values.shape[2] > 1:
            values = reduce(np.maximum, np.moveaxis(values, 2, 0))[..., None]
        # In as few passes as there can be: it is done to every pixel that the network sees.
        kind = _work_type(values.dtype)
        scaled = np.subtract(values, kind.type(self.low), dtype=kind, casting="unsafe")
        scaled /= kind.type(self.high - self.low)
        if values.dtype.kind == "f":
            scaled[~np.isfinite(scaled)] = self.background
        scaled = np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)
        if self.dab < 1 and scaled.shape[2] == 3:
            amount = -np.log(np.maximum(scaled, DARKEST)) @ HED_FROM_RGB[:, 2].astype(np.float32)
            brown = (1 - self.dab) * RGB_FROM_HED[2].astype(np.float32)
            scaled = np.minimum(scaled * np.exp(np.maximum(amount, 0)[..., None] * brown), 1)
        return scaled if scaled.shape[2] == 3 else np.repeat(scaled, 3, axis=2)


def _work_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Single precision only where that holds every value."""
    exact = dtype.itemsize <= 2 or dtype == np.float32
    return np.dtype(np.float32 if exact else np.float64)
