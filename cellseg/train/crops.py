"""Windows of annotated images at a chosen scale, ready for the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.annotations.masks import Outline
from cellseg.geometry import STRIDE_PX, Box, box_of

WINDOW_PX = 512

MIN_AREA_PX = 12
"""What is left of an object in a crop is annotated from this area on."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A square crop, ready for the network."""

    image: Tensor  # float32, (3, S, S), in 0 … 1.
    boxes: Tensor  # float32, (N, 4): torchvision's (x1, y1, x2, y2).
    masks: Tensor  # uint8, (N, S, S).
    labels: Tensor  # int64, (N,), from 1; 0 is torchvision's background.
    outlined: Tensor  # bool, (N,). False: the mask is the filled box; no outline is learned.
    ignored: Tensor  # uint8, (S, S): set where nothing is known.

    @classmethod
    def of(cls, image: Tensor, masks: Tensor, labels: Tensor) -> Crop:
        """A crop of which everything is known."""
        return cls(
            image,
            boxes_of(masks),
            masks,
            labels,
            torch.ones(len(masks), dtype=torch.bool),
            torch.zeros(image.shape[1:], dtype=torch.uint8),
        )

    def target(self) -> dict[str, Tensor]:
        """As torchvision's detection models want it, and what they do not know."""
        return {name: part for name, part in vars(self).items() if name != "image"}

    @property
    def unknown(self) -> Tensor:
        """Pixels, uint8 (S, S), of which it is not known whether they are an object's."""
        boxes = self.masks[~self.outlined]
        return torch.cat([self.ignored[None], boxes]).amax(0)

    def to(self, device: torch.device) -> Crop:
        return Crop(*(part.to(device, non_blocking=True) for part in vars(self).values()))


def cut(
    image: AnnotatedImage, *, origin: tuple[int, int], sides: tuple[int, int], size: int
) -> Crop:
    """Cut a window of ``sides`` source pixels and resample it to a square of ``size`` pixels.

    ``origin`` is (y, x) of its corner; it may lie outside the image, which is padded with its
    background (0 in fluorescence, 1 in transmitted light).
    """
    y, x = origin
    window = Box(y, x, y + sides[0], x + sides[1])
    pixels = cut_pixels(image, window, (size, size))
    outlined = np.ones(len(image.masks), bool) if image.outlined is None else image.outlined
    seen_objects = cut_objects(image, window, (size, size))
    objects = [one for one in seen_objects if np.count_nonzero(one[1][1]) >= MIN_AREA_PX]
    masks = torch.zeros((len(objects), size, size), dtype=torch.uint8)
    for row, (_, (box, mask)) in enumerate(objects):
        masks[row][box.pixels] = torch.from_numpy(mask.astype(np.uint8))
    ignored = torch.zeros((size, size), dtype=torch.uint8)
    for region, inside in image.ignored:
        seen = resampled(region, inside, window, (size, size))
        if seen is not None:
            box, part = seen
            ignored[box.pixels] |= torch.from_numpy(part.astype(np.uint8))
    indices = [number for number, _ in objects]
    return Crop(
        pixels,
        boxes_of(masks),
        masks,
        torch.from_numpy(image.classes[indices] + 1),
        torch.from_numpy(outlined[indices]),
        ignored,
    )


def cut_pixels(image: AnnotatedImage, window: Box, size: tuple[int, int]) -> Tensor:
    """Normalised pixels of a window, float32 (3, H, W), resampled to ``size``."""
    height, width = image.pixels.shape[:2]
    part = window.intersection(Box(0, 0, height, width))
    values = np.full((window.height, window.width, 3), image.background, dtype=np.float32)
    if part.area:
        values[part.inside(window)] = image.normaliser.apply(image.pixels[part.pixels])
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return pixels[0].clamp(0, 1).contiguous()


def some_windows(images: Sequence[AnnotatedImage]) -> Iterator[Tensor]:
    """Corners of twenty images at the network's scale, (3, H, W), sides multiples of 32."""
    for place in np.unique(np.linspace(0, len(images) - 1, 20).astype(int)).tolist():
        image = images[place]
        sides = [min(WINDOW_PX, int(side * image.zoom)) for side in image.pixels.shape[:2]]
        height, width = (max(STRIDE_PX, side // STRIDE_PX * STRIDE_PX) for side in sides)
        window = Box(0, 0, max(1, round(height / image.zoom)), max(1, round(width / image.zoom)))
        yield cut_pixels(image, window, (height, width))


def cut_objects(
    image: AnnotatedImage, window: Box, size: tuple[int, int]
) -> list[tuple[int, Outline]]:
    """Objects that reach into a window, on the lattice of ``size`` pixels that it is resampled to.

    Each with its number in the image. A pixel is set where the mask covers half of its area.
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
        box = Box(*(int(v) for v in boxes[index]))
        if (seen := resampled(box, image.masks[index], window, size)) is not None:
            found.append((index, seen))
    return found


def resampled(
    box: Box, mask: NDArray[np.bool_], window: Box, size: tuple[int, int]
) -> Outline | None:
    """A mask on a window's lattice, in its tight box; None where nothing is left of it."""
    rows, top = _cover(box.y0, box.y1, window.y0, window.height, size[0])
    columns, left = _cover(box.x0, box.x1, window.x0, window.width, size[1])
    seen = (rows @ mask.astype(np.float32) @ columns.T) >= 0.5 - 1e-6
    if (tight := box_of(seen)) is None:
        return None
    return tight.shifted(top, left), np.ascontiguousarray(seen[tight.pixels])


def turned(pixels: Tensor, turns: int, *, flip: bool) -> Tensor:
    """Pixels (…, S, S) turned by right angles, then mirrored."""
    pixels = pixels.rot90(turns, (-2, -1))
    return (pixels.flip(-1) if flip else pixels).contiguous()


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes (x1, y1, x2, y2), float32, half-open, of masks (N, H, W), uint8.

    As torchvision's ``masks_to_boxes``, which takes ten times as long.
    """
    ends = []
    for axis in (1, 2):
        seen = masks.amax(axis)
        ends.append((seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)))
    (x0, x1), (y0, y1) = ends
    return torch.stack([x0, y0, x1, y1], 1).float()


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
