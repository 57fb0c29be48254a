"""Whole cells: the model that a protocol asks for, rules by class, a scale told from the cells."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from finished import counted
from microscopes import spoil
from synthetic.threshold import ThresholdDetector

from cellseg.counting.plan import choose_assay, make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.scale import told_diameter
from cellseg.errors import SettingsError
from cellseg.network.architecture import SMALL
from cellseg.network.detect import load_detector
from cellseg.network.detector import Detections, DetectorInfo
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import ModelCard
from cellseg.network.weights import save_model
from cellseg.protocol import load_protocol
from cellseg.slide import open_slide

pytestmark = pytest.mark.usefixtures("no_pictures")

CLASSES = ("cell", "red blood cell", "white blood cell", "platelet")
BLOOD = load_protocol("blood_smear")
SIDE = 540


def smear(folder, radius=30, every=3, side=SIDE):
    """Discs in rows, all of them whole, ``every`` radii apart."""
    y, x = np.mgrid[:side, :side]
    step = every * radius
    inside = np.hypot(y % step - step / 2, x % step - step / 2) < radius
    path = folder / "smear.tif"
    tifffile.imwrite(path, np.where(inside[..., None], (200, 120, 130), 240).astype(np.uint8))
    return path


class Discs(ThresholdDetector):
    """Sure of discs that have the size that it knows, less of others."""

    info = DetectorInfo(
        "discs", "0" * 12, ("red blood cell", "white blood cell", "platelet"), "cell"
    )

    def __init__(self):
        self.level, self.min_area_px = 0.2, 1

    def detect(self, tile, *, fill, near=None):
        return Detections(self.judged(super().detect(tile, fill=fill).instances))

    def judged(self, found):
        diameters = 2 * np.sqrt(found.areas / np.pi)
        return replace(found, scores=np.exp(-np.abs(np.log(diameters / BLOOD.usual_px))))


class Mixed(Discs):
    """Every second one is a white cell, every third a platelet."""

    def judged(self, found):
        return replace(super().judged(found), classes=np.arange(len(found)) % 3)


def summary_of(path, detector, tmp_path, **settings):
    request = CountRequest(image=path, output=tmp_path / "out", overwrite=True, **settings)
    return counted(request, detector)[0].summary


@pytest.mark.parametrize("radius", [18, 30, 60])
def test_an_unknown_scale_is_told_by_the_cells(tmp_path, radius):
    path = smear(tmp_path, radius)
    with open_slide(path) as slide:
        told = told_diameter(slide, (0, 1, 2), BLOOD, Discs())
        request = CountRequest(image=path, protocol="blood_smear")
        plan = make_plan(slide, request, Discs.info, detector=Discs())
    assert told == pytest.approx(2 * radius, rel=0.06)
    assert plan.downsample == pytest.approx(2 * radius / BLOOD.usual_px, rel=0.06)
    assert any("scaled by the cells" in note for note in plan.notes)


class Nuclei(Discs):
    """Sure of nuclei of any size."""

    info = DetectorInfo("nuclei", "0" * 12, ("nucleus",), "nucleus", diameter_px=24.0)

    def detect(self, tile, *, fill, near=None):
        bright = tile if tile.mean() > 0.5 else 1 - tile  # bright on dark
        return super().detect(bright, fill=1.0)

    def judged(self, found):
        return replace(found, scores=np.ones(len(found), np.float32))


@pytest.mark.parametrize(
    ("radius", "protocol", "downsample"),
    [
        (5, "he", 10 / 24),
        (10, "he", 1),
        (14, "he", 1),
        (30, "he", 60 / 24),
        (28, "fluorescence", 1),
        (36, "fluorescence", 72 / 24),
    ],
)
def test_unusual_nuclei_tell_the_scale_and_usual_ones_keep_it(
    tmp_path, radius, protocol, downsample
):
    path = smear(tmp_path, radius, every=5 if radius < 20 else 3)
    if protocol == "fluorescence":
        pixels = tifffile.imread(path)[..., 1]
        tifffile.imwrite(path, np.where(pixels < 200, 200, 10).astype(np.uint8))
    request = CountRequest(image=path, protocol=protocol)
    with open_slide(path) as slide:
        detector = Nuclei()
        plan = make_plan(slide, request, detector.info, detector=detector)
    assert plan.downsample == pytest.approx(downsample, rel=0.1)
    said = "own scale" if downsample == 1 else f"the usual one has {2 * radius} px"
    assert any(said in note for note in plan.notes)


def test_a_damaged_middle_is_looked_at_in_a_coarser_level(tmp_path):
    path = smear(tmp_path, radius=40, side=1600)
    whole = tifffile.imread(path)
    with tifffile.TiffWriter(path) as writer:
        about = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib"}
        writer.write(whole, subifds=1, **about)
        writer.write(whole[::2, ::2], subfiletype=1, **about)
    spoil(path, 3 * 7 + 3)
    with open_slide(path) as slide:
        request = CountRequest(image=path, protocol="he")
        plan = make_plan(slide, request, Nuclei.info, detector=Nuclei())
    assert plan.downsample == pytest.approx(80 / 24, rel=0.1)


def test_nothing_is_told_of_an_empty_field_and_what_the_user_says_stands(tmp_path):
    empty = tmp_path / "empty.tif"
    tifffile.imwrite(empty, np.full((SIDE, SIDE, 3), 240, np.uint8))
    with open_slide(empty) as slide:
        assert told_diameter(slide, (0, 1, 2), BLOOD, Discs()) is None
    path = smear(tmp_path)
    for settings in ({"mpp": 0.38}, {"diameter_px": BLOOD.usual_px / 2}):
        request = CountRequest(image=path, protocol="blood_smear", **settings)
        with open_slide(path, mpp=request.mpp) as slide:
            plan = make_plan(slide, request, Discs.info, detector=Discs())
        assert plan.downsample == pytest.approx(0.5)


def test_gates_and_scores_go_by_class(tmp_path):
    path = smear(tmp_path)
    every = summary_of(path, Mixed(), tmp_path, protocol=BLOOD.changed(classes={}))
    assert [*every.cells_per_class] == [*Discs.info.classes]
    # A disc of a red cell's size is too large for a platelet, and red cells must be surer.
    kinds = every.cells_per_class
    assert all(kinds.values())
    gated = summary_of(path, Mixed(), tmp_path, protocol="blood_smear")
    assert gated.cells_per_class == {**kinds, "platelet": 0}
    rules = {"red blood cell": {"score": 1.0}, "white blood cell": {}}
    strict = summary_of(path, Mixed(), tmp_path, protocol=BLOOD.changed(classes=rules))
    assert strict.cells_per_class["red blood cell"] == 0
    assert strict.cells_per_class["white blood cell"] == kinds["white blood cell"]
    mine = summary_of(path, Mixed(), tmp_path, protocol="blood_smear", min_area=1, max_area=1e6)
    assert mine.cells_per_class == kinds


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny network of four classes with random weights."""
    torch.manual_seed(0)
    shape = replace(SMALL, pyramid=16, mask=8, box=16)
    network = build_maskrcnn(len(CLASSES), architecture=shape)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = ModelCard(name="tiny", object="cell", classes=CLASSES, diameter_px=40)
    state = network.state_dict()
    state["roi_heads.mask_predictor.mask_fcn_logits.bias"] += 5.0  # whatever is found has a mask
    save_model(path, state, card, quantise=True)
    return path


