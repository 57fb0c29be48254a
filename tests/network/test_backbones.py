"""Backbones by name: strides, padding, weights, and a file that says which network it is."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import cat
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from cellseg.errors import WeightsError
from cellseg.network import backbones
from cellseg.network.architecture import BACKBONES, LITE0_EPS, SMALL, Architecture
from cellseg.network.backbones import load_imagenet, with_pyramid
from cellseg.network.maskrcnn import TrainingLimits, build_maskrcnn
from cellseg.network.modelfile import ModelCard
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
    with torch.random.fork_rng():
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


@pytest.mark.parametrize("chosen", [Architecture(mask=16, box=64), SMALL], ids=lambda a: a.backbone)
def test_ignored_regions_and_boxes_alone_teach_what_they_can(chosen):
    """Nothing is learned from an ignored region, and no outline from a box."""
    torch.manual_seed(0)
    limits = TrainingLimits(proposals=40, box_samples=32, mask_samples=8)
    model = build_maskrcnn(1, architecture=chosen, training=limits).train()
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
