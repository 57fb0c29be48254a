"""The network: backbones by name, torchvision's names, anchors that fit cells, bounded work."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import cat
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from cellseg.errors import WeightsError
from cellseg.network import backbones, maskrcnn, roi_heads
from cellseg.network.architecture import BACKBONES, DOUBT, LITE0_EPS, SMALL, Architecture, Limits
from cellseg.network.backbones import load_imagenet, with_pyramid
from cellseg.network.detect import fine_masks, to_detections
from cellseg.network.inference import NetworkOutput, Wanted
from cellseg.network.maskrcnn import build_maskrcnn, find_in
from cellseg.network.modelfile import ModelCard
from cellseg.network.roi_heads import SparsePool
from cellseg.network.weights import load_model, read_model, save_model

CARD = ModelCard(name="test", classes=("nucleus",))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_pyramid_over_any_backbone(name):
    features = with_pyramid(name, 24, nn.BatchNorm2d)(torch.rand(1, 3, 128, 64))
    shapes = {key: tuple(level.shape[1:]) for key, level in features.items()}
    assert shapes == {
        "0": (24, 32, 16), "1": (24, 16, 8), "2": (24, 8, 4), "3": (24, 4, 2), "pool": (24, 2, 1),
    }  # fmt: skip


def test_a_frozen_norm_is_that_of_its_arrays():
    """Also in the gradients of the weights under it."""
    torch.manual_seed(0)
    plain = with_pyramid("efficientnet_lite0", 16, nn.BatchNorm2d)
    image = torch.rand(2, 3, 64, 64)
    plain.train()(image)  # moves its means and variances
    for norm in (one for one in plain.modules() if isinstance(one, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    frozen = with_pyramid("efficientnet_lite0", 16, FrozenBatchNorm2d)
    frozen.load_state_dict(
        {k: v for k, v in plain.state_dict().items() if not k.endswith("num_batches_tracked")}
    )
    found = []
    for network in (plain.eval(), frozen.train()):
        level = network(image)["2"]
        weight = network.body.layer1[0][-1][0].weight
        found.append((level, *torch.autograd.grad(level.square().mean(), weight)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(a.detach().abs().max()))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_file_says_which_network_it_is(name, tmp_path):
    chosen = Architecture(backbone=name, pyramid=32, mask=16, box=48)
    model = build_maskrcnn(1, architecture=chosen)
    path = tmp_path / "model.safetensors"
    save_model(path, model.state_dict(), CARD, quantise=False)
    assert Architecture.of(read_model(path)[0]) == chosen
    loaded, card = load_model(path)
    assert (card.backbone, card.pyramid, card.format) == (name, 32, 2)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_an_unknown_backbone_is_one_line(tmp_path):
    path = tmp_path / "new.safetensors"
    text = CARD.model_copy(update={"backbone": "convnext"}).model_dump_json()
    save_file({"a": torch.zeros(1)}, path, {"cellseg": text})
    with pytest.raises(WeightsError, match="backbone 'convnext' is unknown"):
        read_model(path)
    with pytest.raises(ValueError, match="no backbone 'convnext'; known: resnet50"):
        Architecture(backbone="convnext")


def test_imagenet_weights_know_a_cat():
    """The package's classifier on these features: wrong padding or a wrong order would not."""
    pytest.importorskip(backbones.IMAGENET_PACKAGE)
    body = with_pyramid("efficientnet_lite0", 8, nn.BatchNorm2d).body
    load_imagenet(body)
    path = backbones.files(backbones.IMAGENET_PACKAGE) / "models" / backbones.IMAGENET_FILE
    given = torch.load(str(path), weights_only=True)
    image = torch.from_numpy(cat().copy()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        head = F.conv2d(body.eval()((image - 0.5) / 0.5)["3"], given["_conv_head.weight"])
        norm = [given[f"_bn1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        head = F.relu6(F.batch_norm(head, *norm, eps=LITE0_EPS)).mean((2, 3))
        logits = F.linear(head, given["_fc.weight"], given["_fc.bias"])
    # 281 to 285 of ImageNet's classes are cats.
    assert 281 <= int(logits.argmax()) <= 285


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, backbones.IMAGENET_PACKAGE, None)
    with pytest.raises(WeightsError, match=r"cellseg-slides\[train\]"):
        load_imagenet(nn.Identity())


def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path):
    folder = tmp_path / backbones.IMAGENET_PACKAGE / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / backbones.IMAGENET_FILE).write_bytes(b"no weights")
    monkeypatch.delitem(sys.modules, backbones.IMAGENET_PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="its checksum differs"):
        load_imagenet(nn.Identity())