def test_a_protocol_sees_its_own_classes_alone(model):
    detector = load_detector(model, device="cpu")
    any_score = BLOOD.changed(score=0.01, classes={})
    ready = detector.for_run(any_score.changed(classes={name: {} for name in BLOOD.classes}))
    assert ready.info.classes == CLASSES[1:]
    picture = np.random.default_rng(0).random((128, 128, 3), np.float32)
    whole, part = (
        one.detect(picture, fill=1.0).instances for one in (detector.for_run(any_score), ready)
    )
    assert len(whole)
    assert len(part)
    assert set(whole.classes) <= {0, 1, 2, 3}
    assert set(part.classes) <= {0, 1, 2}
    others = detector.for_run(any_score.changed(classes={"yeast": {}}))
    assert others.info.classes == CLASSES


@pytest.mark.parametrize(
    ("protocol", "wanted", "expected"),
    [
        ("blood_smear", "default", "cells"),
        ("he", "default", "default"),
        ("ihc", "default", "ihc"),
        ("blood_smear", "cells", "cells"),
        ("phase_contrast", "mine.safetensors", "mine.safetensors"),
        ("he", "cells", None),
    ],
)
def test_the_protocol_says_which_shipped_model_counts(tmp_path, protocol, wanted, expected):
    request = CountRequest(image=smear(tmp_path), protocol=protocol, model=wanted)
    with open_slide(request.image) as slide:
        if expected is None:
            with pytest.raises(SettingsError, match="name one of blood_smear") as refused:
                choose_assay(slide, request)
            assert refused.value.hint == "protocol"
        else:
            assert choose_assay(slide, request).model == expected


def test_a_model_of_other_classes_counts_all_of_its_own(tmp_path):
    class Yeast(Discs):
        info = DetectorInfo("yeast", "1" * 12, ("yeast",), "cell", diameter_px=40.0, mpp=0.5)

    path = smear(tmp_path)
    summary = summary_of(path, Yeast(), tmp_path, protocol="phase_contrast", model="y")
    assert summary.cells_per_class["yeast"] == summary.cells > 0
