"""The tissue network in torch, to be taught: see :mod:`cellseg.network.unet`.

Source: Ronneberger et al., U-Net, MICCAI 2015, https://arxiv.org/abs/1505.04597; here with
padded convolutions, batch normalisation and far fewer channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """Encoder and decoder with skip connections; ``widths`` are the levels' channels, finest first.

    Each level halves the resolution.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (8, 16, 32, 48)) -> None:
        super().__init__()
        self.channels = channels
        self.widths = widths
        self.down = nn.ModuleList(
            _block(before, after)
            for before, after in zip((channels, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            _block(deep + shallow, shallow) for shallow, deep in pairwise(widths)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    @property
    def stride(self) -> int:
        """The sides of an input must be multiples of this."""
        halvings = len(self.widths) - 1
        return 1 << halvings

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, H, W) of images (N, C, H, W), H and W multiples of :attr:`stride`."""
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"expected sides in multiples of {self.stride}, got {height} × {width}"
            )
        x = images
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            wide = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([wide, skips[level]], 1))
        logits: Tensor = self.head(x)[:, 0]
        return logits


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
