"""Annotated images in memory, and windows of them at a chosen scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cellseg.geometry import Box
from cellseg.normalise import Light, Normaliser

MIN_AREA_PX = 12
"""What is left of an object in a crop is annotated from this area on."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image with its objects, each mask kept inside its own box.

    Attributes
    ----------
    pixels : ndarray, (H, W, C)
        Raw intensities as read, one or three channels.
    boxes : ndarray, int32, (N, 4)
        (y0, x0, y1, x1), half-open, pixels.
    masks : list of ndarray, bool
        Each of its box's shape.
    classes : ndarray, int64, (N,)
        From 0.
    light : {'transmitted', 'fluorescence'}
    mpp : float or None
        µm per pixel.
    group : str
        The set that the image came from and its modality; sampling is balanced between groups.
    zoom : float
        Pixels of the network per pixel of the image, each way.
    path : Path or None
        Where the image was read from.
    """

    name: str
    pixels: NDArray[np.generic]
    boxes: NDArray[np.int32]
    masks: list[NDArray[np.bool_]]
    classes: NDArray[np.int64]
    light: Light
    mpp: float | None
    group: str
    zoom: float = 1.0
    path: Path | None = None

    def changed(
        self,
        *,
        classes: NDArray[np.int64] | None = None,
        mpp: float | None = None,
        zoom: float | None = None,
    ) -> AnnotatedImage:
        """A copy with other classes, pixel size or zoom; arrays are shared."""
        return replace(
            self,
            classes=self.classes if classes is None else classes,
            mpp=self.mpp if mpp is None else mpp,
            zoom=self.zoom if zoom is None else zoom,
        )

    @cached_property
    def normaliser(self) -> Normaliser:
        """The scale of the whole image, as in counting; fitted once."""
        return Normaliser.fit(self.pixels, self.light)

    @cached_property
    def median_diameter_px(self) -> float:
        """Median equivalent diameter of the objects, pixels; 20 where there are none."""
        if not self.masks:
            return 20.0
        areas = [float(mask.sum()) for mask in self.masks]
        return float(2 * np.sqrt(np.median(areas) / np.pi))

    @property
    def background(self) -> float:
        """What lies beyond the image's edge, normalised: 0 in fluorescence, 1 otherwise."""
        return 0.0 if self.light == "fluorescence" else 1.0


@dataclass(frozen=True, eq=False)
class Crop:
    """A square crop, ready for the network.

    Attributes
    ----------
    image : Tensor, float32, (3, S, S)
        In 0 … 1.
    boxes : Tensor, float32, (N, 4)
        torchvision's (x1, y1, x2, y2).
    masks : Tensor, uint8, (N, S, S)
    labels : Tensor, int64, (N,)
        From 1; 0 is torchvision's background.
    """

    image: Tensor
    boxes: Tensor
    masks: Tensor
    labels: Tensor

    def target(self) -> dict[str, Tensor]:
        """As torchvision's detection models want it."""
        return {"boxes": self.boxes, "masks": self.masks, "labels": self.labels}

    def to(self, device: torch.device) -> Crop:
        """The same crop on a device."""
        return Crop(
            self.image.to(device, non_blocking=True),
            self.boxes.to(device, non_blocking=True),
            self.masks.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
        )


def cut(
    image: AnnotatedImage,
    *,
    origin: tuple[int, int],
    side: int,
    size: int,
    min_area_px: int = MIN_AREA_PX,
) -> Crop:
    """Cut a square of ``side`` source pixels and resample it to ``size`` pixels.

    Parameters
    ----------
    image : AnnotatedImage
    origin : (int, int)
        (y, x) of the square's corner; it may lie outside the image, which is padded with
        its background (0 in fluorescence, 1 in transmitted light).
    side, size : int
        Source and target size, pixels.
    min_area_px : int
        Objects left with fewer pixels in the crop are not annotated.
    """
    y, x = origin
    window = Box(y, x, y + side, x + side)
    pixels = cut_pixels(image, window, (size, size))
    objects = [
        item
        for item in cut_objects(image, window, (size, size))
        if np.count_nonzero(item[1]) >= min_area_px
    ]
    masks = torch.zeros((len(objects), size, size), dtype=torch.uint8)
    for row, (box, mask, _) in enumerate(objects):
        masks[row, box.y0 : box.y1, box.x0 : box.x1] = torch.from_numpy(mask.astype(np.uint8))
    boxes = [(box.x0, box.y0, box.x1, box.y1) for box, _, _ in objects]
    labels = [label + 1 for _, _, label in objects]
    return Crop(
        pixels,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        masks,
        torch.tensor(labels, dtype=torch.int64),
    )


