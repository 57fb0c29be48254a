"""The network made ready for counting computes the same, faster: in torch and in OpenVINO."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import dark_discs, random_network
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign, nms, roi_align

from cellseg.errors import CellsegError, SettingsError, WeightsError
from cellseg.geometry import Box
from cellseg.network import detect
from cellseg.network.architecture import SMALL, Architecture
from cellseg.network.boxes import mean_samples, sampled, unsuppressed
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.network.detector import DetectorInfo
from cellseg.network.inference import Inference, Wanted
from cellseg.network.maskrcnn import find_in
from cellseg.network.modelfile import ModelCard, read_arrays
from cellseg.network.paste import paste_all
from cellseg.network.ranges import input_ranges
from cellseg.network.timer import Timer
from cellseg.network.torch_inference import TorchInference, best_precision, fold_norms, make_ready
from cellseg.network.weights import load_model, save_model
from cellseg.protocol import load_protocol

INFO = DetectorInfo(name="random", checksum="", classes=("cell",), object="cell")
SHAPES = pytest.mark.parametrize(
    "shape", [Architecture(mask=16), SMALL], ids=lambda shape: shape.backbone
)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(1))


@SHAPES
def test_folded_norms_compute_the_same(image, shape):
    plain, folded = random_network(shape), random_network(shape)
    fold_norms(folded.backbone)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in folded.modules())
    with torch.inference_mode():
        levels = zip(plain.backbone(image).values(), folded.backbone(image).values(), strict=True)
        for a, b in levels:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@SHAPES
def test_ready_for_counting_it_finds_the_same(image, shape):
    plain, ready = random_network(shape), make_ready(make_ready(random_network(shape)))
    first, second = (find_in(model, image, Wanted(0.1)) for model in (plain, ready))
    assert len(first.boxes) == len(second.boxes) > 10
    np.testing.assert_allclose(first.boxes, second.boxes, atol=0.05)
    np.testing.assert_allclose(first.masks, second.masks, atol=0.01)


@SHAPES
def test_in_half_precision_boxes_stay_exact(image, shape):
    model = make_ready(random_network(shape), "bfloat16")
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    with torch.inference_mode():
        features = model.backbone(image.bfloat16())
        assert {level.dtype for level in features.values()} == {torch.bfloat16}
        boxes, _ = model.rpn(ImageList(image, [(128, 96)]), features)
    assert boxes[0].dtype == torch.float32
    exact = boxes[0][:, 0]
    assert bool((exact != exact.bfloat16().float()).any()), "bfloat16 would have rounded them"
    result = find_in(model, image, Wanted(0.1))
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

    def find(tile):
        return detector.detect(tile, fill=1.0).instances.to_bytes()

    alone = [find(tile) for tile in tiles]
    threads = set()
    detector.network.model.backbone.register_forward_hook(
        lambda *_: threads.add(threading.get_ident())
    )
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(find, tiles)) == alone
    assert len(threads) == 1, "each new thread costs a GPU seconds"


def test_sides_that_a_gpu_wants_change_no_count():
    detector = load_detector(device="cpu", inference="torch", precision="float32").for_run(
        load_protocol("he")
    )
    tile = dark_discs()[:250, :190]
    plain = detector.detect(tile, fill=1.0).instances
    network = SimpleNamespace(**vars(detector.network), stride_px=512)
    network.find = detector.network.find
    detector.network = network
    wide = detector.detect(tile, fill=1.0).instances
    assert len(plain) == len(wide) > 8
    assert np.abs(plain.boxes[:, None] - wide.boxes).max(2).min(1).max() <= 1


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


CARD = ModelCard(name="small", classes=("nucleus",), types=("a", "b"), types_from="drawings")
TYPED = Architecture(backbone="efficientnet_lite0", pyramid=24, mask=16, box=32, types=2)


@pytest.fixture(autouse=True)
def adding_exactly(monkeypatch):
    """Tests are of 8 bits, whether or not this processor would be trusted with them."""
    if find_spec("openvino"):
        from cellseg.network import openvino_inference

        monkeypatch.setattr(openvino_inference, "adds_exactly", lambda: True)


def saved(path, *, card=CARD, ranges=None, architecture=TYPED, quantise=True):
    """A model file of random weights."""
    state = random_network(architecture).state_dict()
    save_model(path, state, card, quantise=quantise, ranges=ranges)
    return path


def images():
    return np.random.default_rng(3).random((2, 160, 96, 3), np.float32)


def test_suppression_is_torchvisions():
    rng = np.random.default_rng(0)
    for overlap in (0.2, 0.5, 0.7):
        centres, sides = rng.uniform(0, 200, (900, 2)), np.exp(rng.uniform(1, 3.5, (900, 2)))
        boxes = np.hstack([centres - sides / 2, centres + sides / 2]).astype(np.float32)
        boxes[5] = (0, 0, 400, 400)
        boxes[6] = boxes[7] = (0, 0, 0, 0)
        expected = nms(torch.from_numpy(boxes), torch.linspace(1, 0, len(boxes)), overlap)
        assert unsuppressed(boxes, overlap).tolist() == expected.tolist()
    assert unsuppressed(boxes[:0], 0.5).tolist() == []


def test_samples_are_those_of_torchvision():
    rng = np.random.default_rng(1)
    levels = [rng.random((40 >> k, 32 >> k, 6), np.float32) for k in range(4)]
    tensors = {str(k): torch.from_numpy(one).permute(2, 0, 1)[None] for k, one in enumerate(levels)}
    corners = np.sort(rng.uniform(-5, 165, (60, 2, 2)), axis=1).reshape(60, 4).astype(np.float32)
    boxes = np.vstack([corners, [[-300, -300, 400, 400], [5, 5, 5, 5]]]).astype(np.float32)
    pool = MultiScaleRoIAlign(list("0123"), 7, 1)
    expected = pool(tensors, [torch.from_numpy(boxes)], [(160, 128)]).permute(0, 2, 3, 1)
    np.testing.assert_allclose(sampled(levels, boxes, 7), expected, atol=1e-4)
    means = [
        roi_align(tensors[str(k)], [torch.from_numpy(boxes)], 3, 1 / (4 << k), 2).mean((2, 3))
        for k in range(3)
    ]
    np.testing.assert_allclose(mean_samples(levels[:3], boxes, 6), torch.cat(means, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "quantise"),
    [({"quality": 8}, True), ({"types": 0}, False), ({"quality": 8}, False)],
    ids=["8 bits", "plain", "quality"],
)
def test_in_float32_it_finds_what_torch_finds(tmp_path, monkeypatch, changes, quantise):
    openvino = pytest.importorskip("cellseg.network.openvino_inference")
    shape = Architecture(**{**vars(TYPED), **changes})
    card = CARD if shape.types else CARD.model_copy(update={"types": ()})
    path = saved(tmp_path / "m.safetensors", card=card, architecture=shape, quantise=quantise)
    wanted = Wanted(0.1, 0.9, types=True, fine_from_px=14.0)
    model = make_ready(load_model(path)[0])
    monkeypatch.setattr("cellseg.network.graphs.LEVEL_TYPE", "f32")
    networks = (
        TorchInference(model),
        openvino.OpenVinoInference(read_arrays(path)[0], "m", "float32"),
    )
    for image in images():
        reference, ours = (network.find(image, wanted, Timer()) for network in networks)
        assert len(reference.boxes) == len(ours.boxes) > 10
        assert reference.proposals == ours.proposals
        assert reference.is_full == ours.is_full
        # Equal scores may change places.
        far = np.abs(ours.boxes[:, None] - reference.boxes).max(2)
        order = far.argmin(0)
        assert far.min(0).max() < 0.05
        assert len(set(order)) == len(order)
        np.testing.assert_allclose(ours.scores, reference.scores, atol=1e-3)
        np.testing.assert_allclose(ours.masks[order], reference.masks, atol=0.01)
        assert set(ours.fine) == set(order[reference.fine])
        assert len(reference.fine)
        fine = np.searchsorted(ours.fine, order[reference.fine])
        np.testing.assert_allclose(ours.again[fine], reference.again, atol=0.01)
        if shape.types:
            np.testing.assert_allclose(ours.types[order], reference.types, atol=1e-3)
            assert np.abs(reference.likeness).max() > 0.1
            np.testing.assert_allclose(ours.likeness[order], reference.likeness, atol=1e-3)
        else:
            assert ours.types is reference.types is ours.likeness is reference.likeness is None


def test_what_does_not_meet_the_part_that_counts_is_left_out(tmp_path):
    openvino = pytest.importorskip("cellseg.network.openvino_inference")
    path = saved(tmp_path / "m.safetensors", card=CARD, architecture=TYPED, quantise=True)
    networks = (
        TorchInference(make_ready(load_model(path)[0])),
        openvino.OpenVinoInference(read_arrays(path)[0], "m", "float32"),
    )
    image = images()[0]
    wanted = Wanted(0.1, 0.9, types=True, fine_from_px=14.0)
    for network in networks:
        whole = network.find(image, wanted, Timer())
        x0, y0, x1, y1 = whole.boxes[0].astype(int).tolist()
        part = Box(y0 + 1, x0 + 1, y1, x1)
        found = network.find(image, replace(wanted, near=part), Timer())
        pasted = paste_all(whole.masks, whole.boxes, image.shape[:2])
        touching = [one is not None and one[0].intersects(part) for one in pasted]
        kept = [int(np.abs(found.boxes - box).max(1).argmin()) for box in whole.boxes[touching]]
        np.testing.assert_array_equal(found.boxes[kept], whole.boxes[touching])
        np.testing.assert_allclose(found.masks[kept], whole.masks[touching], atol=1e-5)
        np.testing.assert_allclose(found.types[kept], whole.types[touching], atol=1e-5)
        assert 0 < sum(touching) <= len(found.boxes) < len(whole.boxes) - 5


def test_too_little_memory_is_told_by_the_tile_that_lacks_it():
    class Full(Inference):
        def get_ready(self, extent):
            raise RuntimeError("std::bad_alloc")

        def find(self, *_):
            raise RuntimeError("std::bad_alloc")

    info = DetectorInfo(name="m", checksum="0", classes=("nucleus",), object="nucleus")
    detector = MaskRCNNDetector(Full(), info)
    detector.get_ready((64, 64))
    with pytest.raises(CellsegError, match="out of memory") as caught:
        detector.detect(np.ones((64, 64, 3), np.float32), fill=1.0)
    assert caught.value.hint == "tile"


def test_a_score_is_a_mean_of_the_networks_own_and_of_the_masks_quality():
    shape = Architecture(mask=16, quality=8)
    model, image = random_network(shape), torch.from_numpy(images()[:1]).permute(0, 3, 1, 2)
    head = model.roi_heads.quality_head
    model.roi_heads.quality_head = None
    plain = find_in(model, image, Wanted(0.01, 0.9))
    model.roi_heads.quality_head = head
    judged = find_in(model, image, Wanted(0.1, 0.9))
    assert len(plain.boxes) == len(judged.boxes) > 10
    assert (np.diff(judged.scores) <= 0).all()
    order = np.abs(plain.boxes[:, None] - judged.boxes).max(2).argmin(0)
    quality = judged.scores**3 / plain.scores[order]
    assert 0 < quality.min() < quality.max() < 1
    np.testing.assert_allclose(judged.masks, plain.masks[order], atol=1e-4)
    # At a higher score the same ones are left.
    limit = float(np.median(judged.scores))
    fewer = find_in(model, image, Wanted(limit, 0.9))
    assert fewer.scores.tolist() == judged.scores[judged.scores > limit].tolist()
    with torch.no_grad():
        head.logits.bias.fill_(50.0)
    best = find_in(model, image, Wanted(0.1, 0.9))
    np.testing.assert_allclose(best.scores**2, plain.scores, rtol=1e-4)
    with torch.no_grad():
        head.logits.bias.fill_(-50.0)
    assert len(find_in(model, image, Wanted(0.1, 0.9)).boxes) == 0


def test_the_shipped_model_counts_in_8_bits_what_it_counts_in_torch():
    pytest.importorskip("openvino")
    eight = load_detector(device="cpu")
    assert (eight.info.inference, eight.info.device) == ("openvino", "cpu, int8")
    assert eight.info.notes == ()
    reference = load_detector(device="cpu", inference="torch")
    assert reference.info.inference == "torch"
    # The same size often enough to get a graph of its own, then another one.
    for tile in (*[dark_discs()] * 5, dark_discs()[:250, :190]):
        ours, theirs = (one.detect(tile, fill=1.0).instances for one in (eight, reference))
        assert len(ours) == len(theirs) > 8
        assert np.abs(np.sort(ours.boxes[:, 0]) - np.sort(theirs.boxes[:, 0])).max() <= 2
    empty = np.ones((64, 64, 3), np.float32)
    assert len(eight.detect(empty, fill=1.0).instances) == 0


def test_images_in_openvino_side_by_side(tmp_path, monkeypatch):
    openvino = pytest.importorskip("cellseg.network.openvino_inference")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(openvino, "cores", lambda: 8)
    monkeypatch.setattr(openvino, "OWN_FROM_PX", 96 * 96)
    path = saved(tmp_path / "m.safetensors", card=CARD, architecture=TYPED, quantise=True)
    network = openvino.OpenVinoInference(read_arrays(path)[0], "m", "float32")
    assert 1 <= network.threads <= openvino.MOST_AT_ONCE
    rng = np.random.default_rng(0)
    tiles = [rng.random((96, 64 + 32 * (k // 2 % 3), 3), np.float32) for k in range(12)]

    def find(tile):
        found = network.find(tile, Wanted(0.1, 0.9, fine_from_px=14.0), Timer())
        return found.scores, found.masks, found.again

    alone = [find(tile) for tile in tiles]
    assert min(len(scores) for scores, *_ in alone) > 5
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            for expected, found in zip(alone, pool.map(find, tiles), strict=True):
                for one, other in zip(expected, found, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-5)
        network.free_memory()


def test_ranges_hold_what_a_layer_sees(tmp_path):
    model, _ = load_model(saved(tmp_path / "m.safetensors"))
    batch = torch.from_numpy(images()).permute(0, 3, 1, 2)
    ranges = input_ranges(model, batch)
    weights = {key for key, array in model.state_dict().items() if array.ndim >= 2}
    assert set(ranges) == weights
    low, high = ranges["backbone.body.stem.1.0.weight"]
    assert -1 <= low == -high
    assert 0.9 <= high <= 1
    assert ranges["backbone.body.layer1.0.1.0.weight"][0] == 0
    path = saved(tmp_path / "n.safetensors", ranges=ranges)
    assert read_arrays(path)[0]["roi_heads.mask_head.1.0.weight.range"].shape == (2,)


@pytest.mark.parametrize("ends", [(1.0, 2.0), (0.0, 0.0), (-1.0, 0.0, 1.0), (0.0, float("inf"))])
def test_a_range_that_makes_no_sense(tmp_path, ends):
    path = saved(tmp_path / "m.safetensors", ranges={"rpn.head.cls_logits.weight": ends})
    with pytest.raises(WeightsError, match=r"cls_logits\.weight\.range is no range|not finite"):
        read_arrays(path)


RANGES = {"rpn.head.conv.0.0.weight": (-1.0, 1.0)}


def test_where_openvino_is_no_choice(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    drawn = saved(tmp_path / "drawn.safetensors", ranges=RANGES)
    card, shape = CARD.model_copy(update={"types": ()}), Architecture(pyramid=16, mask=8, box=8)
    other = saved(tmp_path / "other.safetensors", card=card, architecture=shape)
    info = load_detector(other, device="cpu").info
    assert (info.inference, info.notes) == ("torch", ())
    with pytest.raises(SettingsError, match="resnet50 is not drawn for it") as caught:
        load_detector(other, device="cpu", inference="openvino")
    assert caught.value.hint == "inference"
    with pytest.raises(SettingsError, match="only torch computes in float16"):
        load_detector(drawn, precision="float16", inference="openvino")
    with pytest.raises(SettingsError, match="not on cuda"):
        load_detector(drawn, device="cuda", inference="openvino")
    for precision in ("float32", "bfloat16"):
        info = load_detector(drawn, device="cpu", precision=precision).info
        assert (info.inference, info.device, info.notes) == ("openvino", f"cpu, {precision}", ())
    monkeypatch.setattr(detect, "find_spec", lambda name: None)
    assert load_detector(drawn, device="cpu").info.notes == ()
    with pytest.raises(SettingsError, match="not installed"):
        load_detector(drawn, device="cpu", inference="openvino")


def test_on_a_processor_that_is_no_x86(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    path = saved(tmp_path / "m.safetensors", ranges=RANGES)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    info = load_detector(path, device="cpu").info
    assert info.inference == "torch"
    (note,) = info.notes
    assert "this one is arm64" in note


def test_openvino_without_8_bits(tmp_path):
    pytest.importorskip("openvino")
    path = saved(tmp_path / "m.safetensors", quantise=False)
    ours = load_detector(path, device="cpu", score=0.1)
    assert ours.info.inference == "openvino"
    assert ours.info.device in ("cpu, float32", "cpu, bfloat16")
    assert ours.info.notes == ()
    theirs = load_detector(path, device="cpu", score=0.1, inference="torch")
    counts = [len(one.detect(dark_discs(), fill=1.0).instances) for one in (ours, theirs)]
    assert abs(counts[0] - counts[1]) <= 0.1 * counts[1] > 0


PAIRS = """
import sys
import numpy
from cellseg.network import openvino_inference as one
from cellseg.network.modelfile import read_arrays
is_exact = sys.argv[1] == "exact"
one.adds_exactly = lambda: is_exact
network = one.OpenVinoInference(read_arrays("default")[0], "default")
image = numpy.random.default_rng(0).random((256, 256, 3), numpy.float32)
seen = network._dense_for((256, 256)).graph(image[None])
logits, _ = network._boxes({}, list(seen[at][0] for at in range(4)), numpy.array([[9, 9, 40, 40]]))
numpy.savez(sys.argv[2], scores=seen[4], logits=logits)
print(network.label)
"""


def seen_by(path, weights, isa):
    """What a process with another set of instructions says of noise, and how it computes."""
    limit = {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
    ended = subprocess.run(
        [sys.executable, "-c", PAIRS, weights, str(path)],
        capture_output=True, text=True, check=True, env={**os.environ, **limit},
    )  # fmt: skip
    found = np.load(path)
    return found["scores"], found["logits"], ended.stdout.strip()


def test_without_vnni_no_sum_of_products_overflows(tmp_path):
    """Weights for pairs give what a processor with exact sums gives; others do not."""
    pytest.importorskip("openvino")
    pairs, limited, whole = (
        seen_by(tmp_path / f"{weights}{isa}.npz", weights, isa)
        for weights, isa in (("pairs", None), ("pairs", "AVX2"), ("exact", "AVX2"))
    )
    assert pairs[2] == limited[2] == "cpu, int8, no VNNI"
    assert whole[2] == "cpu, int8"
    for at in range(2):
        np.testing.assert_allclose(limited[at], pairs[at], atol=1e-3)
    assert np.abs(whole[0] - pairs[0]).max() > 0.5


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", None])
def test_whether_the_processor_adds_exactly(monkeypatch, isa):
    """Of a processor's own instructions, and without those that add in 32 bits."""
    pytest.importorskip("openvino")
    if isa:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    program = """
import numpy._core._multiarray_umath as numpy
from cellseg.network.openvino_inference import adds_exactly
print(numpy.__cpu_features__["AVX2"], numpy.__cpu_features__["AVX512_ICL"], adds_exactly())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    has_avx2, has_vnni, is_exact = (word == "True" for word in ended.stdout.split())
    if isa and has_avx2:
        assert not is_exact
    elif has_vnni:
        assert is_exact


@pytest.mark.parametrize(("memory", "side"), [(16e9, 2048), (4e9, 1024)])
def test_little_memory_halves_the_tile_and_says_so(tmp_path, monkeypatch, memory, side):
    pytest.importorskip("openvino")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=memory))
    info = load_detector(saved(tmp_path / "m.safetensors", ranges=RANGES)).info
    assert info.tile_px == side
    assert info.notes == (
        ("4.0 GB of memory: tiles of half the usual side",) if side < 2048 else ()
    )


def test_a_network_that_openvino_cannot_run(tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")

    def refuse(*_, **__):
        raise RuntimeError("Exception from src/core: \n unsupported operation FakeQuantize")

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    path = saved(tmp_path / "m.safetensors", ranges=RANGES)
    info = load_detector(path, device="cpu").info
    assert info.inference == "torch"
    assert "cannot run the model" in info.notes[0]
    assert "\n" not in info.notes[0]
    with pytest.raises(WeightsError, match="cannot run the model"):
        load_detector(path, device="cpu", inference="openvino")


def test_a_signal_after_two_models_were_closed():
    """In the order in which they were opened: each OpenVINO sets a signal stack of its own."""
    pytest.importorskip("openvino")
    program = """
import gc, os, signal
from cellseg.network.detect import load_detector
models = [load_detector(device="cpu", inference="openvino") for _ in range(2)]
while models:
    del models[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr


def test_openvino_tells_nobody_that_it_is_used(tmp_path):
    pytest.importorskip("openvino")
    program = "import cellseg.network.openvino_inference, sys; print(*sys.modules)"
    home = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | home
    )
    assert "openvino.tools.ovc.telemetry_stub" in ended.stdout.split(), ended.stderr
    assert not any(name.startswith("openvino_telemetry") for name in ended.stdout.split())
    assert not [*tmp_path.iterdir()]
