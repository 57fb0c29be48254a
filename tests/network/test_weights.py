"""Weights at rest: small, checked, and never unpickled but for torchvision's own file."""

import hashlib
import json
import os
import pickle
import re
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.models.detection import maskrcnn_resnet50_fpn

from cellseg.errors import OutputError, WeightsError
from cellseg.network import modelfile, weights
from cellseg.network.detect import load_detector
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import DataCard, ModelCard
from cellseg.network.weights import (
    load_model,
    quantised,
    read_coco,
    read_model,
    save_model,
    start_of,
)
from cellseg.protocol import SHIPPED_MODELS

CARD = ModelCard(
    name="test",
    object="nucleus",
    classes=("lymphocyte", "tumour"),
    mpp=0.5,
    diameter_px=17.5,
    data=(DataCard(name="set", images=3, objects=70, licence="CC BY 4.0", attribution="A et al."),),
    scores={"mask_ap": 0.31},
    settings={"score": 0.4},
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_maskrcnn(2).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(path, network.state_dict(), CARD, quantise=True)
    return path


def test_a_full_model_is_small_and_close(network, file):
    assert file.stat().st_size <= 48 * 2**20
    loaded, card = load_model(file)
    assert not loaded.training
    assert card.checksum == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.model_copy(update={"checksum": ""}) == CARD
    for name, value in loaded.state_dict().items():
        original = network.state_dict()[name]
        if original.ndim < 2:
            assert torch.equal(value, original), name
        else:
            assert (value - original).norm() <= 0.02 * original.norm(), name


def test_trainable_norm_is_exported(tmp_path):
    model = build_maskrcnn(2, frozen_norm=False)
    assert any(isinstance(one, torch.nn.BatchNorm2d) for one in model.modules())
    assert all(one.requires_grad for one in model.backbone.parameters())
    save_model(tmp_path / "m.safetensors", model.state_dict(), CARD, quantise=False)
    loaded, _ = load_model(tmp_path / "m.safetensors")
    arrays = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    assert arrays.keys() == loaded.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in arrays.items())


def test_quantising_has_bounds():
    generator = torch.Generator().manual_seed(1)
    array = torch.randn((16, 300), generator=generator) * torch.logspace(-4, 2, 16)[:, None]
    array[3] = 0
    values, scale = quantised(array)
    back = values * scale[:, None]
    assert values.dtype == torch.int8
    inside = array.abs() <= 127 * scale[:, None]
    assert ((back - array).abs()[inside] <= (0.501 * scale[:, None]).expand_as(array)[inside]).all()
    assert torch.equal(back[3], array[3])
    # The choice is never worse than the plain one, the largest value at 127.
    plain = array.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    error = (((array / plain).round() * plain) - array).square().sum(1)
    assert ((back - array).square().sum(1) <= error * 1.0001 + 1e-12).all()
    # One outlier is clipped where that serves the rest.
    rows = torch.rand((1, 100_000), generator=generator)
    rows[0, 0] = 1.2
    assert float(quantised(rows)[1]) < 1.2 / 127


def rewritten(file, path, *, metadata=None, change=lambda arrays: None):
    with safe_open(file, "pt") as opened:
        card = {"cellseg": opened.metadata()["cellseg"]}
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path, metadata or card)
    return path


