"""Cell types: a small classifier of found nuclei, on features that the network has anyway."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from cellseg.network.architecture import TYPE_BINS, TYPE_LEVELS
from cellseg.network.pooling import mean_samples

HIDDEN = 64


class TypeHead(nn.Module):
    """Logits of the types, from each box's mean features.

    The box head's own features tell nucleus from background and little else: with them the mean
    F1 of three types was 0.13 lower. ``channels`` are the pyramid's.
    """

    def __init__(self, channels: int, types: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(TYPE_LEVELS * channels, HIDDEN)
        self.logits = nn.Linear(HIDDEN, types)

    def forward(self, levels: list[Tensor], boxes: Tensor) -> Tensor:
        """Probabilities of the types, (D, T), float32, of boxes (D, 4), pixels of the input.

        ``levels`` are the pyramid's finest feature maps of one image, each (1, C, H, W).
        """
        parts = [mean_samples(level, boxes, 4 << k, TYPE_BINS) for k, level in enumerate(levels)]
        seen = torch.cat(parts, 1).to(self.hidden.weight.dtype)
        return cast(Tensor, self.logits(self.hidden(seen).relu())).float().softmax(1)
