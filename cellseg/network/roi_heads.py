"""RoI heads for crowded fields: what torchvision's own heads do not offer.

torchvision's :class:`~torchvision.models.detection.roi_heads.RoIHeads` suppresses per
class, runs the mask branch on every box above a low score and trains the mask branch
on every positive box. Counting needs class-agnostic suppression, the mask branch on the
boxes that will be counted only, and a bounded training cost in dense fields.
The parameters (and so the COCO weights) are the same.

Large boxes are looked at twice: of a box of 48 px a mask of 28 × 28 has cells of almost two
pixels. The mask branch has no fully connected layer, so it also runs on 28 × 28 samples instead
of 14 × 14 and then gives 56 × 56; where the first mask is in doubt the mean of both counts.
"""

from __future__ import annotations

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

from cellseg.network.architecture import FINE_FROM_PX, TYPE_LEVELS
from cellseg.network.pooling import refined, roi_align
from cellseg.network.rpn import MOSTLY, ignored_share
from cellseg.network.timer import Lap, no_lap
from cellseg.network.types import TypeHead

Target = dict[str, Tensor]

BOXES_AT_ONCE = 1024
"""Proposals that go through the box head together when counting: 12,544 samples of each wait."""

MASKS_AT_ONCE = 128
"""Boxes that go through the mask branch together when counting: what its memory grows with."""


class CellRoIHeads(RoIHeads):  # type: ignore[misc]
    """Box and mask heads with class-agnostic suppression and a bounded mask branch.

    Parameters
    ----------
    parts
        As torchvision's heads take them.
    mask_samples : int
        Positive boxes per batch that train the mask branch; the rest train the boxes only.

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

        Parameters
        ----------
        features : dict of Tensor
            Feature maps of the pyramid, each (N, C, H, W).
        proposals : list of Tensor
            Boxes (x1, y1, x2, y2) in pixels of the network's input, one (P, 4) an image.
        image_shapes : list of (int, int)
            Height and width of each image, pixels.
        targets : list of dict, optional
            ``boxes``, ``labels``, ``masks`` of each image; needed while training. Optional:
            ``outlined``, bool (N,), which of the masks are outlines, and ``ignored``, uint8 (H, W),
            where what is found is neither right nor wrong.

        Returns
        -------
        detections : list of dict
            ``boxes`` (D, 4), ``labels`` (D,), ``scores`` (D,), ``masks`` (D, 28, 28) of
            probabilities inside the box, ``detections_full`` (bool, the limit was reached),
            ``fine`` (K,) indices of the large ones and ``fine_masks`` (K, 56, 56) of them;
            ``types`` (D, T), probabilities, where the model has them and they are wanted.
        losses : dict of Tensor
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
        class_logits, box_regression = self._boxes(features, proposals, image_shapes)
        results = self.select(class_logits, box_regression, proposals, image_shapes)
        self.lap("boxes")
        boxes = [result["boxes"] for result in results]
        if self.type_head is not None and self.wants_types:
            for number, result in enumerate(results):
                levels = [features[str(k)][number : number + 1] for k in range(TYPE_LEVELS)]
                result["types"] = self.type_head(levels, result["boxes"])
            self.lap("types")
        labels = [result["labels"] for result in results]
        masks = self._probabilities(self.mask_roi_pool, features, boxes, labels, image_shapes)
        fine = [
            torch.where((box[:, 2:] - box[:, :2]).amax(1) >= self.fine_from_px)[0] for box in boxes
        ]
        large, kinds = (
            [one[index] for one, index in zip(whole, fine, strict=True)]
            for whole in (boxes, labels)
        )
        again = self._probabilities(self.fine_roi_pool, features, large, kinds, image_shapes)
        for result, mask, index, second in zip(results, masks, fine, again, strict=True):
            result["masks"], result["fine"] = mask, index
            result["fine_masks"] = refined(mask[index], second)
        self.lap("masks")
        return results

    def _boxes(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """Class logits (P, classes) and regression (P, 4 * classes) of all proposals, float32."""
        dtype = next(self.box_head.parameters()).dtype
        logits, regression = [], []
        for index, (box, shape) in enumerate(zip(proposals, image_shapes, strict=True)):
            for part in torch.split(box, BOXES_AT_ONCE):
                seen = self._sampled(self.box_roi_pool, features, index, part, shape).to(dtype)
                if self.bins_first:
                    seen = seen.permute(0, 2, 3, 1)
                score, shift = self.box_predictor(self.box_head(seen))
                logits.append(score.float())
                regression.append(shift.float())
        return torch.cat(logits), torch.cat(regression)

    def _probabilities(
        self,
        pool: MultiScaleRoIAlign,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        labels: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Masks of the labelled class, (D, S, S) an image; S is twice the pool's side."""
        side = 2 * pool.output_size[0]
        dtype = next(self.mask_head.parameters()).dtype
        found = []
        for index, (box, label, shape) in enumerate(zip(boxes, labels, image_shapes, strict=True)):
            masks = [box.new_zeros((0, side, side))]
            parts = zip(*(torch.split(one, MASKS_AT_ONCE) for one in (box, label)), strict=True)
            for part, kinds in parts if len(box) else ():
                seen = self._sampled(pool, features, index, part, shape)
                seen = seen.to(dtype, memory_format=torch.channels_last)
                logits = self.mask_predictor(self.mask_head(seen))
                rows = torch.arange(len(kinds), device=kinds.device)
                masks.append(logits[rows, kinds].float().sigmoid())
            found.append(torch.cat(masks))
        return found

    def _sampled(
        self,
        pool: MultiScaleRoIAlign,
        features: dict[str, Tensor],
        index: int,
        boxes: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """Samples of one image's boxes, (B, C, S, S)."""
        of_image = {name: level[index : index + 1] for name, level in features.items()}
        if boxes.device.type != "cpu":
            return cast(Tensor, pool(of_image, [boxes], [shape]))
        return roi_align([of_image[one] for one in pool.featmap_names], boxes, pool.output_size[0])

    def select(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[Target]:
        """Best class of each proposal, then one suppression whatever the class."""
        counts = [len(p) for p in proposals]
        # Without any proposal torchvision's decoder forgets the axis of classes.
        classes = class_logits.shape[1]
        decoded = self.box_coder.decode(box_regression, proposals).reshape(-1, classes, 4)
        if self.kinds is not None:
            gone = torch.ones(classes, dtype=torch.bool, device=class_logits.device)
            gone[[0, *(kind + 1 for kind in self.kinds)]] = False
            class_logits = class_logits.masked_fill(gone, -torch.inf)
        scores = F.softmax(class_logits, -1)
        results = []
        for boxes, score, shape in zip(
            torch.split(decoded, counts), torch.split(scores, counts), image_shapes, strict=True
        ):
            best, label = score[:, 1:].max(dim=1)
            label = label + 1
            box = boxes[torch.arange(len(label), device=label.device), label]
            box = box_ops.clip_boxes_to_image(box, shape)
            keep = torch.where(best > self.score_thresh)[0]
            keep = keep[box_ops.remove_small_boxes(box[keep], min_size=1.0)]
            keep = keep[box_ops.nms(box[keep], best[keep], self.nms_thresh)]
            full = torch.tensor(len(keep) > self.detections_per_img)
            keep = keep[: self.detections_per_img]
            results.append(
                {
                    "boxes": box[keep],
                    "labels": label[keep],
                    "scores": best[keep],
                    "detections_full": full,
                }
            )
        return results
