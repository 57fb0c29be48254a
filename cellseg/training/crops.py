"""Annotated images in memory, and square crops of them at a chosen scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cellseg.normalise import Light


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image with its objects, each mask kept inside its own box.

    Attributes
    ----------
    pixels : ndarray, uint8 or uint16, (H, W, C)
        Raw intensities, one or three channels.
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
    """

    name: str
    pixels: NDArray[np.generic]
    boxes: NDArray[np.int32]
    masks: list[NDArray[np.bool_]]
    classes: NDArray[np.int64]
    light: Light
    mpp: float | None
    group: str

    @property
    def median_diameter_px(self) -> float:
        """Median equivalent diameter of the objects, pixels; 20 where there are none."""
        if not self.masks:
            return 20.0
        areas = [float(mask.sum()) for mask in self.masks]
        return float(2 * np.sqrt(np.median(areas) / np.pi))


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


def cut(
    image: AnnotatedImage,
    normalised: NDArray[np.float32],
    *,
    origin: tuple[int, int],
    side: int,
    size: int,
    min_area_px: int = 12,
) -> Crop:
    """Cut a square of ``side`` source pixels and resample it to ``size`` pixels.

    Parameters
    ----------
    image : AnnotatedImage
    normalised : ndarray, float32, (H, W, 3)
        The same image after :class:`~cellseg.normalise.Normaliser`.
    origin : (int, int)
        (y, x) of the square's corner; it may lie outside the image, which is padded with
        its edge's background (0 in fluorescence, 1 in transmitted light).
    side, size : int
        Source and target size, pixels.
    min_area_px : int
        Objects left with fewer pixels in the crop are not annotated.
    """
    y, x = origin
    height, width = normalised.shape[:2]
    fill = 0.0 if image.light == "fluorescence" else 1.0
    window = np.full((side, side, 3), fill, dtype=np.float32)
    ya, xa, yb, xb = max(y, 0), max(x, 0), min(y + side, height), min(x + side, width)
    window[ya - y : yb - y, xa - x : xb - x] = normalised[ya:yb, xa:xb]
    pixels = _resize(torch.from_numpy(window).permute(2, 0, 1)[None], size)[0]
    inside = np.where(
        (image.boxes[:, 0] < y + side)
        & (image.boxes[:, 2] > y)
        & (image.boxes[:, 1] < x + side)
        & (image.boxes[:, 3] > x)
    )[0]
    stack = np.zeros((len(inside), side, side), dtype=np.float32)
    for row, index in enumerate(inside):
        y0, x0, y1, x1 = image.boxes[index]
        ya, xa, yb, xb = max(y0, y), max(x0, x), min(y1, y + side), min(x1, x + side)
        stack[row, ya - y : yb - y, xa - x : xb - x] = image.masks[index][
            ya - y0 : yb - y0, xa - x0 : xb - x0
        ]
    masks = _resize(torch.from_numpy(stack)[:, None], size)[:, 0] >= 0.5
    keep = torch.where(masks.flatten(1).sum(1) >= min_area_px)[0]
    masks = masks[keep]
    labels = torch.from_numpy(image.classes[inside])[keep] + 1
    return Crop(pixels.clamp(0, 1), boxes_of(masks), masks.to(torch.uint8), labels)


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


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size or images.shape[0] == 0:
        return images if images.shape[-1] == size else images.new_zeros((0, 1, size, size))
    return F.interpolate(
        images, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
