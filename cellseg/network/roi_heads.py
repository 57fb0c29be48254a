"""RoI heads for crowded fields: what torchvision's own heads do not offer.

torchvision's own suppress per class, run the mask branch on every box above a low score and train
it on every positive box. Counting needs class-agnostic suppression, the mask branch on the boxes
that will be counted only, and a bounded training cost in dense fields. The parameters (and so the
COCO weights) are the same.

Large boxes are looked at twice: of a box of 48 px a mask of 28 × 28 has cells of almost two
pixels. The mask branch has no fully connected layer, so it also runs on 28 × 28 samples instead
of 14 × 14 and then gives 56 × 56; where the first mask is in doubt the mean of both counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    maskrcnn_loss,
)
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import boxes as box_ops

from cellseg.network.architecture import FINE_FROM_PX, TYPE_BINS, TYPE_LEVELS
from cellseg.network.pooling import mean_samples, refined, roi_align
from cellseg.network.rpn import MOSTLY, ignored_share
from cellseg.network.timer import Lap, no_lap

Target = dict[str, Tensor]

BOXES_AT_ONCE = 1024
"""Proposals that go through the box head together when counting: 12,544 samples of each wait."""

MASKS_AT_ONCE = 128
"""Boxes that go through the mask branch together when counting: what its memory grows with."""


TYPE_HIDDEN = 64
"""Of the classifier of cell types."""

_Sampled = Callable[[MultiScaleRoIAlign, Tensor], Tensor]
"""Samples (B, C, S, S) of one image's boxes (B, 4)."""


