"""The slide on the intensity scale of its run: what outlines are drawn on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box
from cellseg.slide import Slide
from cellseg.stain.normalise import Normaliser


@dataclass(frozen=True, eq=False, kw_only=True)
class Ground:
    """The open slide under the outlines, with the channels and the intensity scale of the run.

    ``title`` stands above pictures.
    """

    slide: Slide
    channels: tuple[int, ...]
    normaliser: Normaliser
    title: str = ""

    @property
    def is_dark(self) -> bool:
        """Whether the background is dark, as in fluorescence."""
        return self.normaliser.light == "fluorescence"

    def read(self, box: Box, pixel: float) -> NDArray[np.uint8]:
        """RGB, (H, W, 3), of a box on the lattice of ``pixel`` level-0 px a pixel."""
        raw = self.slide.read(box, downsample=pixel, channels=self.channels)
        return np.round(self.normaliser.apply(raw) * 255).astype(np.uint8)

    def overview(self) -> tuple[NDArray[np.uint8], float]:
        """The whole slide, small: RGB, (H, W, 3), and level-0 pixels along a side of its pixels.

        It has an intensity scale of its own.
        """
        pixels, downsample = self.slide.overview()
        pixels = pixels[..., list(self.channels)]
        seen = Normaliser.fit(pixels, self.normaliser.light).apply(pixels)
        return np.round(seen * 255).astype(np.uint8), downsample
