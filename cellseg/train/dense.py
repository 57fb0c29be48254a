"""A dense auxiliary task on the finest feature map: foreground, border, distance.

From random weights a two-stage detector learns slowly: its heads get sensible boxes only
once the backbone tells cells from background. A per-pixel task on the finest level of
the pyramid warms up backbone and FPN first, and stays beside the detector's losses at a
small weight. It has no part in the shipped model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cellseg.train.crops import Crop

STRIDE = 4


def dense_head(channels: int) -> nn.Module:
    """(N, C, H/4, W/4) to four logits each: foreground, border, two offsets to the centre."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(64, 4, 1)
    )


def dense_target(masks: Tensor) -> Tensor:
    """Target of one crop from its masks (N, S, S), uint8: float (4, S/4, S/4).

    Foreground share, border share (pixels of a mask within 1 px of another mask or of the
    background), and the offset (y, x) to the object's centre in units of half its box.
    """
    side = masks.shape[-1] // STRIDE
    if len(masks) == 0:
        return torch.zeros((4, side, side), device=masks.device)
    stack = masks.to(torch.float32)
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int16, device=masks.device)
    label = (masks * numbers[:, None, None]).amax(0).to(torch.float32)[None]
    foreground = (label[0] > 0).to(torch.float32)
    # One image of labels: eroding each mask by itself took an eighth of a training step.
    alike = F.max_pool2d(label, 3, 1, 1) == -F.max_pool2d(-label, 3, 1, 1)
    border = foreground * ~alike[0]
    share, owner = F.avg_pool2d(stack[:, None], STRIDE)[:, 0].max(0)
    grid = (torch.arange(side, device=masks.device) + 0.5) * STRIDE
    line = torch.arange(stack.shape[-1], dtype=torch.float32, device=masks.device) + 0.5
    offsets = []
    for profile, positions in ((stack.amax(2), grid[:, None]), (stack.amax(1), grid[None, :])):
        extent = profile.sum(1).clamp_min(1)
        centre = (profile * line).sum(1) / extent
        offsets.append(((positions - centre[owner]) / (extent[owner] / 2)).clamp(-1.5, 1.5))
    maps = F.avg_pool2d(torch.stack([foreground, border])[:, None], STRIDE)[:, 0]
    return torch.cat([maps, torch.stack(offsets) * (share > 0.3)])


def dense_loss(logits: Tensor, crops: list[Crop]) -> Tensor:
    """Cross-entropy and Dice on the two shares, L1 on the offsets inside objects.

    Logits are (N, 4, H, W); places of which nothing is known have no weight.
    """
    target = torch.stack([dense_target(crop.masks) for crop in crops])
    unknown = torch.stack([crop.unknown[None] for crop in crops])
    known = 1 - F.avg_pool2d(unknown.to(torch.float32), STRIDE)
    shares, goal = logits[:, :2], target[:, :2] * known
    entropy = F.binary_cross_entropy_with_logits(shares, goal, known.expand_as(goal))
    probability = shares.sigmoid() * known
    overlap = (probability * goal).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / ((probability**2 + goal**2).sum((0, 2, 3)) + 1)
    inside = (target[:, :1] * known > 0.3).to(logits.dtype)
    offset = F.smooth_l1_loss(logits[:, 2:], target[:, 2:], reduction="none", beta=0.2) * inside
    return entropy + dice.mean() + offset.sum() / (2 * inside.sum() + 1)
