"""Ranges of layers' inputs, measured on images: what a network in 8 bits needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.network.inference import Wanted
from cellseg.network.maskrcnn import find_in

SAMPLES = 20_000
"""Of an image, at each layer."""

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the largest value seen: one of these ends the range."""

STEPS = 127
SCORE = 0.3


@torch.inference_mode()
def input_ranges(
    model: GeneralizedRCNN, images: Iterable[Tensor]
) -> dict[str, tuple[float, float]]:
    """Between which numbers each convolution's and linear layer's input lies.

    A range is cut where that makes the squared error of 8 bits smaller: few values are large.

    Ranges go by the name of the layer's weights. The model is in evaluation mode, as built, in
    float32; of images, (3, H, W) in 0 … 1 with sides that are multiples of 32, some twenty will do.
    """
    seen: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().flatten().cpu()
            if len(values):
                chosen = torch.randint(len(values), (SAMPLES,), generator=generator)
                ends = torch.stack([values.min(), values.max()])
                seen.setdefault(f"{name}.weight", []).append(torch.cat([values[chosen], ends]))

        return look

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [
        module.register_forward_pre_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, layers)
    ]
    try:
        for image in images:
            find_in(model, image[None].to(device), Wanted(SCORE, types=True))
    finally:
        for one in hooks:
            one.remove()
    return {name: _range(torch.cat(values).double()) for name, values in seen.items()}


def _range(values: Tensor) -> tuple[float, float]:
    largest, low = float(values.abs().max().clamp_min(1e-6)), float(values.min())
    steps = STEPS if low < 0 else 2 * STEPS + 1
    errors = []
    for share in SHARES:
        step = largest * share / steps
        cut = (values / step).round().clamp(-STEPS if low < 0 else 0, steps)
        errors.append(float((cut * step - values).square().mean()))
    end = largest * SHARES[errors.index(min(errors))]
    return (-end if low < 0 else 0.0, end)
