"""torchvision's Mask R-CNN, set up for cells, over any backbone.

With ``resnet50`` and its usual widths the layers and their names are torchvision's
``maskrcnn_resnet50_fpn``, so that its COCO weights load; what differs is what has no weights:
anchors (one size a level, 8 to 128 px, three ratios), limits on proposals and detections that
follow the tile's area, no resizing of the input, class-agnostic suppression. Anchors and proposals
are float32, whatever the features are.

Source: He et al., Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

import math
from copy import copy
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from cellseg.network.architecture import (
    ANCHOR_SIZES_PX,
    ASPECT_RATIOS,
    BACKBONES,
    PROPOSAL_NMS,
    PROPOSAL_SCORE,
    Architecture,
    Limits,
)
from cellseg.network.backbones import with_pyramid
from cellseg.network.inference import NetworkOutput, Wanted
from cellseg.network.roi_heads import MOSTLY, CellRoIHeads, QualityHead, TypeHead, ignored_share
from cellseg.network.timer import Lap, no_lap

PROPOSALS, BOX_SAMPLES, MASK_SAMPLES = 500, 96, 32
"""Proposals and boxes of an image, and masks of a batch, that carry a loss in training."""


class UnscaledTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's normalisation and batching without its resizing to 800 px."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class ExactAnchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors in float32: in bfloat16 two that differ by less than 4 px around 1,000 are one."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors (A, 4) of each image; only the shapes of the maps are looked at."""
        one = feature_maps[0].new_zeros(1, dtype=torch.float32)
        shapes = [one.expand(level.shape) for level in feature_maps]
        return cast("list[Tensor]", super().forward(image_list, shapes))


class ExactHead(RPNHead):  # type: ignore[misc]
    """Objectness and box shifts in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level, (N, A, H, W) and (N, 4 A, H, W)."""
        scores, shifts = super().forward(x)
        return [score.float() for score in scores], [shift.float() for shift in shifts]


class CellRPN(RegionProposalNetwork):  # type: ignore[misc]
    """Region proposal network that learns nothing from ignored regions.

    When counting, as many proposals pass as :class:`Limits` has for the image's area.
    """

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 object, 0 background, -1 neither) and matched boxes of each image's anchors."""
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, places, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & (ignored_share(places, target) >= MOSTLY)] = -1
        return labels, matched

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes and scores of each image that are worth a second look."""
        chosen = self
        if not self.training:
            # A copy, and of its settings alone: another thread may have tiles of another size.
            chosen, limits = copy(self), Limits.for_area(math.prod(image_shapes[0]))
            chosen.score_thresh, chosen.nms_thresh = PROPOSAL_SCORE, PROPOSAL_NMS
            chosen._pre_nms_top_n = {"testing": limits.pre_nms}
            chosen._post_nms_top_n = {"testing": limits.proposals}
        given = (proposals, objectness, image_shapes, num_anchors_per_level)
        found = RegionProposalNetwork.filter_proposals(chosen, *given)
        return cast("tuple[list[Tensor], list[Tensor]]", found)


def build_maskrcnn(
    num_classes: int,
    *,
    frozen_norm: bool = True,
    architecture: Architecture | None = None,
) -> GeneralizedRCNN:
    """Build the network with random weights, in training mode; torchvision's where none is given.

    Images go in as a list of float (3, H, W) in 0 … 1. Classes are those of cells, without the
    background. The norm is ``FrozenBatchNorm2d`` (right with COCO weights and for counting) or a
    trainable ``BatchNorm2d`` (right from scratch). Both hold the same four arrays a layer.
    """
    wanted = architecture or Architecture()
    norm: type[nn.Module] = FrozenBatchNorm2d if frozen_norm else nn.BatchNorm2d
    levels, channels = ["0", "1", "2", "3"], wanted.pyramid
    anchors = ExactAnchors(
        tuple((size,) for size in ANCHOR_SIZES_PX), (ASPECT_RATIOS,) * len(ANCHOR_SIZES_PX)
    )
    # The numbers are torchvision's where nothing else is said; when counting others hold.
    rpn = CellRPN(
        anchors,
        ExactHead(channels, len(ASPECT_RATIOS)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * PROPOSALS, "testing": 1000},
        post_nms_top_n={"training": PROPOSALS, "testing": 1000},
        nms_thresh=0.7,
    )
    heads = CellRoIHeads(
        MultiScaleRoIAlign(levels, 7, 1),
        TwoMLPHead(channels * 7**2, wanted.box),
        FastRCNNPredictor(wanted.box, num_classes + 1),
        0.5,  # IoU of objects
        0.5,  # and of background
        BOX_SAMPLES,
        0.25,  # of them objects
        None,  # weights of the box regression
        0.05,  # score
        0.5,  # overlap that suppresses
        100,  # detections
        MultiScaleRoIAlign(levels, 14, 1),
        MaskRCNNHeads(channels, (wanted.mask,) * 4, 1),
        MaskRCNNPredictor(wanted.mask, wanted.mask, num_classes + 1),
        mask_samples=MASK_SAMPLES,
    )
    if wanted.types:
        heads.type_head = TypeHead(channels, wanted.types)
    if wanted.quality:
        heads.quality_head = QualityHead(channels, wanted.mask, wanted.quality)
    known = BACKBONES[wanted.backbone]
    transform = UnscaledTransform(800, 1333, list(known.mean), list(known.std))
    return GeneralizedRCNN(with_pyramid(wanted.backbone, channels, norm), rpn, heads, transform)


@torch.inference_mode()
def find_in(
    model: GeneralizedRCNN, image: Tensor, wanted: Wanted, lap: Lap = no_lap
) -> NetworkOutput:
    """Run the network on an image (1, 3, H, W), float32, 0 … 1, H and W multiples of 32.

    The model is in evaluation mode, as built or made ready for counting.
    """
    size = (image.shape[2], image.shape[3])
    dtype = next(model.backbone.parameters()).dtype
    seen = model.transform.normalize(image).to(dtype, memory_format=torch.channels_last)
    lap("preprocess")
    features = model.backbone(seen)
    lap("backbone")
    (boxes,), _ = model.rpn(ImageList(seen, [size]), features)
    lap("proposals")
    # RoIAlign samples between pixels, in float32; that for GPUs wants its channels first: turned
    # round once here and not at each call.
    exact = {name: level.float() for name, level in features.items()}
    if not image.is_cpu:
        exact = {name: level.contiguous() for name, level in exact.items()}
    found = cast(CellRoIHeads, model.roi_heads).find(exact, boxes, size, wanted, lap)
    arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    return NetworkOutput(proposals=len(boxes), **arrays)
