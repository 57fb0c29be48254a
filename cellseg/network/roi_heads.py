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
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops import boxes as box_ops

from cellseg.network.architecture import TYPE_BINS, TYPE_LEVELS, TYPE_LIKENESS, Limits
from cellseg.network.boxes import Floats, level_of, mean_samples, sampled, weighted
from cellseg.network.inference import Wanted
from cellseg.network.timer import Lap

Target = dict[str, Tensor]

MOSTLY = 0.5
"""A box of which such a share is ignored counts neither as an object nor as background."""

BOXES_AT_ONCE, FEW_BOXES = 1024, 256
"""Proposals that go through the box head together when counting, on a GPU and on a processor, whose
caches hold no more samples."""

MASKS_AT_ONCE = 128
"""Boxes that go through the mask branch together when counting: what its memory grows with."""

TYPE_HIDDEN, QUALITY_HIDDEN = 64, 128
"""Of the classifier of cell types, and of the head that tells how well a mask fits."""

_Sampled = Callable[[MultiScaleRoIAlign, Tensor], Tensor]
"""Samples (B, C, S, S) of one image's boxes (B, 4)."""


def ignored_share(boxes: Tensor, target: Target) -> Tensor:
    """Share of each box (x1, y1, x2, y2), (B, 4), that the target's ignored regions cover, (B,).

    The target may lack ``ignored``, uint8 (H, W): then nothing is. Boxes are widened to whole
    pixels and cut at the image's edge.
    """
    ignored = target.get("ignored")
    if ignored is None or not bool(ignored.any()):
        return boxes.new_zeros(len(boxes))
    height, width = ignored.shape
    sums = F.pad(ignored.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    x1, y1 = boxes[:, :2].floor().long().unbind(1)
    x2, y2 = boxes[:, 2:].ceil().long().unbind(1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    covered = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return covered / ((x2 - x1) * (y2 - y1)).clamp_min(1)


def filled_up(samples: Tensor, number: int) -> Tensor:
    """Samples (B, C, S, S), on a GPU with zeros up to a number: new shapes cost cuDNN a search."""
    return samples if samples.is_cpu else F.pad(samples, (0,) * 7 + (number - len(samples),))


def _array(level: Tensor) -> Floats:
    """A feature map (1, C, H, W) on a CPU as (H, W, C), without a copy."""
    return cast(Floats, level[0].permute(1, 2, 0).numpy())


class SparsePool(torch.autograd.Function):
    """RoIAlign on a CPU with its gradient: a product with a sparse matrix, and with its transpose.

    Torchvision's own takes a quarter of a training step.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's, as below
        boxes: list[Tensor],
        side: int,
        *levels: Tensor,
    ) -> Tensor:
        """Samples (B, C, side, side), float32, of each image's boxes; levels are (N, C, H, W)."""
        whole: Floats = torch.cat(boxes).numpy()
        image = np.repeat(np.arange(len(boxes)), [len(part) for part in boxes])
        out = np.empty((len(whole), side * side, levels[0].shape[1]), np.float32)
        fitting = level_of(whole, len(levels))
        ctx.shapes, ctx.parts = [(level.shape, level.dtype) for level in levels], []
        for index, level in enumerate(levels):
            chosen = np.flatnonzero(fitting == index)
            places: Floats = whole[chosen] / np.float32(4 << index)
            matrix, used = weighted(level.shape[2:], places, side, image=image[chosen])
            pixels = torch.from_numpy(np.flatnonzero(used))
            table = level.permute(0, 2, 3, 1).flatten(0, 2)[pixels].float().numpy()
            out[chosen] = (matrix @ table).reshape(len(chosen), *out.shape[1:])
            ctx.parts.append((chosen, matrix, pixels))
        return torch.from_numpy(out).view(len(whole), side, side, out.shape[2]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        given = gradient.permute(0, 2, 3, 1).flatten(1, 2).float().numpy()
        found: list[Tensor | None] = [None, None]
        for (shape, dtype), (chosen, matrix, pixels) in zip(ctx.shapes, ctx.parts, strict=True):
            batch, channels, height, width = shape
            level = torch.zeros((batch * height * width, channels), dtype=dtype)
            part = matrix.T @ given[chosen].reshape(-1, channels)
            level[pixels] = torch.from_numpy(part).to(dtype)
            found.append(level.view(batch, height, width, channels).permute(0, 3, 1, 2))
        return tuple(found)


class TypeHead(nn.Module):
    """Logits of the types, from each box's mean features.

    The box head's own features tell nucleus from background and little else: with them the mean
    F1 of three types was 0.13 lower. ``channels`` are the pyramid's.
    """

    def __init__(self, channels: int, types: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(TYPE_LEVELS * channels, TYPE_HIDDEN)
        self.logits = nn.Linear(TYPE_HIDDEN, types)
        self.centre = nn.Parameter(torch.zeros(TYPE_LEVELS * channels))
        self.likeness = nn.Linear(TYPE_LEVELS * channels, TYPE_LIKENESS, bias=False)

    def forward(self, levels: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of types, (D, T), and likeness, (D, L), float32.

        Boxes, (D, 4), are in pixels of the input; ``levels`` are the pyramid's finest feature maps
        of one image, each (1, C, H, W).
        """
        if boxes.device.type == "cpu":
            arrays = [_array(level) for level in levels]
            seen = torch.from_numpy(mean_samples(arrays, boxes.numpy(), 2 * TYPE_BINS))
        else:
            bins = [
                roi_align(level, [boxes], TYPE_BINS, 1 / (4 << k), 2)
                for k, level in enumerate(levels)
            ]
            seen = torch.cat(bins, 1).mean((2, 3))
        dtype = self.hidden.weight.dtype
        # Centred before it is rounded: fields differ by little of what they have in common.
        likeness = self.likeness((seen - self.centre.float()).to(dtype)).float()
        return self.logits(self.hidden(seen.to(dtype)).relu()).float().softmax(1), likeness


class QualityHead(nn.Module):
    """How well a mask fits: its IoU with an object, and the probability that this is 0.5 or more.

    It is learned from all finds, right and wrong; Huang et al., Mask Scoring R-CNN, CVPR 2019,
    https://arxiv.org/abs/1903.00241, learn the IoU of right ones.
    """

    def __init__(self, channels: int, mask: int, width: int) -> None:
        super().__init__()
        self.sampled = nn.Conv2d(channels, width, 1)
        self.branch = nn.Conv2d(mask, width, 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, k, 1) for k in (1, 2, 1))
        self.hidden = nn.Linear(width * 7**2, QUALITY_HIDDEN)
        self.logits = nn.Linear(QUALITY_HIDDEN, 2)

    def forward(self, seen: Tensor, branch: Tensor) -> Tensor:
        """Logits of both, (B, 2), of what the mask branch sees and of its last features."""
        x = (self.sampled(seen) + self.branch(branch)).relu()
        for convolution in self.convolutions:
            x = convolution(x).relu()
        return cast(Tensor, self.logits(self.hidden(x.flatten(1)).relu()))


class CellRoIHeads(RoIHeads):  # type: ignore[misc]
    """Box and mask heads with class-agnostic suppression and a bounded mask branch.

    Of the positive boxes of a batch ``mask_samples`` train the mask branch, the rest the boxes
    only.
    """

    bins_first: bool = False  # The box head takes its samples bin by bin.
    type_head: TypeHead | None  # Sorts what is found, when counting, if that is wanted.
    quality_head: QualityHead | None

    def __init__(self, *parts: object, mask_samples: int) -> None:
        super().__init__(*parts)
        self.mask_samples, self.type_head, self.quality_head = mask_samples, None, None
        pool = self.mask_roi_pool
        size = tuple(2 * side for side in pool.output_size)
        self.fine_roi_pool = MultiScaleRoIAlign(pool.featmap_names, size, pool.sampling_ratio)

    def put_bins_first(self) -> None:
        """Let the box head take samples as RoIAlign on a CPU leaves them: without a copy."""
        if self.bins_first:
            return
        first, side = self.box_head.fc6, self.box_roi_pool.output_size[0]
        weight = first.weight.detach()
        weight = weight.reshape(len(weight), -1, side, side).permute(0, 2, 3, 1)
        first.weight = nn.Parameter(weight.flatten(1).contiguous(), requires_grad=False)
        self.bins_first = True

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Losses; no detections, which come from :meth:`find`.

        Targets are ``boxes``, ``labels``, ``masks`` of each image. Optional: ``outlined``, bool
        (N,), which of the masks are outlines, and ``ignored``, uint8 (H, W), where what is found is
        neither right nor wrong.
        """
        proposals = [
            boxes[ignored_share(boxes, target) < MOSTLY]
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        box_features = self.box_head(
            self._pool(self.box_roi_pool, features, proposals, image_shapes)
        )
        class_logits, box_regression = self.box_predictor(box_features)
        loss_class, loss_box = fastrcnn_loss(class_logits, box_regression, labels, regression)
        loss_mask = self._mask_loss(features, proposals, matched, labels, image_shapes, targets)
        losses = {"loss_classifier": loss_class, "loss_box_reg": loss_box, "loss_mask": loss_mask}
        return [], losses

    @staticmethod
    def _pool(
        pool: MultiScaleRoIAlign,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Samples of each image's boxes (B, C, S, S)."""
        if boxes[0].device.type != "cpu":
            return cast(Tensor, pool(features, boxes, image_shapes))
        levels = [features[name] for name in pool.featmap_names]
        return cast(Tensor, SparsePool.apply(boxes, pool.output_size[0], *levels))

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
        pooled = self._pool(self.mask_roi_pool, features, boxes, image_shapes)
        seen = filled_up(pooled, max(self.mask_samples, len(proposals)))
        loss: Tensor = maskrcnn_loss(
            self.mask_predictor(self.mask_head(seen))[: len(pooled)],
            boxes,
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
            indices,
        )
        return loss

    def find(
        self,
        features: dict[str, Tensor],
        proposals: Tensor,
        shape: tuple[int, int],
        wanted: Wanted,
        lap: Lap,
    ) -> dict[str, Tensor]:
        """What is found in one image: the arrays of :class:`NetworkOutput`.

        Features are (1, C, H, W) and in float32, as RoIAlign samples between pixels.
        """

        def samples(pool: MultiScaleRoIAlign, boxes: Tensor) -> Tensor:
            if boxes.device.type != "cpu":
                return cast(Tensor, pool(features, [boxes], [shape]))
            levels = [_array(features[name]) for name in pool.featmap_names]
            found = sampled(levels, boxes.numpy(), pool.output_size[0])
            return torch.from_numpy(found).permute(0, 3, 1, 2)

        least = wanted if self.quality_head is None else replace(wanted, score=wanted.score**2)
        result = self.select(*self._boxes(samples, proposals), proposals, shape, least)
        is_full = result.pop("is_full")
        lap("boxes")
        result["masks"], quality = self._masks(samples, self.mask_roi_pool, result)
        if quality is not None:
            own = result["scores"]
            result["scores"] = torch.minimum((own * quality) ** (1 / 3), own.sqrt())
            order = result["scores"].argsort(descending=True, stable=True)
            order = order[result["scores"][order] > wanted.score]
            result = {name: one[order] for name, one in result.items()}
        boxes = result["boxes"]
        lap("masks")
        if self.type_head is not None and wanted.types:
            levels = [features[str(level)] for level in range(TYPE_LEVELS)]
            result["types"], result["likeness"] = self.type_head(levels, boxes)
            lap("types")
        fine = torch.where((boxes[:, 2:] - boxes[:, :2]).amax(1) >= wanted.fine_from_px)[0]
        again, _ = self._masks(samples, self.fine_roi_pool, {k: v[fine] for k, v in result.items()})
        result |= {"is_full": is_full, "fine": fine, "again": again}
        lap("masks")
        return result

    def _boxes(self, samples: _Sampled, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (P, classes) and regression (P, 4 * classes) of proposals, float32."""
        dtype = next(self.box_head.parameters()).dtype
        logits, regression = [], []
        for part in torch.split(proposals, FEW_BOXES if proposals.is_cpu else BOXES_AT_ONCE):
            seen = samples(self.box_roi_pool, part).to(dtype)
            if self.bins_first:
                seen = seen.permute(0, 2, 3, 1)
            score, shift = self.box_predictor(self.box_head(seen))
            logits.append(score.float())
            regression.append(shift.float())
        return torch.cat(logits), torch.cat(regression)

    def _masks(
        self, samples: _Sampled, pool: MultiScaleRoIAlign, found: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Probabilities of each box's class, (D, S, S), and how well masks fit, (D,).

        S is twice the pool's side; at the second look quality is not asked for.
        """
        boxes, classes, side = found["boxes"], found["classes"], 2 * pool.output_size[0]
        dtype = next(self.mask_head.parameters()).dtype
        masks, quality = [boxes.new_zeros((0, side, side))], [boxes.new_zeros(0)]
        judge = self.quality_head if pool is self.mask_roi_pool else None
        for start in range(0, len(boxes), MASKS_AT_ONCE):
            kinds = classes[start : start + MASKS_AT_ONCE]
            seen = filled_up(samples(pool, boxes[start : start + MASKS_AT_ONCE]), MASKS_AT_ONCE)
            seen = seen.to(dtype, memory_format=torch.channels_last)
            hidden = self.mask_head(seen)
            logits = self.mask_predictor(hidden)
            if judge is not None:
                quality.append(judge(seen, hidden)[: len(kinds)].float().sigmoid().prod(1))
            rows = torch.arange(len(kinds), device=kinds.device)
            masks.append(logits[rows, kinds + 1].float().sigmoid())
        return torch.cat(masks), None if judge is None else torch.cat(quality)

    def select(
        self,
        logits: Tensor,
        regression: Tensor,
        proposals: Tensor,
        shape: tuple[int, int],
        wanted: Wanted,
    ) -> dict[str, Tensor]:
        """Best class of each proposal, then one suppression whatever the class."""
        # Without any proposal torchvision's decoder forgets the axis of classes.
        number = logits.shape[1]
        decoded = self.box_coder.decode(regression, [proposals]).reshape(-1, number, 4)
        if wanted.kinds is not None:
            gone = torch.ones(number, dtype=torch.bool, device=logits.device)
            gone[[0, *(kind + 1 for kind in wanted.kinds)]] = False
            logits = logits.masked_fill(gone, -torch.inf)
        best, kind = F.softmax(logits, -1)[:, 1:].max(dim=1)
        boxes = decoded[torch.arange(len(kind), device=kind.device), kind + 1]
        boxes = box_ops.clip_boxes_to_image(boxes, shape)
        keep = torch.where(best > wanted.score)[0]
        keep = keep[box_ops.remove_small_boxes(boxes[keep], min_size=1.0)]
        keep = keep[box_ops.nms(boxes[keep], best[keep], wanted.nms_iou)]
        most = Limits.for_area(shape[0] * shape[1]).detections
        is_full, keep = torch.tensor(len(keep) > most), keep[:most]
        keep = keep[wanted.meets(boxes[keep])]
        return {
            "boxes": boxes[keep],
            "classes": kind[keep],
            "scores": best[keep],
            "is_full": is_full,
        }