def limit(monkeypatch, **values):
    """Let fewer samples carry a loss."""
    for name, value in values.items():
        monkeypatch.setattr(maskrcnn, name.upper(), value)


@pytest.mark.parametrize("chosen", [Architecture(mask=16, box=64), SMALL], ids=lambda a: a.backbone)
def test_ignored_regions_and_boxes_alone_teach_what_they_can(monkeypatch, chosen):
    """Nothing is learned from an ignored region, and no outline from a box."""
    torch.manual_seed(0)
    limit(monkeypatch, proposals=40, box_samples=32, mask_samples=8)
    model = build_maskrcnn(1, architecture=chosen).train()
    images = [torch.rand(3, 96, 96)]
    masks = torch.zeros(1, 96, 96, dtype=torch.uint8)
    masks[0, 10:40, 10:40] = 1
    target = {
        "boxes": torch.tensor([[10.0, 10, 40, 40]]), "masks": masks, "labels": torch.tensor([1]),
        "outlined": torch.tensor([False]), "ignored": torch.zeros(96, 96, dtype=torch.uint8),
    }  # fmt: skip

    def losses(target):
        return {name: float(loss.detach()) for name, loss in model(images, [target]).items()}

    box = losses(target)
    assert box["loss_mask"] == 0
    assert box["loss_box_reg"] > 0
    assert losses(target | {"outlined": torch.tensor([True])})["loss_mask"] > 0

    none = {"boxes": torch.zeros(0, 4), "masks": masks[:0], "labels": torch.zeros(0).long()}
    every = torch.ones(96, 96, dtype=torch.uint8)
    found = losses(none | {"ignored": every})
    assert np.nan_to_num(found["loss_objectness"]) == np.nan_to_num(found["loss_classifier"]) == 0
    assert losses(none | {"ignored": 0 * every})["loss_objectness"] > 0


HEADS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_maskrcnn(2).eval()


def test_names_and_shapes_are_torchvisions(model):
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    ours = model.state_dict()
    assert ours.keys() == theirs.keys()
    different = {key for key in ours if ours[key].shape != theirs[key].shape}
    assert different
    assert all(key.startswith(HEADS) for key in different)


@pytest.mark.parametrize("side", [7, 14])
def test_samples_and_their_gradients_are_torchvisions(side):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    features = {str(k): random(3, 8, 64 >> k, 64 >> k).requires_grad_() for k in range(4)}
    boxes = []
    for count in (20, 0, 33):
        middles, sides = 128 + 60 * random(count, 2), torch.exp(4.8 + random(count, 2))
        boxes.append(torch.cat([middles - sides / 2, middles + sides / 2], 1))
    levels = list(features.values())
    theirs = MultiScaleRoIAlign(list(features), side, 1)(features, boxes, [(256, 256)] * 3)
    ours = SparsePool.apply(boxes, side, *levels)
    torch.testing.assert_close(ours, theirs)
    weights = random(*ours.shape)
    of_ours, of_theirs = (torch.autograd.grad(one, levels, weights) for one in (ours, theirs))
    assert all(bool(one.any()) for one in of_theirs)
    for a, b in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    half = SparsePool.apply(boxes, side, *(level.bfloat16() for level in levels))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, theirs, rtol=0.02, atol=0.02)
    (gradient, *_) = torch.autograd.grad(half, levels, weights)
    torch.testing.assert_close(gradient, of_theirs[0], rtol=0.05, atol=0.1)
    none = SparsePool.apply([torch.zeros(0, 4)] * 3, side, *levels)
    assert none.shape == (0, 8, side, side)
    assert not any(bool(one.any()) for one in torch.autograd.grad(none, levels, none))


