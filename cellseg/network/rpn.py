"""torchvision's region proposals with anchors and boxes in float32, whatever the features are."""

from __future__ import annotations

import math
from copy import copy
from typing import cast

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from cellseg.network.architecture import PROPOSAL_NMS, PROPOSAL_SCORE, Limits

MOSTLY = 0.5
"""A box of which such a share is ignored counts neither as an object nor as background."""


def ignored_share(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Share of each box (x1, y1, x2, y2), (B, 4), that the target's ignored regions cover, (B,).

    The target may lack ``ignored``, uint8 (H, W): then nothing is. Boxes are widened to whole
    pixels and cut at the image's edge.
    """
    ignored = target.get("ignored")
    if ignored is None or not bool(ignored.any()):
        return boxes.new_zeros(len(boxes))
    height, width = ignored.shape
    sums = torch.nn.functional.pad(ignored.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    x1, y1 = boxes[:, :2].floor().long().unbind(1)
    x2, y2 = boxes[:, 2:].ceil().long().unbind(1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    covered = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return covered / ((x2 - x1) * (y2 - y1)).clamp_min(1)


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
