"""The network: torchvision's names, anchors that fit cells, bounded work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from cellseg.network import roi_heads
from cellseg.network.architecture import DOUBT, Limits
from cellseg.network.detect import to_detections
from cellseg.network.inference import NetworkOutput
from cellseg.network.maskrcnn import (
    TrainingLimits,
    build_maskrcnn,
    forward_batch,
    set_limits,
)

HEADS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_maskrcnn(2).eval()


def targets(count, side=96):
    boxes, masks = [], torch.zeros((count, side, side), dtype=torch.uint8)
    for i in range(count):
        y, x = 4 + 22 * (i // 4), 4 + 22 * (i % 4)
        boxes.append([x, y, x + 16, y + 16])
        masks[i, y : y + 16, x : x + 16] = 1
    labels = torch.ones(count, dtype=torch.int64)
    return {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": labels, "masks": masks}


def test_names_and_shapes_are_torchvisions(model):
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    ours = model.state_dict()
    assert ours.keys() == theirs.keys()
    different = {key for key in ours if ours[key].shape != theirs[key].shape}
    assert different
    assert all(key.startswith(HEADS) for key in different)


def test_both_norms_hold_the_same_arrays(model):
    trainable = build_maskrcnn(2, frozen_norm=False)
    assert any(isinstance(m, nn.BatchNorm2d) for m in trainable.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    names = {k for k in trainable.state_dict() if not k.endswith("num_batches_tracked")}
    assert names == set(model.state_dict())
    assert all(p.requires_grad for p in trainable.backbone.parameters())


def test_anchors_cover_cells(model):
    batch, _ = model.transform([torch.zeros(3, 64, 64)])
    features = list(model.backbone(batch.tensors).values())
    (anchors,) = model.rpn.anchor_generator(batch, features)
    areas = ((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])).sqrt()
    assert areas.min() < 9
    assert 120 < areas.max() < 140
    # Three ratios on each level: 16², 8², 4², 2², 1² places.
    assert len(anchors) == 3 * (256 + 64 + 16 + 4 + 1)


@pytest.mark.parametrize(("side", "detections"), [(64, 100), (1024, 10_485), (2048, 41_943)])
def test_limits_follow_the_area(side, detections):
    limits = Limits.for_area(side * side)
    assert limits.detections == detections
    assert limits.proposals >= detections
    assert limits.pre_nms >= 4 * detections


def test_no_resize(model):
    batch, _ = model.transform([torch.rand(3, 96, 64)])
    assert batch.image_sizes == [(96, 64)]
    assert batch.tensors.shape == (1, 3, 96, 64)


def select(model, logits, boxes):
    """Boxes and class logits straight into the heads' choice (no regression)."""
    heads = model.roi_heads
    regression = torch.zeros(len(boxes), 4 * logits.shape[1])
    return heads.select(logits, regression, boxes, (96, 96))


def test_suppression_ignores_the_class(model):
    set_limits(model, Limits.for_area(96 * 96), score=0.3, nms_iou=0.5)
    boxes = torch.tensor([[10.0, 10, 40, 40], [11, 11, 41, 41], [60, 60, 80, 80]])
    logits = torch.tensor([[0.0, 4, 0], [0, 0, 5], [0, 3, 0]])
    result = select(model, logits, boxes)
    assert result["labels"].tolist() == [2, 1]
    assert result["boxes"][:, 0].tolist() == [11, 60]
    assert not result["detections_full"]


def test_a_full_list_is_said(model):
    set_limits(model, Limits(pre_nms=10, proposals=10, detections=1), score=0.1, nms_iou=0.5)
    boxes = torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]])
    result = select(model, torch.tensor([[0.0, 4, 0], [0, 5, 0]]), boxes)
    assert len(result["boxes"]) == 1
    assert result["detections_full"]


def spied(heads, request):
    """Sizes of what goes through the mask branch: (boxes, samples along a side)."""
    seen = []
    hook = heads.mask_head.register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0].shape[0], inputs[0].shape[3]))
    )
    request.addfinalizer(hook.remove)
    return seen