def test_anchors_cover_cells(model):
    batch, _ = model.transform([torch.zeros(3, 96, 64)])
    features = list(model.backbone(batch.tensors).values())
    (anchors,) = model.rpn.anchor_generator(batch, features)
    areas = ((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])).sqrt()
    assert areas.min() < 9
    assert 120 < areas.max() < 140
    # Three ratios on each level, of an image that was not resized.
    assert batch.image_sizes == [(96, 64)]
    assert len(anchors) == 3 * (24 * 16 + 12 * 8 + 6 * 4 + 3 * 2 + 2 * 1)


@pytest.mark.parametrize(("side", "detections"), [(64, 100), (1024, 10_485), (2048, 41_943)])
def test_limits_follow_the_area(side, detections):
    limits = Limits.for_area(side * side)
    assert limits.detections == detections
    assert limits.proposals >= detections
    assert limits.pre_nms >= 4 * detections


def select(model, logits, boxes, wanted):
    """Boxes and class logits straight into the heads' choice (no regression)."""
    regression = torch.zeros(len(boxes), 4 * logits.shape[1])
    return model.roi_heads.select(logits, regression, boxes, (96, 96), wanted)


def test_suppression_ignores_the_class(model):
    boxes = torch.tensor([[10.0, 10, 40, 40], [11, 11, 41, 41], [60, 60, 80, 80]])
    logits = torch.tensor([[0.0, 4, 0], [0, 0, 5], [0, 3, 0]])
    result = select(model, logits, boxes, Wanted(0.3))
    assert result["classes"].tolist() == [1, 0]
    assert result["boxes"][:, 0].tolist() == [11, 60]
    assert not result["is_full"]


def test_a_full_list_is_said(model):
    places = torch.arange(0, 24.0)
    boxes = torch.cartesian_prod(places, places) * 4
    boxes = torch.cat([boxes, boxes + 3], 1)
    result = select(model, torch.tensor([[0.0, 4, 0]]).expand(len(boxes), 3), boxes, Wanted(0.1))
    assert len(result["boxes"]) == Limits.for_area(96 * 96).detections
    assert result["is_full"]


def spied(heads, request):
    """Sizes of what goes through the mask branch: (boxes, samples along a side)."""
    seen = []
    hook = heads.mask_head.register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0].shape[0], inputs[0].shape[3]))
    )
    request.addfinalizer(hook.remove)
    return seen


@pytest.mark.parametrize(("score", "least"), [(0.0, 1), (1.0, 0)])
def test_mask_branch_sees_only_what_is_kept(model, request, score, least):
    seen = spied(model.roi_heads, request)
    wanted = Wanted(score, 0.9, fine_from_px=float("inf"))
    result = find_in(model, torch.rand(1, 3, 64, 64), wanted)
    assert result.proposals > len(result.boxes) >= least
    assert seen == [(len(result.boxes), 14)] * least
    assert result.masks.shape == (len(result.boxes), 28, 28)
    assert result.again.shape == (0, 56, 56)


def test_large_boxes_are_looked_at_twice(request, monkeypatch):
    monkeypatch.setattr(roi_heads, "MASKS_AT_ONCE", 4)
    torch.manual_seed(0)
    model = build_maskrcnn(2, architecture=SMALL).eval()
    heads = model.roi_heads
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[1, :, 64:] = 0
    found = [find_in(model, one[None], Wanted(0.0, 0.9)) for one in images]
    limit = float(np.median(np.concatenate([sides(one.boxes) for one in found])))
    seen = spied(heads, request)
    wanted = Wanted(0.0, 0.9, fine_from_px=limit)
    results = [find_in(model, one[None], wanted) for one in images]
    assert max(boxes for boxes, _ in seen) == 4
    assert {samples for _, samples in seen} == {14, 28}
    # What the second look says alone, from the pool and the branch themselves.
    features = model.backbone(model.transform(list(images))[0].tensors)
    for index, result in enumerate(results):
        large = np.flatnonzero(sides(result.boxes) >= limit)
        assert 0 < len(large) < len(result.boxes)
        assert result.fine.tolist() == large.tolist()
        boxes = [torch.zeros(0, 4), torch.zeros(0, 4)]
        boxes[index] = torch.from_numpy(result.boxes[large])
        pooled = heads.fine_roi_pool(features, boxes, [(96, 96)] * 2)
        second = heads.mask_predictor(heads.mask_head(pooled)).sigmoid()
        second = second[torch.arange(len(large)), 1 + result.classes[large]].detach().numpy()
        np.testing.assert_allclose(result.again, second, atol=2e-3, rtol=1e-2)