class TypeHead(nn.Module):
    """Logits of the types, from each box's mean features.

    The box head's own features tell nucleus from background and little else: with them the mean
    F1 of three types was 0.13 lower. ``channels`` are the pyramid's.
    """

    def __init__(self, channels: int, types: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(TYPE_LEVELS * channels, TYPE_HIDDEN)
        self.logits = nn.Linear(TYPE_HIDDEN, types)

    def forward(self, levels: list[Tensor], boxes: Tensor) -> Tensor:
        """Probabilities of the types, (D, T), float32, of boxes (D, 4), pixels of the input.

        ``levels`` are the pyramid's finest feature maps of one image, each (1, C, H, W).
        """
        parts = [mean_samples(level, boxes, 4 << k, TYPE_BINS) for k, level in enumerate(levels)]
        seen = torch.cat(parts, 1).to(self.hidden.weight.dtype)
        return cast(Tensor, self.logits(self.hidden(seen).relu())).float().softmax(1)


class CellRoIHeads(RoIHeads):  # type: ignore[misc]
    """Box and mask heads with class-agnostic suppression and a bounded mask branch.

    Of the positive boxes of a batch ``mask_samples`` train the mask branch, the rest the boxes
    only.

    Attributes
    ----------
    fine_from_px : float
        Boxes with a side of so many pixels get the second look when counting.
    bins_first : bool
        The box head takes its samples bin by bin (:meth:`put_bins_first`).
    type_head : TypeHead or None
        Sorts what is found, when counting, if ``wants_types``.
    kinds : tuple of int or None
        Classes from 0 that are looked for when counting; None: all.
    """

    lap: Lap = staticmethod(no_lap)
    fine_from_px: float = FINE_FROM_PX
    bins_first: bool = False
    type_head: TypeHead | None
    wants_types: bool = True
    kinds: tuple[int, ...] | None = None

    def __init__(self, *parts: object, mask_samples: int) -> None:
        super().__init__(*parts)
        self.mask_samples, self.type_head = mask_samples, None
        pool = self.mask_roi_pool
        size = tuple(2 * side for side in pool.output_size)
        self.fine_roi_pool = MultiScaleRoIAlign(pool.featmap_names, size, pool.sampling_ratio)

    def put_bins_first(self) -> None:
        """Let the box head take samples as RoIAlign on a CPU leaves them: without a copy."""
        if self.bins_first:
            return
        layer = self.box_head.fc6
        first = cast(nn.Linear, layer[0] if isinstance(layer, nn.Sequential) else layer)
        side = self.box_roi_pool.output_size[0]
        weight = first.weight.detach()
        weight = weight.reshape(len(weight), -1, side, side).permute(0, 2, 3, 1)
        first.weight = nn.Parameter(weight.flatten(1).contiguous(), requires_grad=False)
        self.bins_first = True

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Losses while training, detections otherwise.

        Targets are ``boxes``, ``labels``, ``masks`` of each image. Optional: ``outlined``, bool
        (N,), which of the masks are outlines, and ``ignored``, uint8 (H, W), where what is found is
        neither right nor wrong.

        Detections are ``boxes`` (D, 4), ``labels`` (D,), ``scores`` (D,), ``masks`` (D, 28, 28) of
        probabilities inside the box, ``detections_full`` (bool, the limit was reached), ``fine``
        (K,) indices of the large ones and ``fine_masks`` (K, 56, 56) of them; ``types`` (D, T),
        probabilities, where the model has them and they are wanted.
        """
        if not self.training:
            return self._detect(features, proposals, image_shapes), {}
        if targets is None:
            raise ValueError("training needs targets")
        return [], self._losses(features, proposals, image_shapes, targets)

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        proposals = [
            boxes[ignored_share(boxes, target) < MOSTLY]
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        box_features = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        class_logits, box_regression = self.box_predictor(box_features)
        loss_class, loss_box = fastrcnn_loss(class_logits, box_regression, labels, regression)
        loss_mask = self._mask_loss(features, proposals, matched, labels, image_shapes, targets)
        return {"loss_classifier": loss_class, "loss_box_reg": loss_box, "loss_mask": loss_mask}

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> Tensor:
        quota = max(1, self.mask_samples // len(proposals))
        boxes, indices = [], []
        for box, match, label, target in zip(proposals, matched, labels, targets, strict=True):
            positive = torch.where(label > 0)[0]
            if "outlined" in target:
                positive = positive[target["outlined"][match[positive]]]
            if len(positive) > quota:
                order = torch.randperm(len(positive), device=positive.device)
                positive = positive[order[:quota]]
            boxes.append(box[positive])
            indices.append(match[positive])
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        loss: Tensor = maskrcnn_loss(
            self.mask_predictor(self.mask_head(pooled)),
            boxes,
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
            indices,
        )
        return loss

    def _detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[Target]:
        # RoIAlign samples between pixels, in float32; that for GPUs wants its channels first:
        # turned round once here and not at each call.
        features = {name: level.float() for name, level in features.items()}
        if next(iter(features.values())).device.type != "cpu":
            features = {name: level.contiguous() for name, level in features.items()}
        found = []
        for index, (boxes, shape) in enumerate(zip(proposals, image_shapes, strict=True)):
            levels = {name: level[index : index + 1] for name, level in features.items()}
            found.append(self._in_image(levels, boxes, shape))
        return found

    def _in_image(
        self, features: dict[str, Tensor], proposals: Tensor, shape: tuple[int, int]
    ) -> Target:
        """Detections of one image; features are (1, C, H, W)."""

        def sampled(pool: MultiScaleRoIAlign, boxes: Tensor) -> Tensor:
            if boxes.device.type != "cpu":
                return cast(Tensor, pool(features, [boxes], [shape]))
            levels = [features[name] for name in pool.featmap_names]
            return roi_align(levels, boxes, pool.output_size[0])

        result = self.select(*self._boxes(sampled, proposals), proposals, shape)
        boxes, labels = result["boxes"], result["labels"]
        self.lap("boxes")
        if self.type_head is not None and self.wants_types:
            levels = [features[str(level)] for level in range(TYPE_LEVELS)]
            result["types"] = self.type_head(levels, boxes)
            self.lap("types")
        fine = torch.where((boxes[:, 2:] - boxes[:, :2]).amax(1) >= self.fine_from_px)[0]
        masks = self._probabilities(sampled, self.mask_roi_pool, boxes, labels)
        again = self._probabilities(sampled, self.fine_roi_pool, boxes[fine], labels[fine])
        result |= {"masks": masks, "fine": fine, "fine_masks": refined(masks[fine], again)}
        self.lap("masks")
        return result

    def _boxes(self, sampled: _Sampled, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (P, classes) and regression (P, 4 * classes) of proposals, float32."""
        dtype = next(self.box_head.parameters()).dtype
        logits, regression = [], []
        for part in torch.split(proposals, BOXES_AT_ONCE):
            seen = sampled(self.box_roi_pool, part).to(dtype)
            if self.bins_first:
                seen = seen.permute(0, 2, 3, 1)
            score, shift = self.box_predictor(self.box_head(seen))
            logits.append(score.float())
            regression.append(shift.float())
        return torch.cat(logits), torch.cat(regression)

    def _probabilities(
        self, sampled: _Sampled, pool: MultiScaleRoIAlign, boxes: Tensor, labels: Tensor
    ) -> Tensor:
        """Masks of the labelled class, (D, S, S); S is twice the pool's side."""
        side = 2 * pool.output_size[0]
        dtype = next(self.mask_head.parameters()).dtype
        masks = [boxes.new_zeros((0, side, side))]
        for start in range(0, len(boxes), MASKS_AT_ONCE):
            kinds = labels[start : start + MASKS_AT_ONCE]
            seen = sampled(pool, boxes[start : start + MASKS_AT_ONCE])
            seen = seen.to(dtype, memory_format=torch.channels_last)
            logits = self.mask_predictor(self.mask_head(seen))
            rows = torch.arange(len(kinds), device=kinds.device)
            masks.append(logits[rows, kinds].float().sigmoid())
        return torch.cat(masks)

    def select(
        self, logits: Tensor, regression: Tensor, proposals: Tensor, shape: tuple[int, int]
    ) -> Target:
        """Best class of each proposal, then one suppression whatever the class."""
        # Without any proposal torchvision's decoder forgets the axis of classes.
        classes = logits.shape[1]
        decoded = self.box_coder.decode(regression, [proposals]).reshape(-1, classes, 4)
        if self.kinds is not None:
            gone = torch.ones(classes, dtype=torch.bool, device=logits.device)
            gone[[0, *(kind + 1 for kind in self.kinds)]] = False
            logits = logits.masked_fill(gone, -torch.inf)
        best, label = F.softmax(logits, -1)[:, 1:].max(dim=1)
        label = label + 1
        boxes = decoded[torch.arange(len(label), device=label.device), label]
        boxes = box_ops.clip_boxes_to_image(boxes, shape)
        keep = torch.where(best > self.score_thresh)[0]
        keep = keep[box_ops.remove_small_boxes(boxes[keep], min_size=1.0)]
        keep = keep[box_ops.nms(boxes[keep], best[keep], self.nms_thresh)]
        full = torch.tensor(len(keep) > self.detections_per_img)
        keep = keep[: self.detections_per_img]
        return {
            "boxes": boxes[keep],
            "labels": label[keep],
            "scores": best[keep],
            "detections_full": full,
        }
