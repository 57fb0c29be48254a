"""Shape of the Mask R-CNN and its fixed settings: all that an engine must know, without torch.

Names of arrays are those of torchvision's ``maskrcnn_resnet50_fpn``. EfficientNet-Lite0: Tan and
Le, ICML 2019, https://arxiv.org/abs/1905.11946, without squeeze and excitation and with ReLU6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANCHOR_SIZES_PX = (8, 16, 32, 64, 128)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
PROPOSAL_SCORE = 0.3
"""Objectness below which a proposal is not looked at again: most of a tile is background. At 0.05
crowded fields had more than twice as many proposals, and two cells in a thousand more."""

PROPOSAL_NMS = 0.5
"""Overlap at which one proposal suppresses another when counting. torchvision's 0.7 is made for
objects that hide one another; nuclei do not, and a third of its proposals said the same twice."""

FINE_FROM_PX = 48.0
"""Boxes with a side of so many pixels get a second look at twice the mask's resolution."""

DOUBT = (0.15, 0.85)
"""Mask probabilities between which the second look has a say: the border."""

LEVEL_AT_224_PX, FINEST = 4, 2
"""Lin et al., CVPR 2017, equation 1: the level of a box of 224 px, stride 16, and the first one."""

TYPE_LEVELS, TYPE_BINS = 3, 3
"""Cell types are told from the mean of so many bins each way, two samples a side, in the finest
levels of the pyramid: the nucleus itself, and the tissue around it."""

TYPE_LIKENESS = 16
"""Numbers for how a nucleus and its surroundings look: principal components of the same features
over the fields that types were learned from. Where their mean over a field is longer than 1, the
field is unlike those."""

TYPE_FIELD_PX, TYPE_FIELD_LEAST = 768, 20
"""Side of such a field, about that of the annotated ones, and the fewest nuclei that tell it."""

BODY = "backbone.body."
TYPE_KEYS = "roi_heads.type_head."
QUALITY_KEYS = "roi_heads.quality_head."

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
    """Channels at strides 4, 8, 16 and 32; mean and deviation of red, green and blue in 0 … 1.

    ``first`` is an array that no other backbone has, by which a file's network is known.
    """

    channels: tuple[int, int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    first: str


BACKBONES = {
    "resnet50": Backbone(
        channels=(256, 512, 1024, 2048),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        first="conv1.weight",
    ),
    "efficientnet_lite0": Backbone(
        channels=(24, 40, 112, 320),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        first="stem.1.0.weight",
    ),
}
"""Every backbone by the name that stands in a model's card."""

DRAWN_BACKBONE = "efficientnet_lite0"
"""The one that is drawn for OpenVINO."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many boxes pass each stage of the network for one image."""

    pre_nms: int
    proposals: int
    detections: int

    @classmethod
    def for_area(cls, area_px: int) -> Limits:
        """Limits for a tile of so many pixels: one proposal and one detection per 100 px.

        A nucleus of 12 px diameter covers 113 px. Usual tissue has a nucleus per 1,000 px and
        more, and so ten proposals behind each.
        """
        detections = max(100, area_px // 100)
        return cls(
            pre_nms=max(2000, 4 * detections),
            proposals=max(1000, detections),
            detections=detections,
        )


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Which network: as torchvision's where nothing is said."""

    backbone: str = "resnet50"  # Of BACKBONES.
    pyramid: int = 256  # Channels of the feature pyramid, and so of the region proposals.
    mask: int = 256  # Channels of the mask branch, whose arithmetic grows with their square.
    box: int = 1024  # Of the box head's two layers.
    types: int = 0  # Cell types that found nuclei are sorted into; 0: none.
    quality: int = 0  # Channels of the head that tells how well a mask fits; 0: none.

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"no backbone {self.backbone!r}; known: {', '.join(BACKBONES)}")

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Architecture:
        """Of the network that has these arrays; torchvision's where they tell nothing."""
        usual = cls()

        def width(array: str, axes: int, otherwise: int) -> int:
            shape: Sequence[int] = arrays[array].shape if array in arrays else ()
            return max(1, int(shape[0])) if len(shape) == axes else otherwise

        named = [name for name, entry in BACKBONES.items() if BODY + entry.first in arrays]
        return cls(
            backbone=named[0] if named else usual.backbone,
            pyramid=width("backbone.fpn.layer_blocks.0.0.weight", 4, usual.pyramid),
            mask=width("roi_heads.mask_head.0.0.weight", 4, usual.mask),
            box=width("roi_heads.box_head.fc7.weight", 2, usual.box),
            types=width(f"{TYPE_KEYS}logits.weight", 2, 0),
            quality=width(f"{QUALITY_KEYS}sampled.weight", 4, 0),
        )


SMALL = Architecture(backbone="efficientnet_lite0", pyramid=128, mask=64, box=256)
"""The network of the shipped model, and of a training that starts without one."""