def test_filled_up_batches_of_a_gpu_change_no_mask(model, request, monkeypatch):
    assert roi_heads.filled_up(torch.zeros(3, 2, 5, 5, device="meta"), 7).shape == (7, 2, 5, 5)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = find_in(model, image, Wanted(0.0, 0.9))

    def always(samples, number):
        return F.pad(samples, (0,) * 7 + (number - len(samples),))

    monkeypatch.setattr(roi_heads, "filled_up", always)
    seen = spied(model.roi_heads, request)
    filled = find_in(model, image, Wanted(0.0, 0.9))
    assert {boxes for boxes, _ in seen} == {roi_heads.MASKS_AT_ONCE}
    np.testing.assert_allclose(filled.masks, alone.masks, atol=1e-5)


def sides(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).max(1)


def output(masks, **fields):
    count = len(masks)
    return NetworkOutput(
        **{
            "masks": masks, "boxes": np.zeros((count, 4), np.float32), "proposals": count,
            "scores": np.linspace(0.9, 0.8, count, dtype=np.float32), "is_full": False,
            "classes": np.zeros(count, np.int64), **fields,
        },
    )  # fmt: skip


def test_both_looks_count_where_the_first_mask_is_in_doubt():
    rng = np.random.default_rng(0)
    masks, again = rng.random((3, 28, 28), np.float32), rng.random((2, 56, 56), np.float32)
    first = torch.nn.functional.interpolate(
        torch.from_numpy(masks[[2, 0]])[:, None], (56, 56), mode="bilinear", align_corners=False
    )[:, 0].numpy()
    doubt = (first > DOUBT[0]) & (first < DOUBT[1])
    assert doubt.any()
    assert not doubt.all()
    found = fine_masks(output(masks, fine=np.array([2, 0]), again=again))
    np.testing.assert_allclose(found, np.where(doubt, (first + again) / 2, first), atol=1e-5)


def test_a_fine_mask_takes_the_place_of_its_own_box():
    masks = np.zeros((3, 28, 28), np.float32)
    masks[:, 4:24, 4:24] = 1
    masks[1] = 0.5
    again = np.zeros((1, 56, 56), np.float32)
    again[:, :28] = 1
    boxes = np.array([[0, 0, 28, 28], [40, 40, 96, 96], [100, 0, 128, 28]], np.float32)
    result = output(masks, boxes=boxes, fine=np.array([1]), again=again)
    found = to_detections(result, (128, 128), Limits.for_area(128 * 128)).instances
    assert found.masks[0].shape == found.masks[2].shape
    assert found.masks[0].shape == pytest.approx((20, 20), abs=1)
    assert found.boxes[1].tolist() == pytest.approx([40, 40, 68, 96], abs=1)


def test_mask_samples_bound_the_training(monkeypatch, request):
    limit(monkeypatch, proposals=60, box_samples=32, mask_samples=4)
    model = build_maskrcnn(1).train()
    seen = spied(model.roi_heads, request)
    places = [(y, x) for y in (4, 26, 48) for x in (4, 26, 48, 70)]
    masks = torch.zeros((len(places), 96, 96), dtype=torch.uint8)
    for mask, (y, x) in zip(masks, places, strict=True):
        mask[y : y + 16, x : x + 16] = 1
    boxes = torch.tensor([[x, y, x + 16, y + 16] for y, x in places], dtype=torch.float32)
    target = {"boxes": boxes, "labels": torch.ones(len(places)).long(), "masks": masks}
    with torch.no_grad():
        losses = model([torch.rand(3, 96, 96)] * 2, [target, target])
    assert set(losses) == {
        "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    # Twelve annotated boxes are positives each; two masks an image are trained.
    assert seen == [(4, 14)]