def test_mask_branch_sees_only_what_is_kept(model, request, monkeypatch):
    monkeypatch.setattr(model.roi_heads, "fine_from_px", float("inf"))
    seen = spied(model.roi_heads, request)
    set_limits(model, Limits(pre_nms=200, proposals=100, detections=3), score=0.0, nms_iou=0.9)
    (result,) = forward_batch(model, torch.rand(1, 3, 64, 64))
    assert int(result["proposals"]) > 3
    assert seen == [(3, 14)]
    assert result["masks"].shape == (3, 28, 28)
    set_limits(model, Limits(pre_nms=200, proposals=100, detections=3), score=1.0, nms_iou=0.9)
    (result,) = forward_batch(model, torch.rand(1, 3, 64, 64))
    assert seen == [(3, 14)]
    assert result["masks"].shape == (0, 28, 28)
    assert result["fine_masks"].shape == (0, 56, 56)


def test_large_boxes_are_looked_at_twice_where_the_first_mask_is_in_doubt(
    model, request, monkeypatch
):
    monkeypatch.setattr(roi_heads, "MASKS_AT_ONCE", 4)
    heads = model.roi_heads
    images = torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    images[1, :, 64:] = 0
    set_limits(model, Limits(pre_nms=500, proposals=200, detections=40), score=0.0, nms_iou=0.9)
    sides = [
        (one["boxes"][:, 2:] - one["boxes"][:, :2]).amax(1) for one in forward_batch(model, images)
    ]
    monkeypatch.setattr(heads, "fine_from_px", float(torch.cat(sides).median()))
    seen = spied(heads, request)
    results = forward_batch(model, images)
    assert max(boxes for boxes, _ in seen) == 4
    assert {samples for _, samples in seen} == {14, 28}
    # What each look says alone, from the pool and the branch themselves.
    features = model.backbone(model.transform(list(images))[0].tensors)
    for index, result in enumerate(results):
        sides = (result["boxes"][:, 2:] - result["boxes"][:, :2]).amax(1)
        large = torch.where(sides >= heads.fine_from_px)[0]
        assert 0 < len(large) < len(sides)
        assert torch.equal(result["fine"], large)
        boxes = [torch.zeros(0, 4), torch.zeros(0, 4)]
        boxes[index] = result["boxes"][large]
        pooled = heads.fine_roi_pool(features, boxes, [(192, 192)] * 2)
        second = heads.mask_predictor(heads.mask_head(pooled)).sigmoid()
        second = second[torch.arange(len(large)), result["labels"][large]]
        first = torch.nn.functional.interpolate(
            result["masks"][large][:, None], (56, 56), mode="bilinear", align_corners=False
        )[:, 0]
        doubt = (first > DOUBT[0]) & (first < DOUBT[1])
        assert bool(doubt.any())
        expected = torch.where(doubt, (first + second) / 2, first)
        torch.testing.assert_close(result["fine_masks"], expected, atol=2e-3, rtol=1e-2)


def test_a_fine_mask_takes_the_place_of_its_own_box():
    masks = np.zeros((3, 28, 28), np.float32)
    masks[:, 4:24, 4:24] = 1
    fine = np.zeros((1, 56, 56), np.float32)
    fine[:, :28] = 1
    boxes = np.array([[0, 0, 28, 28], [40, 40, 96, 96], [100, 0, 128, 28]], np.float32)
    output = NetworkOutput(
        boxes=boxes, masks=masks, scores=np.array([0.9, 0.8, 0.7], np.float32),
        classes=np.zeros(3, np.int64), fine=np.array([1]), fine_masks=fine, types=None,
        proposals=3, is_full=False,
    )  # fmt: skip
    found = to_detections(output, (128, 128), Limits.for_area(128 * 128)).instances
    assert found.masks[0].shape == found.masks[2].shape
    assert found.masks[0].shape == pytest.approx((20, 20), abs=1)
    assert found.boxes[1].tolist() == pytest.approx([40, 40, 68, 96], abs=1)


def test_mask_samples_bound_the_training(request):
    limits = TrainingLimits(proposals=60, box_samples=32, mask_samples=4)
    model = build_maskrcnn(1, training=limits).train()
    seen = spied(model.roi_heads, request)
    with torch.no_grad():
        losses = model([torch.rand(3, 96, 96)] * 2, [targets(12), targets(12)])
    assert set(losses) == {
        "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    # Twelve annotated boxes are positives each; two masks an image are trained.
    assert seen == [(4, 14)]
