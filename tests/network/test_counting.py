"""The network made ready for counting computes the same, faster; masks are pasted together."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from networks import random_network
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, roi_align

from cellseg.network.architecture import SMALL, Architecture
from cellseg.network.detect import MaskRCNNDetector
from cellseg.network.detector import DetectorInfo
from cellseg.network.inference import Wanted
from cellseg.network.maskrcnn import forward_batch
from cellseg.network.paste import paste_all
from cellseg.network.torch_inference import TorchInference, best_precision, fold_norms, make_ready

INFO = DetectorInfo(name="random", checksum="", classes=("cell",), object="cell")
SHAPES = (Architecture(mask=16), SMALL)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.backbone)
def test_folded_norms_compute_the_same(image, shape):
    plain, folded = random_network(shape), random_network(shape)
    fold_norms(folded.backbone)
    assert any(isinstance(m, FrozenBatchNorm2d) for m in plain.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in folded.modules())
    with torch.inference_mode():
        levels = zip(plain.backbone(image).values(), folded.backbone(image).values(), strict=True)
        for a, b in levels:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))
    # The original is left as it was.
    assert next(m for m in plain.modules() if isinstance(m, nn.Conv2d)).bias is None


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.backbone)
def test_ready_for_counting_it_finds_the_same(image, shape):
    plain, ready = random_network(shape), make_ready(make_ready(random_network(shape)))
    first, second = (forward_batch(model, image, Wanted(0.1))[0] for model in (plain, ready))
    assert len(first.boxes) == len(second.boxes) > 10
    np.testing.assert_allclose(first.boxes, second.boxes, atol=0.05)
    np.testing.assert_allclose(first.masks, second.masks, atol=0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.backbone)
def test_in_half_precision_boxes_stay_exact(image, shape):
    model = make_ready(random_network(shape), "bfloat16")
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    with torch.inference_mode():
        features = model.backbone(image.bfloat16())
        assert {level.dtype for level in features.values()} == {torch.bfloat16}
        from torchvision.models.detection.image_list import ImageList

        boxes, _ = model.rpn(ImageList(image, [(128, 96)]), features)
    assert boxes[0].dtype == torch.float32
    exact = boxes[0][:, 0]
    assert bool((exact != exact.bfloat16().float()).any()), "bfloat16 would have rounded them"
    result = forward_batch(model, image, Wanted(0.1))[0]
    assert result.masks.dtype == result.scores.dtype == np.float32
    assert len(result.boxes) > 5


def test_precision_follows_the_device(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert best_precision(torch.device("cpu")) == "float32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert best_precision(torch.device("cpu")) == "bfloat16"
    assert best_precision(torch.device("mps")) == "float32"


def test_two_threads_find_what_one_finds():
    detector = MaskRCNNDetector(TorchInference(make_ready(random_network())), INFO, score=0.1)
    rng = np.random.default_rng(3)
    tiles = [rng.random((64, 64 + 32 * k, 3), np.float32) for k in range(4)]
    alone = [detector.detect([tile], fill=1.0)[0].instances.to_bytes() for tile in tiles]
    found = {}

    def work(numbers):
        for number in numbers:
            found[number] = detector.detect([tiles[number]], fill=1.0)[0].instances.to_bytes()

    threads = [threading.Thread(target=work, args=(part,)) for part in ((0, 1), (2, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == alone


# Pasting


def drawn(mask, box):
    """The mask branch's target for a mask of the whole image, as training draws it."""
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    place = torch.tensor([[0, *box]], dtype=torch.float32)
    return roi_align(pixels, place, 28, 1.0)[0]


def one(probabilities, box, extent):
    return paste_all(np.asarray(probabilities), np.array([box], np.float32), extent)[0]


@pytest.mark.parametrize("box", [(10, 12, 30, 40), (10.3, 12.7, 31.6, 39.2), (9.5, 11.5, 31, 41)])
def test_what_was_drawn_is_pasted_where_it_was(box):
    y, x = np.mgrid[:64, :64]
    mask = ((x - 20) / 9) ** 2 + ((y - 26) / 13) ** 2 < 1
    place, found = one(drawn(mask, box), box, (64, 64))
    whole = np.zeros_like(mask)
    whole[place.y0 : place.y1, place.x0 : place.x1] = found
    # Within a pixel of the border, and of the same area.
    assert np.count_nonzero(whole ^ mask) <= 0.06 * mask.sum()
    assert whole.sum() == pytest.approx(mask.sum(), rel=0.03)
    assert found.any(0).all()
    assert found.any(1).all()


def test_pasting_ends_at_the_image():
    full = torch.ones(1, 28, 28)
    place, mask = one(full, (-5, -7, 20, 20), (64, 48))
    assert (place.y0, place.x0, place.y1, place.x1) == (0, 0, 20, 20)
    assert mask.all()
    place, _ = one(full, (30, 50, 60, 90), (64, 48))
    assert (place.y1, place.x1) == (64, 48)
    assert one(full, (50, 70, 60, 90), (64, 48)) is None
    assert one(torch.zeros(1, 28, 28), (5, 5, 20, 20), (64, 48)) is None
    assert paste_all(np.zeros((0, 28, 28)), np.zeros((0, 4)), (8, 8)) == []


def test_together_is_as_one_by_one():
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(0, 300, (60, 2)), rng.uniform(3, 150, (60, 2))
    boxes = np.hstack([centres - sides / 2, centres + sides / 2]).astype(np.float32)
    probabilities = rng.random((60, 28, 28), np.float32)
    together = paste_all(probabilities, boxes, (280, 310))
    assert len(together) == 60
    for index, found in enumerate(together):
        alone = one(probabilities[index : index + 1], boxes[index].tolist(), (280, 310))
        if alone is None:
            assert found is None
            continue
        assert found[0] == alone[0]
        assert np.count_nonzero(found[1] ^ alone[1]) <= 1
