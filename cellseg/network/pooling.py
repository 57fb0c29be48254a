"""RoIAlign of channels-last features on a CPU, several times faster than torchvision's.

torchvision's kernel wants channels first and walks through memory a pixel at a time for each
channel. A sample between four pixels is a weighted sum of four rows of a (pixels, channels) table,
which is what :func:`torch.nn.functional.embedding_bag` is made for. torchvision is imported on
other devices only: it takes longer to load than a small image to count.

Source: He et al., Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870; the arithmetic is that
of ``torchvision.ops.roi_align`` with ``aligned=False`` and one sample a bin.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from cellseg.network.architecture import DOUBT, FINEST, LEVEL_AT_224_PX


def roi_align(levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
    """One sample in the middle of each of ``side`` × ``side`` bins of one image's boxes.

    Parameters
    ----------
    levels : list of Tensor, float32, (1, C, H, W)
        Feature maps at strides 4, 8, 16, 32; a box is sampled in one of them, by its size.
    boxes : Tensor, (B, 4)
        (x1, y1, x2, y2), pixels of the network's input.

    Returns
    -------
    Tensor, float32, (B, C, side, side)
        In channels-last memory.
    """
    result = boxes.new_empty((len(boxes), side * side, levels[0].shape[1]))
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    fitting = (LEVEL_AT_224_PX + torch.log2(size / 224) + 1e-6).floor() - FINEST
    level_of = fitting.clamp(0, len(levels) - 1)
    for index, level in enumerate(levels):
        chosen = torch.where(level_of == index)[0]
        if not len(chosen):
            continue
        found = _samples(level, boxes[chosen] / (4 << index), side)
        if len(chosen) == len(boxes):  # without a copy
            result = found
        else:
            result[chosen] = found
    return result.view(len(boxes), side, side, result.shape[2]).permute(0, 3, 1, 2)


def mean_samples(level: Tensor, boxes: Tensor, stride: int, bins: int) -> Tensor:
    """Means of each box in ``bins`` × ``bins`` bins of two samples a side, (B, C).

    The level's features, (1, C, H, W), are at a stride of the network's input; boxes are in its
    pixels.
    """
    if level.device.type != "cpu":
        from torchvision.ops import roi_align as tv_roi_align

        found = tv_roi_align(level.contiguous(), [boxes], bins, 1 / stride, 2)
        return cast(Tensor, found).mean((2, 3))
    side = 2 * bins
    return _samples(level, boxes / stride, side, side**2)[:, 0] / side**2


def refined(first: Tensor, second: Tensor) -> Tensor:
    """Masks (B, 2 S, 2 S): the mean of two looks where the first, (B, S, S), is in doubt."""
    first = F.interpolate(first[:, None], second.shape[1:], mode="bilinear", align_corners=False)[
        :, 0
    ]
    doubt = (first > DOUBT[0]) & (first < DOUBT[1])
    return torch.where(doubt, (first + second) / 2, first)


def _samples(level: Tensor, boxes: Tensor, side: int, together: int = 1) -> Tensor:
    """One bilinear sample in the middle of each bin of boxes (B, 4) in pixels of the level.

    Sums of so many samples as are taken ``together``: (B, side² / together, C).
    """
    height, width = level.shape[2:]
    # Without a copy where the features are channels-last.
    table = level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])
    x, x_weight = _taps(boxes[:, 0], boxes[:, 2], side, width)
    y, y_weight = _taps(boxes[:, 1], boxes[:, 3], side, height)
    rows = y[:, :, None, :, None] * width + x[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    taps = 4 * together
    found = F.embedding_bag(
        rows.reshape(-1, taps), table, mode="sum", per_sample_weights=weight.reshape(-1, taps)
    )
    return found.view(len(boxes), side * side // together, table.shape[1])


def _taps(low: Tensor, high: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis the two pixels about the middle of each bin, and their weights: (B, side, 2).

    Samples more than a pixel outside have no weight.
    """
    bins = (high - low).clamp(min=1.0) / side
    # In torchvision's order: a sample may lie on the limit.
    at = low[:, None] + bins[:, None] * torch.arange(side) + 0.5 * bins[:, None]
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    first = at.floor()
    share = at - first
    pixels = torch.stack((first, (first + 1).clamp(max=size - 1)), -1).long()
    return pixels, torch.stack((1 - share, share), -1) * inside[..., None]
