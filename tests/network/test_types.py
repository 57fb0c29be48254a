"""Cell types: they come with a model, take the place of its classes, and go before training."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from networks import dark_discs

from cellseg.counting.plan import make_plan
from cellseg.counting.request import CountRequest
from cellseg.errors import SettingsError, WeightsError
from cellseg.network.architecture import QUALITY_KEYS, SMALL, TYPE_KEYS, Architecture
from cellseg.network.detect import load_detector
from cellseg.network.detector import DetectorInfo
from cellseg.network.roi_heads import TypeHead
from cellseg.network.weights import read_model, save_model, start_of
from cellseg.protocol import load_protocol
from cellseg.run import run
from cellseg.slide import open_slide

TYPES = ("lymphocyte", "stromal")
INFO = DetectorInfo("typed", "0" * 12, ("nucleus",), "nucleus", types=TYPES, types_from="breast")


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The shipped model, with two types: brighter than grey is the second."""
    state, card = read_model("default")
    state = {key: value for key, value in state.items() if not key.startswith(TYPE_KEYS)}
    torch.manual_seed(0)
    head = TypeHead(SMALL.pyramid, len(TYPES)).state_dict()
    state |= {f"{TYPE_KEYS}{key}": value for key, value in head.items()}
    path = tmp_path_factory.mktemp("typed") / "typed.safetensors"
    save_model(path, state, card.model_copy(update={"types": TYPES}), quantise=True)
    return path


