"""Training end to end, in miniature: interrupted, resumed, exported, used."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from finished import told
from safetensors import safe_open
from train.annotated import write_coco

from cellseg.cli.train import train as command
from cellseg.counting.plan import make_plan
from cellseg.counting.request import CountRequest
from cellseg.errors import InputError, Notice, SettingsError, WeightsError
from cellseg.network import maskrcnn
from cellseg.network.architecture import SMALL as SMALL_NETWORK
from cellseg.network.detect import load_detector
from cellseg.network.detector import DetectorInfo, Sizes
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import ModelCard, read_arrays
from cellseg.network.weights import load_model, read_model, save_model
from cellseg.protocol import load_protocol
from cellseg.slide import open_slide
from cellseg.train import run
from cellseg.train.checkpoint import CHECKPOINT, read
from cellseg.train.prepare import network_mpp, prepare
from cellseg.train.run import Progress, TrainRequest, Validated, train
from cellseg.train.validate import Validation


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch):
    """Few samples carry a loss."""
    monkeypatch.setattr(maskrcnn, "PROPOSALS", 30)
    monkeypatch.setattr(maskrcnn, "BOX_SAMPLES", 16)
    monkeypatch.setattr(maskrcnn, "MASK_SAMPLES", 4)


def project(folder, *, images=3, classes=("round", "square"), **about):
    """Images of four squares each."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 64, 64), bool)
    for mask, (y, x) in zip(masks, [(6, 6), (6, 36), (36, 6), (36, 36)], strict=True):
        mask[y : y + 18, x : x + 18] = True
    kinds = [place % len(classes) for place in range(4)]
    pictures = []
    for _ in range(images):
        pixels = rng.integers(215, 235, (64, 64, 3)).astype(np.uint8)
        pixels[masks.any(axis=0)] = (110, 60, 150)
        pictures.append((pixels, masks, kinds))
    return write_coco(folder, pictures, classes, **about)


def small(path, output, **changed):
    return TrainRequest(
        **{
            "data": (path,), "output": output, "init": "none", "steps": 3, "batch": 1,
            "crop_px": 64, "device": "cpu", "workers": 0, "validations": 1,
            **changed,
        }
    )  # fmt: skip


def steps(events):
    return [event for event in events if isinstance(event, Progress)]


def prepared(path, **changed):
    return prepare(small(path, path.parent / "out", **changed), lambda event: None)


def test_a_seed_tells_what_is_drawn(tmp_path):
    path = project(tmp_path / "data")
    losses, before = [], torch.get_rng_state()

    def first(event):
        if isinstance(event, Progress):
            losses.append(sum(event.losses.values()))
            raise KeyboardInterrupt

    for number, seed in enumerate((1, 1, 2)):
        with pytest.raises(KeyboardInterrupt):
            train(small(path, tmp_path / f"{number}", seed=seed), report=first)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_interrupted_resumed_exported_used(tmp_path):
    path, output = project(tmp_path / "data"), tmp_path / "out"
    request = small(path, output, object="cell", name="my / model", licence="CC0", mpp=0.5)

    def strike(event):
        if isinstance(event, Progress) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(request, report=strike)
    assert read(output / "checkpoint.safetensors")[1].step == 2
    with safe_open(output / "checkpoint.safetensors", "pt") as stored:
        parts = {key.split("/")[0] for key in stored.keys()}  # noqa: SIM118
    assert parts == {"model", "average", "dense", "optimizer"}

    events = []
    done = train(request, report=events.append)
    (step,) = steps(events)
    assert step.step == 3
    assert {"loss_mask", "loss_dense", "loss_classifier"} <= set(step.losses)
    assert any("step 2" in line for line in told(events))
    (validated,) = [event for event in events if isinstance(event, Validated)]
    assert validated.best
    assert 0 <= validated.scores.mask_ap <= 1

    assert done.model == output / "my-model.safetensors"
    assert done.model.stat().st_size <= 48 * 2**20
    _, card = load_model(done.model)
    # Ranges stay where 8 bits find on the validation images what torch finds.
    ranges = [name for name in read_arrays(done.model)[0] if name.endswith(".range")]
    assert not ranges or len(ranges) > 60
    assert (card.classes, card.object, card.name) == (("round", "square"), "cell", "my / model")
    assert card.protocol.stain == "brightfield"
    assert (card.data[0].objects, card.data[0].licence, card.mpp) == (12, "CC0", 0.5)
    assert card.started_from == "random weights"
    assert set(card.scores) == {"mask_ap", "mask_ap50", "f1"}
    assert json.loads((output / "model_card.json").read_text())["classes"] == ["round", "square"]
    assert (output / "history.csv").read_text().startswith("step,minutes,mask_ap")

    detector = load_detector(done.model, device="cpu", score=0.01)
    found = detector.detect(np.ones((64, 64, 3), np.float32), fill=1.0)
    assert detector.info.classes == ("round", "square")
    assert all(0 <= label < 2 for label in found.instances.classes)

    # A finished training is only exported again; another one is not mixed into it.
    other = project(tmp_path / "other", classes=("one",))
    with pytest.raises(SettingsError, match="holds a training with other classes"):
        train(small(other, output))
    again = []
    train(replace(request, data=(path, project(tmp_path / "more", images=1))), report=again.append)
    assert steps(again) == []
    assert any("data have changed" in line for line in told(again))


