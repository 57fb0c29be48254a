"""A network made ready for counting: norm folded into convolutions, memory order, precision."""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import FrozenBatchNorm2d

from cellseg.network.roi_heads import CellRoIHeads

Precision = Literal["float32", "bfloat16", "float16"]


def best_precision(device: torch.device) -> Precision:
    """Half precision where it is faster: GPUs, and CPUs with hardware for bfloat16.

    Other CPUs emulate bfloat16 and are many times slower with it.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, probe, bool)() for probe in probes):
            return "bfloat16"
    return "float32"


def make_ready(model: GeneralizedRCNN, precision: Precision = "float32") -> GeneralizedRCNN:
    """Fold, reorder and cast a network in evaluation mode, in place.

    Parameters
    ----------
    model : GeneralizedRCNN
        With frozen batch norm.
    precision : {'float32', 'bfloat16', 'float16'}
        Of convolutions and linear layers. Boxes, scores and RoIAlign stay in float32: in
        bfloat16 there are 4 px between two coordinates of 1,000.

    Returns
    -------
    GeneralizedRCNN
        The same object; it cannot be trained or saved any more.
    """
    fold_norms(model.backbone)
    heads = cast(CellRoIHeads, model.roi_heads)
    if next(heads.parameters()).device.type == "cpu":
        heads.put_bins_first()
    for part in (model.backbone, model.rpn.head, heads):
        part.to(dtype=getattr(torch, precision), memory_format=torch.channels_last)
    return model


def fold_norms(module: nn.Module) -> None:
    """Put each frozen batch norm into the convolution before it, in place.

    Works on torchvision's ResNet: ``bnK`` follows ``convK`` in its blocks, and the second of a
    ``downsample`` pair its first.
    """
    children = dict(module.named_children())
    for name, child in children.items():
        if not isinstance(child, FrozenBatchNorm2d):
            fold_norms(child)
            continue
        before = "conv" + name.removeprefix("bn") if name.startswith("bn") else str(int(name) - 1)
        setattr(module, before, _folded(cast(nn.Conv2d, children[before]), child))
        setattr(module, name, nn.Identity())


def _folded(convolution: nn.Conv2d, norm: FrozenBatchNorm2d) -> nn.Conv2d:
    weight, bias, mean, variance = (
        cast(Tensor, getattr(norm, name)).double()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    kernel = convolution.weight.detach()
    fused = fuse_conv_bn_weights(kernel.double(), None, mean, variance, norm.eps, weight, bias)
    new = copy.copy(convolution)
    new._parameters = dict(convolution._parameters)
    new.weight, new.bias = (
        nn.Parameter(part.detach().to(kernel.dtype), requires_grad=False) for part in fused
    )
    return new


def own_settings(model: GeneralizedRCNN) -> GeneralizedRCNN:
    """The same weights with thresholds and limits of its own, for another thread."""
    new = copy.copy(model)
    new._modules = dict(model._modules)
    new.rpn = copy.copy(model.rpn)
    new.roi_heads = copy.copy(model.roi_heads)
    return new