def test_the_mean_feature_of_a_box_decides():
    head = TypeHead(2, 2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.hidden.weight[0, 0] = 1.0  # channel 0 of the finest level
        head.logits.weight[1, 0] = 10.0
        head.centre[0], head.likeness.weight[0, 0] = 1.0, 2.0
    levels = [torch.zeros(1, 2, 64 >> k, 64 >> k) for k in range(3)]
    levels[0][0, 0, :, 32:] = 1.0
    boxes = torch.tensor([[20.0, 20.0, 60.0, 60.0], [160.0, 20.0, 200.0, 60.0]])
    found, likeness = head.requires_grad_(False)(levels, boxes)
    assert found.sum(1).tolist() == pytest.approx([1, 1])
    assert found.argmax(1).tolist() == [0, 1]
    assert likeness[:, 0].tolist() == pytest.approx([-2, 0])
    assert not likeness[:, 1:].any()
    assert [len(one) for one in head(levels, boxes[:0])] == [0, 0]


def test_types_take_the_place_of_the_classes(typed):
    detector = load_detector(typed, device="cpu", score=0.2)
    assert detector.info.classes == ("nucleus",)
    assert detector.info.types == TYPES
    plain = detector.detect(dark_discs(), fill=1.0)
    assert len(plain.instances) > 8
    assert set(plain.instances.classes.tolist()) == {0}
    protocol = load_protocol("he").changed(score=0.2, cell_types="breast")
    sorted_ = detector.for_run(protocol)
    assert sorted_.info.classes == TYPES
    found = sorted_.detect(dark_discs(), fill=1.0)
    assert found.instances.boxes.tolist() == plain.instances.boxes.tolist()
    assert set(found.instances.classes.tolist()) <= {0, 1}
    # Neither is the other's: the network is shared, what is wanted is not.
    again = detector.detect(dark_discs(), fill=1.0)
    assert set(again.instances.classes.tolist()) == {0}
    assert sorted_.for_run(protocol.changed(cell_types="none")).info.classes == ("nucleus",)


@pytest.mark.parametrize(
    ("stretched", "types", "is_doubted"),
    [(0, "breast", False), (1e3, "breast", True), (1e3, "other", False), (1e3, "none", False)],
)
def test_types_in_unlike_tissue_are_doubted(typed, tmp_path, stretched, types, is_doubted):
    state, card = read_model(typed)
    state[f"{TYPE_KEYS}likeness.weight"] *= stretched
    model, image = tmp_path / "model.safetensors", tmp_path / "slide.tif"
    save_model(model, state, card, quantise=True)
    tifffile.imwrite(image, np.tile((255 * dark_discs()).astype(np.uint8), (2, 2, 1)))
    request = CountRequest(image=image, mpp=0.25, protocol="he", model=model, cell_types=types)
    *_, counted = run(request)
    assert counted.summary.cells == 64
    found = [one for one in counted.warnings if "unlike the breast" in one]
    assert [one.hint for one in found] == ["types"] * is_doubted
    assert not found or found[0].startswith("100 % of the tissue looks unlike the breast")


@pytest.mark.parametrize(
    ("image", "mpp", "is_doubted"),
    [
        ("brca_m2c_points/images/TCGA-A7-A0DB-01Z-00-DX1_168501_13501_1000_1000_0.986.png", 0.5, 0),
        ("tnbc/images/tnbc_03_1.png", 0.25, 0),
        ("nuinsseg/images/human_bladder_01.jpg", 0.25, 1),
        ("nuinsseg/images/mouse_spleen_01.jpg", 0.25, 1),
    ],
)
def test_breast_is_no_doubt_and_other_organs_are(shared, tmp_path, image, mpp, is_doubted):
    protocol = "he_breast" if mpp < 0.4 else "he_breast_20x"
    path = shared / "data" / image
    *_, counted = run(CountRequest(image=path, mpp=mpp, protocol=protocol, output=tmp_path))
    assert sum("unlike the breast" in one for one in counted.warnings) == is_doubted


def test_a_card_of_other_types_is_refused(typed, tmp_path):
    state, card = read_model(typed)
    path = tmp_path / "other.safetensors"
    for types in ((), ("a", "b", "c")):
        save_model(path, state, card.model_copy(update={"types": types}), quantise=True)
        with pytest.raises(WeightsError, match="cell types are not those of its card"):
            read_model(path)


def test_training_starts_without_types_and_quality(typed):
    state, card = read_model(typed)
    for keys in (TYPE_KEYS, QUALITY_KEYS):
        assert any(key.startswith(keys) for key in state)
    start = start_of(state, card.classes, ("nucleus",))
    assert not any(key.startswith((TYPE_KEYS, QUALITY_KEYS)) for key in start)
    assert Architecture.of(start) == SMALL


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, (255 * dark_discs()).astype(np.uint8))
    with open_slide(path, mpp=0.25) as opened:
        yield opened


def plan_for(slide, info, **settings):
    return make_plan(slide, CountRequest(image=slide.path, mpp=0.25, **settings), info)


@pytest.mark.parametrize(
    ("wanted", "info", "protocol", "classes"),
    [
        (None, INFO, "he", None),
        (None, INFO, "ihc", None),
        (None, INFO, "he_breast", TYPES),
        (None, INFO, "he_breast_20x", TYPES),
        ("none", INFO, "he_breast", None),
        ("breast", INFO, "he", TYPES),
        ("other", INFO, "he_20x", ("lymphocyte_like", "stromal_like")),
        (None, replace(INFO, types=()), "he_breast", None),
    ],
)
def test_when_nuclei_are_sorted(wanted, info, protocol, classes, slide):
    plan = plan_for(slide, info, protocol=protocol, cell_types=wanted)
    assert info.sorting(plan.protocol.cell_types).classes == (classes or ("nucleus",))
    assert any("as learned from breast" in note for note in plan.notes) is (classes is not None)


@pytest.mark.parametrize(
    ("types", "wanted", "why"),
    [((), "breast", "tells no cell types apart"), (TYPES, "skin", "from breast, not from skin")],
)
def test_types_that_a_model_does_not_have(types, wanted, why, slide):
    with pytest.raises(SettingsError, match=why):
        plan_for(slide, replace(INFO, types=types), protocol="he", cell_types=wanted)
