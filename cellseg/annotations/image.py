"""An annotated image in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.masks import Outline
from cellseg.stain.normalise import Light, Normaliser


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image with its objects, each mask kept inside its own box.

    ``group`` is the set that the image came from and its modality; sampling is balanced between
    groups. Where ``outlined``, (N,), is False only the box is known, and the mask fills it; without
    it all objects are outlined. What is found in ``ignored`` regions is neither right nor wrong.
    """

    name: str
    pixels: NDArray[np.generic]  # (H, W, C): raw intensities as read, one or three channels.
    boxes: NDArray[np.int32]  # (N, 4): (y0, x0, y1, x1), half-open, pixels.
    masks: list[NDArray[np.bool_]]  # Each of its box's shape.
    classes: NDArray[np.int64]  # (N,): from 0.
    light: Light
    mpp: float | None  # µm per pixel.
    group: str
    zoom: float = 1.0  # Pixels of the network per pixel of the image, each way.
    path: Path | None = None  # Where the image was read from.
    outlined: NDArray[np.bool_] | None = None
    ignored: tuple[Outline, ...] = ()
    scale: Normaliser | None = None  # Of the slide that it is a window of; else fitted to itself.

    @cached_property
    def normaliser(self) -> Normaliser:
        """The scale of the whole image, as in counting; fitted once."""
        return self.scale or Normaliser.fit(self.pixels, self.light)

    @property
    def outlines(self) -> list[NDArray[np.bool_]]:
        """The masks of objects that have an outline."""
        if self.outlined is None:
            return self.masks
        return [mask for mask, known in zip(self.masks, self.outlined, strict=True) if known]

    @property
    def known_in_part(self) -> bool:
        """Whether it has regions to ignore or boxes alone: to learn from, not to judge by."""
        return bool(self.ignored) or len(self.outlines) < len(self.masks)

    @cached_property
    def median_diameter_px(self) -> float:
        """Median equivalent diameter of the objects, pixels; 20 where there are none."""
        areas = [float(mask.sum()) for mask in self.outlines]
        if not areas:
            return 20.0
        return float(2 * np.sqrt(np.median(areas) / np.pi))

    @property
    def background(self) -> float:
        """What lies beyond the image's edge, normalised: 0 in fluorescence, 1 otherwise."""
        return self.normaliser.background