def test_from_a_model_with_other_classes(tmp_path):
    """One class, from weights of two; the norm is frozen and the backbone slow."""
    start = tmp_path / "start.safetensors"
    before = build_maskrcnn(2, architecture=SMALL_NETWORK).state_dict()
    save_model(start, before, ModelCard(name="s", classes=("a", "b")), quantise=False)
    path = project(tmp_path / "data", images=1, classes=("one",))
    events = []
    request = small(path, tmp_path / "out", init=str(start), steps=1, workers=1)
    done = train(request, report=events.append)
    after = read(tmp_path / "out" / CHECKPOINT)[0]["model"]
    norm = next(name for name in before if name.endswith("running_mean"))
    kernel = "rpn.head.conv.0.0.weight"
    assert torch.equal(after[norm], before[norm])
    assert not torch.equal(after[kernel], before[kernel])
    assert done.card.started_from == "start.safetensors"
    assert done.card.scores == {}
    assert any("only one image" in line for line in told(events))
    assert "loss_dense" not in steps(events)[0].losses


def test_requests_at_fault(tmp_path):
    path = project(tmp_path / "data")
    for kind, said, fault in (
        (SettingsError, "how long to train", {"steps": None}),
        (SettingsError, "batch must be above 0", {"batch": 0}),
        (SettingsError, "multiple of 32", {"crop_px": 100}),
        (SettingsError, "no training to go on with", {"resume": True}),
        (WeightsError, r"gone\.safetensors", {"init": "gone.safetensors"}),
    ):
        with pytest.raises(kind, match=said):
            train(small(path, tmp_path / "out", **fault))
    (tmp_path / "out" / "checkpoint.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        train(small(path, tmp_path / "out"))
    (tmp_path / run.CARD).touch()
    with pytest.raises(SettingsError, match="finished training without a checkpoint"):
        train(small(path, tmp_path))
    other = project(tmp_path / "other", classes=("round", "b"))
    with pytest.raises(InputError, match="classes that the training data does not have: b"):
        prepared(path, validation=other)


def test_scale_of_the_network(tmp_path):
    data = prepared(project(tmp_path / "a", mpp=0.5))
    assert data.mpp == pytest.approx(0.5)
    assert (len(data.train), len(data.held)) == (2, 1)
    # Known and different pixel sizes meet at their median.
    images = [replace(data.train[0], mpp=value) for value in (0.25, 0.5, 0.5)]
    assert network_mpp(images) == pytest.approx(0.5)
    assert network_mpp([*images, replace(data.train[0], mpp=None)]) is None
    # Without any pixel size, images are taken as they are.
    plain = prepared(project(tmp_path / "b"))
    assert plain.mpp is None
    assert plain.train[0].zoom == 1
    assert plain.diameter_px == pytest.approx(2 * (18 * 18 / np.pi) ** 0.5, rel=0.05)


def test_a_count_believes_the_sizes_that_were_annotated(tmp_path):
    data = prepared(project(tmp_path / "a", mpp=0.5))
    # Squares of 18 px.
    assert data.sizes == Sizes(162, 648, 27)
    info = DetectorInfo("m", "c" * 64, ("a",), "cell", mpp=2.0, sizes=data.sizes)
    image = tmp_path / "a" / "1.png"
    gates = {}
    for name, wanted in {
        "known": CountRequest(image=image, mpp=1.0),
        "unknown": CountRequest(image=image),
        "by diameter": CountRequest(image=image, mpp=1.0, diameter_px=72),
        "own": CountRequest(image=image, mpp=1.0, protocol=load_protocol("he")),
    }.items():
        sized = replace(info, diameter_px=18.0)
        with open_slide(image, mpp=wanted.mpp) as slide:
            plan = make_plan(slide, wanted, sized)
        protocol = plan.protocol
        gates[name] = (protocol.min_area_um2, protocol.max_area_um2)
        assert any("by the model's training" in note for note in plan.notes) is (name != "own")
        if name != "own":
            assert protocol.halo_px == 192
    # A pixel of the network has 2 µm, unless a diameter of four times its own makes it 4 µm.
    assert gates["known"] == pytest.approx((162 * 4, 648 * 4))
    assert gates["by diameter"] == pytest.approx((162 * 16, 648 * 16))
    assert gates["unknown"] == pytest.approx((162 * 4, 648 * 4))
    assert gates["own"] == (load_protocol("he").min_area_um2, load_protocol("he").max_area_um2)
    assert Sizes.of({"score": 0.5}) is None
    with pytest.raises(WeightsError, match="make no sense"):
        Sizes(10, 5, 3)


def commanded(monkeypatch, folder, *options, f1=0.8):
    """What the command asks for, prints and leaves, the training itself replaced."""
    scores = {"mask_ap": 0.5, "mask_ap50": 0.75, "f1": f1}
    card = ModelCard(name="x", classes=("a",), diameter_px=20, scores=scores)
    seen = []

    def fake(request, report):
        seen.append(request)
        report(Notice("a note"))
        report(Progress(1, 0.1, 0.5, {"loss_mask": 0.25}))
        request.output.mkdir()
        for name in (CHECKPOINT, "x.safetensors", run.CARD):
            (request.output / name).touch()
        return run.Trained(request.output / "x.safetensors", card)

    monkeypatch.setattr(run, "train", fake)
    monkeypatch.setattr("cellseg.cli.train.LINE_SECONDS", -1)  # each line at once
    folder.mkdir()
    (folder / "a.json").touch()
    result = CliRunner().invoke(
        command, [str(folder / "a.json"), "-o", str(folder / "out"), *options]
    )
    assert result.exit_code == 0, result.output
    return seen[0], result.output, {path.name for path in (folder / "out").iterdir()}


def test_command(tmp_path, monkeypatch):
    """The command only parses and prints; checkpoints stay where they are wanted or needed."""
    options = ["--init", "none", "--mpp", "0.25", "--object", "cell"]
    request, text, files = commanded(monkeypatch, tmp_path / "a", *options)
    assert (request.init, request.mpp, request.object) == ("none", 0.25, "cell")
    assert (request.minutes, request.steps, request.resume) == (60.0, None, None)
    assert "a note" in text
    assert "mask 0.250" in text
    assert f"cellseg count SLIDE --model {tmp_path / 'a' / 'out' / 'x.safetensors'}" in text
    assert "pixel size unknown" in text
    assert files == {"x.safetensors", run.CARD}
    assert CHECKPOINT in commanded(monkeypatch, tmp_path / "b", "--keep-checkpoint")[2]
    _, text, files = commanded(monkeypatch, tmp_path / "c", f1=0.01)
    assert CHECKPOINT in files
    assert "do not count with it" in text
    assert CliRunner().invoke(command, []).exit_code == 2


@pytest.mark.parametrize(
    ("history", "patience", "since", "stops"),
    [
        ([0.3, 0.2, 0.2], 2, 0, True),
        ([0.3, 0.3, 0.3], 2, 0, True),
        ([0.3, 0.2, 0.31], 2, 0, False),
        ([0.3, 0.2], 2, 0, False),
        ([0.0, 0.0, 0.0], 2, 0, False),
        ([0.3, 0.2, 0.2], 2, 2, False),
        ([0.3, 0.2, 0.2, 0.1], 2, 2, True),
    ],
)
def test_training_ends_when_validations_get_no_better(history, patience, since, stops):
    entries = [{"mask_ap": value} for value in history]
    assert run.overfits(entries, patience, since) is stops


def test_a_training_that_overfits_stops_early_and_keeps_the_best(tmp_path, monkeypatch):
    falling = (Validation(n / 10, 0.5, 0.5, 0.5, 1, 4) for n in (5, 4, 3, 2, 1, 0))
    monkeypatch.setattr(run, "scores_of", lambda *_: next(falling))
    # A validation waits for its share of the time: on a busy machine, longer than some steps.
    monkeypatch.setattr(run, "REST", 0.0)
    path, events = project(tmp_path / "data"), []
    request = small(path, tmp_path / "out", init="default", steps=40, validations=40, patience=2)
    done = train(request, report=events.append)
    assert any("by heart" in line for line in told(events))
    assert steps(events)[-1].step < 10
    assert done.card.scores["mask_ap"] == 0.5


def test_a_model_of_the_same_task_is_changed_by_smaller_steps(tmp_path):
    path, start = project(tmp_path / "data", classes=("nucleus",)), read_model("default")[0]
    events = []
    request = small(path, tmp_path / "out", init="default", steps=4, batch=2)
    train(request, report=events.append)
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps(events))
    parts, state = read(tmp_path / "out" / CHECKPOINT)
    assert state.run["is_taught"] is True
    kernel = "rpn.head.conv.0.0.weight"
    away = [
        float((part[kernel] - start[kernel]).norm()) for part in (parts["average"], parts["model"])
    ]
    assert 0 < away[0] < 0.2 * away[1]