def refused(path):
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_missing_cut_off_and_foreign_files(file, tmp_path):
    assert "No such file" in refused(tmp_path / "gone.safetensors")
    data = file.read_bytes()
    for name, content in {
        "cut": data[: len(data) // 2],
        "short": data[:5],
        "empty": b"",
        "huge": struct.pack("<Q", 2**62) + data[8:64],
        "pickle": pickle.dumps({"a": 1}),
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        told = f"{path}: is no model (a safetensors file), or is damaged"
        assert refused(path) == told
        with pytest.raises(WeightsError, match=f"^{re.escape(told)}$"):
            modelfile.read_card(path)
    with pytest.raises(WeightsError, match=r"/gone\.safetensors: No such file or directory$"):
        modelfile.read_card(tmp_path / "gone.safetensors")


def test_cards_at_fault(tmp_path):
    path = tmp_path / "m.safetensors"
    for text, words in [
        (None, "no model card"),
        ("{", "not valid"),
        ("[]", "not valid"),
        (json.dumps({"name": "x", "classes": []}), "not valid"),
        (json.dumps({"name": "x", "classes": ["a"] * 2000}), "not valid"),
        (json.dumps({"format": 99}), "newer cellseg"),
    ]:
        save_file({"a": torch.zeros(1)}, path, {} if text is None else {"cellseg": text})
        assert words in refused(path)


def test_arrays_at_fault(file, tmp_path):
    path = tmp_path / "m.safetensors"
    bias = "rpn.head.cls_logits.bias"
    kernel = "backbone.body.conv1.weight"

    def cases():
        yield "Missing key", lambda t: t.pop(bias)
        yield "Unexpected key", lambda t: t.update(extra=torch.zeros(2))
        yield "size mismatch", lambda t: t.update({bias: torch.zeros(4)})
        yield "not finite", lambda t: t.update({bias: torch.full((3,), float("nan"))})
        yield "no fitting scale", lambda t: t.pop(kernel + ".scale")
        yield "no fitting scale", lambda t: t.update({kernel + ".scale": torch.ones(3)})

    for words, change in cases():
        assert words in refused(rewritten(file, path, change=change))
    one = CARD.model_copy(update={"classes": ("one",)})
    other = rewritten(file, path, metadata={"cellseg": one.model_dump_json()})
    assert "size mismatch" in refused(other)


def test_one_byte_flipped(file, tmp_path):
    path = tmp_path / "m.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "checksum differs" in refused(path)
    older = rewritten(file, path)
    assert read_model(older)[1].name == "test"


def test_weights_that_overflow_are_refused_in_one_line(file, tmp_path):
    for part in ("rpn.head.cls_logits.bias", "roi_heads.box_predictor.cls_score.bias"):

        def overflow(arrays, part=part):
            arrays["backbone.fpn.layer_blocks.0.0.bias"] = torch.full((256,), 3e38)
            arrays[part] = torch.full_like(arrays[part], -3e38)

        huge = rewritten(file, tmp_path / "m.safetensors", change=overflow)
        with pytest.raises(WeightsError, match=r"no finite numbers$") as caught:
            load_detector(huge, device="cpu")
        assert str(huge) in str(caught.value)


def test_a_network_is_loaded_once_and_again_when_its_file_changes(file, tmp_path):
    path = shutil.copy(file, tmp_path)

    def network(_):
        return load_detector(path, device="cpu", inference="torch").network

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(network, range(4))
    assert all(one is first for one in others)
    os.utime(path, ns=(1, 1))
    assert network(0) is not first


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_the_shipped_models_are_pinned(monkeypatch, name):
    assert read_model(name)[1].checksum == modelfile.SHIPPED[name]
    monkeypatch.setitem(modelfile.SHIPPED, name, "0" * 64)
    with pytest.raises(WeightsError, match="checksum differs"):
        read_model(name)


def test_cell_types_of_h_and_e_are_not_told_in_immunohistochemistry():
    arrays, card = modelfile.read_arrays("ihc")
    assert not card.types
    assert not [name for name in arrays if "type_head" in name]


def test_output_that_cannot_be_written(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "file" / "m.safetensors", {}, CARD, quantise=True)


def test_start_from_a_model(file):
    """Heads that depend on the classes are kept where these are the same."""
    state, card = read_model(file)
    assert start_of(state, card.classes, CARD.classes) == state
    other = start_of(state, card.classes, ("tumour", "lymphocyte"))
    assert (
        {key for key in state if key not in other}
        == {key for key in state if key.startswith(weights.HEAD_KEYS)}
        != set()
    )


def test_coco_file_is_torchvisions():
    assert weights.coco_file().name == "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    assert weights.coco_file().parent.name == "checkpoints"


def test_coco_start_computes_what_torchvision_computes(monkeypatch, tmp_path):
    """From a file like torchvision's own in the hub's folder."""
    torch.manual_seed(3)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        if name == "backbone.body.bn1.running_var":
            buffer.uniform_(1e-6, 1e-4)  # where eps matters
    # The reference has trainable norm; torchvision's trained one has frozen norm with eps 0.
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    raw = tmp_path / "raw.pth"
    torch.save(theirs.state_dict(), raw)
    prefix = hashlib.sha256(raw.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(weights, "COCO_URL", f"https://weights.invalid/models/x-{prefix}.pth")
    weights.coco_file().parent.mkdir()
    raw.rename(weights.coco_file())
    model = build_maskrcnn(3).eval()
    own = {k: v for k, v in model.state_dict().items() if k.startswith(weights.HEAD_KEYS)}
    weights.fill(model, own | read_coco(), "coco")
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        ours, expected = model.backbone(image), theirs.backbone(image)
    for level, features in expected.items():
        error = float((ours[level] - features).abs().max())
        assert error <= 1e-3 * float(features.abs().max())
    key = "roi_heads.box_head.fc6.weight"
    assert torch.equal(model.state_dict()[key], theirs.state_dict()[key])


def test_coco_file_with_a_wrong_checksum(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = weights.coco_file()

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(WeightsError, match="not torchvision's file: its SHA-256 starts with"):
        read_coco()
    # Even with the right checksum, only weights are unpickled.
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(weights, "COCO_URL", f"https://weights.invalid/x-{prefix}.pth")
    path.rename(weights.coco_file())
    with pytest.raises(WeightsError, match="cannot be read"):
        read_coco()


def test_coco_without_a_network(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError) as caught:
        read_coco()
    text = str(caught.value)
    place = tmp_path / "checkpoints" / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    assert str(place) in text
    assert "no route to host" in text
    assert "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth" in text
    assert "\n" not in text


def test_others_may_read_a_model_as_far_as_the_umask_lets_them(network, tmp_path):
    old = os.umask(0o027)
    try:
        save_model(tmp_path / "m.safetensors", network.state_dict(), CARD, quantise=True)
    finally:
        os.umask(old)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o640
