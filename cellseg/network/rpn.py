"""torchvision's region proposals with anchors and boxes in float32, whatever the features are."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

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


class CellRPN(RegionProposalNetwork):  # type: ignore[misc]
    """Region proposal network.

    torchvision makes anchors in the features' precision: in bfloat16 two of them that differ by
    less than 4 px around 1,000 are one.
    """

    @classmethod
    def from_torchvision(cls, rpn: RegionProposalNetwork) -> CellRPN:
        """Take over the modules and settings of torchvision's."""
        return cls(
            rpn.anchor_generator,
            rpn.head,
            rpn.proposal_matcher.high_threshold,
            rpn.proposal_matcher.low_threshold,
            rpn.fg_bg_sampler.batch_size_per_image,
            rpn.fg_bg_sampler.positive_fraction,
            rpn._pre_nms_top_n,
            rpn._post_nms_top_n,
            rpn.nms_thresh,
            rpn.score_thresh,
        )

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals (P, 4) an image, and the losses while training.

        As torchvision's, but for the precision.
        """
        levels = list(features.values())
        scores, deltas = self.head(levels)
        scores = [score.float() for score in scores]
        deltas = [delta.float() for delta in deltas]
        # Only the shapes are looked at.
        shapes = [
            scores[0].new_zeros(1).expand(len(level), 1, *level.shape[-2:]) for level in levels
        ]
        anchors = self.anchor_generator(images, shapes)
        counts = [score[0].numel() for score in scores]
        objectness, regression = concat_box_prediction_layers(scores, deltas)
        boxes = self.box_coder.decode(regression.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = self.filter_proposals(boxes, objectness, images.image_sizes, counts)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("training needs targets")
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        for label, places, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & (ignored_share(places, target) >= MOSTLY)] = -1
        goal = self.box_coder.encode(matched, anchors)
        loss_score, loss_box = self.compute_loss(objectness, regression, labels, goal)
        return proposals, {"loss_objectness": loss_score, "loss_rpn_box_reg": loss_box}
