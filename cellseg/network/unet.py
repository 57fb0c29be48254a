"""A small U-Net in numpy: one logit per pixel of an overview.

It is so small that torch, whose import takes a second, would not pay. ``tools/tissue_training``
holds the same network in torch, which teaches it.

Source: Ronneberger et al., U-Net, MICCAI 2015, https://arxiv.org/abs/1505.04597; here with
padded convolutions, batch normalisation and far fewer channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EPS = 1e-5
"""Of torch's batch normalisation."""


class UNet:
    """Encoder and decoder with skip connections; each level halves the resolution.

    Arrays go by the names that the torch module gives them.

    KeyError, ValueError if an array is missing or has another shape.
    """

    def __init__(self, arrays: Mapping[str, Floats], levels: int) -> None:
        self._down = [_block(arrays, f"down.{level}") for level in range(levels)]
        self._up = [_block(arrays, f"up.{level}") for level in range(levels - 1)]
        head = arrays["head.weight"]
        self._head, self._bias = head.reshape(-1), float(arrays["head.bias"].item())
        self.channels = self._down[0][0][0].shape[2]

    @property
    def stride(self) -> int:
        """The sides of an input must be multiples of this."""
        return 1 << len(self._up)

    @property
    def reach(self) -> int:
        """Input pixels on each side that can change an output pixel (an upper bound)."""
        steps = [1 << level for level in range(len(self._down))]
        return 2 * sum(steps) + 4 * sum(steps[:-1])

    def __call__(self, image: Floats) -> Floats:
        """Logits (H, W) of an image (H, W, C), H and W multiples of :attr:`stride`."""
        x, skips = image, []
        for level, block in enumerate(self._down):
            if level:
                h, w, channels = x.shape
                x = x.reshape(h // 2, 2, w // 2, 2, channels).max((1, 3))
            x = _through(x, block)
            skips.append(x)
        for block, skip in zip(reversed(self._up), reversed(skips[:-1]), strict=True):
            wide = x.repeat(2, 0).repeat(2, 1)
            x = _through(np.concatenate([wide, skip], 2), block)
        return np.asarray(x @ self._head + self._bias)


_Layer = tuple[Floats, Floats]
"""A kernel, (3, 3, inputs, outputs), and a summand for each output."""


def _block(arrays: Mapping[str, Floats], name: str) -> list[_Layer]:
    """Two convolutions, each with its batch norm folded in."""
    layers = []
    for place in (0, 3):
        norm = f"{name}.{place + 1}"
        factor = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + EPS)
        kernel = arrays[f"{name}.{place}.weight"].transpose(2, 3, 1, 0) * factor
        if kernel.shape[:2] != (3, 3):
            raise ValueError(f"{name}.{place}.weight has another shape")
        summand = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * factor
        layers.append((np.ascontiguousarray(kernel, np.float32), summand.astype(np.float32)))
    return layers


def _through(x: Floats, block: list[_Layer]) -> Floats:
    """An image (H, W, C) after two convolutions, zeros beyond its edge."""
    height, width = x.shape[:2]
    for kernel, summand in block:
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        x = np.broadcast_to(summand, (height, width, len(summand))).copy()
        for dy, row in enumerate(kernel):
            for dx, weights in enumerate(row):
                x += padded[dy : dy + height, dx : dx + width] @ weights
        np.maximum(x, 0, out=x)
    return x