def cut_pixels(image: AnnotatedImage, window: Box, size: tuple[int, int]) -> Tensor:
    """Normalised pixels of a window, float32 (3, H, W), resampled to ``size``."""
    height, width = image.pixels.shape[:2]
    part = window.intersection(Box(0, 0, height, width))
    values = np.full((window.height, window.width, 3), image.background, dtype=np.float32)
    if part.area:
        values[
            part.y0 - window.y0 : part.y1 - window.y0, part.x0 - window.x0 : part.x1 - window.x0
        ] = image.normaliser.apply(image.pixels[part.y0 : part.y1, part.x0 : part.x1])
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return pixels[0].clamp(0, 1).contiguous()


def cut_objects(
    image: AnnotatedImage, window: Box, size: tuple[int, int]
) -> list[tuple[Box, NDArray[np.bool_], int]]:
    """Objects that reach into a window, on the lattice of ``size`` pixels that it is resampled to.

    Returns
    -------
    list of (Box, ndarray of bool, int)
        Tight box, mask in it, class. A pixel is set where the mask covers half of its area.
    """
    boxes = image.boxes
    touching = (
        (boxes[:, 0] < window.y1)
        & (boxes[:, 2] > window.y0)
        & (boxes[:, 1] < window.x1)
        & (boxes[:, 3] > window.x0)
    )
    found = []
    for index in np.flatnonzero(touching).tolist():
        y0, x0, y1, x1 = (int(v) for v in boxes[index])
        rows, top = _cover(y0, y1, window.y0, window.height, size[0])
        columns, left = _cover(x0, x1, window.x0, window.width, size[1])
        mask = (rows @ image.masks[index].astype(np.float32) @ columns.T) >= 0.5 - 1e-6
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(ys):
            a, b, c, d = int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1
            tight = np.ascontiguousarray(mask[a:c, b:d])
            box = Box(top + a, left + b, top + c, left + d)
            found.append((box, tight, int(image.classes[index])))
    return found


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes (x1, y1, x2, y2), float32, half-open, of masks (N, H, W)."""
    if len(masks) == 0:
        return torch.zeros((0, 4), dtype=torch.float32)
    rows, columns = masks.any(2), masks.any(1)
    height, width = rows.shape[1], columns.shape[1]
    y1 = rows.to(torch.uint8).argmax(1)
    x1 = columns.to(torch.uint8).argmax(1)
    y2 = height - rows.flip(1).to(torch.uint8).argmax(1)
    x2 = width - columns.flip(1).to(torch.uint8).argmax(1)
    return torch.stack([x1, y1, x2, y2], 1).to(torch.float32)


def _cover(
    low: int, high: int, origin: int, length: int, size: int
) -> tuple[NDArray[np.float32], int]:
    """Share of each target pixel that each source pixel low … high - 1 covers, one axis.

    Target pixel ``i`` of ``size`` spans origin + [i, i + 1) · length / size. Returns the
    matrix (targets, high - low) for the targets that are touched, and the first of them.
    """
    step = length / size
    first = max(0, int(np.floor((low - origin) / step)))
    last = min(size, int(np.ceil((high - origin) / step)))
    start = origin + np.arange(first, max(last, first))[:, None] * step
    source = np.arange(low, high)[None, :]
    overlap = np.minimum(start + step, source + 1) - np.maximum(start, source)
    return (np.clip(overlap, 0, None) / step).astype(np.float32), first
