"""``cellseg evaluate``: annotated images through the whole of a count."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from finished import counted, table_of
from imageio.v3 import imread, imwrite
from squares import squares
from synthetic.threshold import ThresholdDetector

from cellseg.cli.evaluate import evaluate as command
from cellseg.counting.request import CountRequest
from cellseg.errors import InputError, Notice, SettingsError
from cellseg.instances import Instances
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, ImageDone, evaluate
from cellseg.judge.judged import Judged, fates, tally
from cellseg.judge.report import ranked, sample, write_report
from cellseg.network.detector import DetectorInfo
from cellseg.protocol import load_protocol

COUNTED = {"path": Path("a.png"), "protocol": load_protocol("he")}

WHITE, NUCLEUS = (236, 214, 228), (80, 50, 140)


def write_set(folder, truths, drawn, *, classes=("nucleus",), labels=None):
    """Images with dark squares at ``drawn`` and annotations at ``truths``."""
    images, annotations = [], []
    for number, (goals, places) in enumerate(zip(truths, drawn, strict=True)):
        picture = np.full((160, 200, 3), WHITE, np.uint8)
        for y, x in places:
            picture[y : y + 12, x : x + 12] = NUCLEUS
        imwrite(folder / f"{number}.png", picture)
        about = {"height": 160, "width": 200, "mpp": 0.25}
        modality = ("histology", "other")[number % 2]
        images.append({"id": number, "file_name": f"{number}.png", "modality": modality, **about})
        for (y, x), kind in zip(goals, labels or [1] * len(goals), strict=True):
            square = {
                "segmentation": [[x, y, x + 12, y, x + 12, y + 12, x, y + 12]],
                "area": 144,
                "bbox": [x, y, 12, 12],
                "iscrowd": 0,
            }
            ids = {"id": len(annotations), "image_id": number, "category_id": kind}
            annotations.append({**ids, **square})
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    path = folder / "val.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """A threshold in the network's place."""
    monkeypatch.setattr(
        "cellseg.judge.evaluate.load_detector", lambda *_, **__: ThresholdDetector()
    )


PLACES = [(20, 20), (20, 60), (60, 20), (60, 90), (100, 150)]


def ended(request):
    events = list(evaluate(request))
    assert isinstance(events[-1], Evaluation)
    return events[-1], events


def test_what_was_drawn_is_found_missed_and_invented_as_it_was_drawn(tmp_path, stand_in):
    truths = [PLACES, [*PLACES, (120, 20)]]
    drawn = [[*PLACES, (120, 60)], PLACES]
    path = write_set(tmp_path, truths, drawn)
    request = EvaluateRequest(data=(path,), protocol="he", prefilter=False)
    evaluation, events = ended(request)
    assert [event.done for event in events if isinstance(event, ImageDone)] == [1, 2]
    tallies = [tally(image) for image in evaluation.images]
    assert tallies[0] == {"found": 5, "missed": 0, "invented": 1, "merged": 0, "split": 0}
    assert tallies[1] == {"found": 5, "missed": 1, "invented": 0, "merged": 0, "split": 0}
    scores = evaluation.scores()
    assert (scores.count.truth, scores.count.found, scores.count.bias) == (11, 11, 0)
    assert scores.count.mean_relative == pytest.approx((1 / 5 + 1 / 6) / 2)
    assert scores.f1[0.95] == pytest.approx(2 * 10 / 22)
    assert abs(scores.area_bias) < 0.02
    tables = evaluation.tables()
    assert set(tables) == {"all", "histology", "other"}
    assert tables["histology"].count.bias == pytest.approx(1 / 5)


def test_the_same_cells_as_a_count_writes(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES], [PLACES])
    evaluation, _ = ended(EvaluateRequest(data=(path,), protocol="he", prefilter=False))
    request = CountRequest(image=tmp_path / "0.png", protocol="he", mpp=0.25, prefilter=False)
    last, _ = counted(request)
    found = evaluation.images[0].found
    assert sorted(found.areas) == sorted(table_of(last)["area_px"])
    boxes = table_of(last)[["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px"]]
    assert sorted(found.boxes.tolist()) == sorted(boxes.to_numpy().astype(int).tolist())


def test_classes_are_matched_by_name_and_told_apart(tmp_path, monkeypatch):
    typed = ThresholdDetector()
    typed.info = DetectorInfo("typed", "0" * 64, ("tumour", "stroma"), "nucleus")
    monkeypatch.setattr("cellseg.judge.evaluate.load_detector", lambda *_, **__: typed)
    path = write_set(
        tmp_path, [PLACES], [PLACES], classes=("stroma", "tumour"), labels=[1, 2, 2, 2, 1]
    )
    evaluation, _ = ended(EvaluateRequest(data=(path,), protocol="he", prefilter=False))
    tables = evaluation.tables()
    # The stand-in calls everything the first class.
    assert (tables["class tumour"].count.truth, tables["class tumour"].count.found) == (3, 5)
    assert (tables["class stroma"].count.truth, tables["class stroma"].count.found) == (2, 0)
    assert tables["all"].f1[0.5] == 1


def test_other_classes_are_compared_without_them_and_that_is_said(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES], [PLACES], classes=("a", "b"), labels=[1, 2, 2, 2, 1])
    evaluation, events = ended(EvaluateRequest(data=(path,), protocol="he", prefilter=False))
    assert any("without their class" in e for e in events if isinstance(e, Notice))
    assert evaluation.scores().f1[0.5] == 1


def test_a_wrong_annotation_file_is_refused_with_its_faults(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES], [PLACES])
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match="no such image"):
        ended(EvaluateRequest(data=(path,)))


def test_a_set_is_called_as_its_folder(tmp_path, stand_in, monkeypatch):
    write_set(tmp_path, [PLACES], [PLACES])
    monkeypatch.chdir(tmp_path)
    evaluation, _ = ended(EvaluateRequest(data=(Path("val.json"),), protocol="he", prefilter=False))
    assert evaluation.images[0].group == f"{tmp_path.name}/histology"


def test_the_report_shows_tables_plots_and_the_worst_images_first(tmp_path, stand_in):
    truths = [PLACES, [*PLACES, (120, 20)], PLACES]
    drawn = [PLACES, PLACES[:2], PLACES]
    path = write_set(tmp_path, truths, drawn)
    evaluation, _ = ended(EvaluateRequest(data=(path,), protocol="he", prefilter=False))
    assert ranked(evaluation.images)[0] is evaluation.images[1]
    page = write_report(evaluation, tmp_path / "report")
    text = " ".join(page.read_text(encoding="utf-8").split())
    for name in re.findall(r'src="([^"]+)"', text):
        assert (page.parent / name).stat().st_size > 1000
    assert "worst-03.png" in text
    assert "the whole of a count, with the protocol he. Intervals" in text
    assert {*sample(evaluation.images)} == {*evaluation.images}
    for name in ("sample.jpg", "worst.jpg"):
        assert imread(tmp_path / "report" / name).ndim == 3
    assert text.index("other: 6 annotated, 2 counted") < text.index("0.png, ")
    written = json.loads((page.parent / "evaluation.json").read_text())
    assert written["scores"]["all"]["count"]["found"] == 12


def test_the_sheet_shows_every_group_from_its_worst_to_its_best():
    empty = Instances.empty()

    def one(group, right):
        """Four annotated squares, so many of them found."""
        truth = squares(*((0, 20 * k, 10, 20 * k + 10) for k in range(4)))
        found = truth.take(np.arange(right)) if right else empty
        return Judged(found, truth, (80, 80), name=group, group=group, score=0.5, **COUNTED)

    images = [one("a", k % 5) for k in range(40)] + [one("b", 1), one("c", 4), one("c", 0)]
    chosen = sample(images)
    groups = [image.group for image in chosen]
    assert [groups.count(name) for name in "abc"] == [4, 1, 2]
    found = [len(image.found) for image in chosen if image.group == "a"]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 4)


def test_the_command_prints_one_json_object_and_nothing_else(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES, []], [PLACES, []])
    result = CliRunner().invoke(
        command, [str(path), "--protocol", "he", "--no-prefilter", "--json"], catch_exceptions=False
    )
    data = json.loads(result.stdout)
    assert data["scores"]["all"]["f1"]["0.50"] == 1
    assert data["scores"]["other"]["f1"]["0.50"] is None
    assert [image["truth"] for image in data["images"]] == [5, 0]
    plain = CliRunner().invoke(command, [str(path), "--protocol", "he", "--no-prefilter"])
    assert "F1@.5" in plain.stdout
    assert "nan" not in plain.stdout  # a set without an object has no scores, one image no interval


def judged(found, truth):
    sides = squares(*found), squares(*truth)
    return Judged(*sides, (100, 100), name="a", group="b", score=0.5, **COUNTED)


def test_two_in_one_are_merged_and_one_in_two_is_split():
    two = [(0, 0, 10, 10), (0, 10, 10, 20)]
    one = [(0, 0, 10, 20)]
    assert fates(judged(one, two)) == (["merged"], ["merged", "merged"])
    assert fates(judged(two, one)) == (["split", "split"], ["split"])
    assert fates(judged(two, two)) == (["found", "found"], ["found", "found"])


def test_calibrate_writes_a_protocol_by_which_counts_carry_an_interval(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES] * 6, [PLACES] * 5 + [[*PLACES, (120, 60)]])
    target = tmp_path / "mine.yaml"
    options = ["--protocol", "he", "--no-prefilter", "--calibrate", str(target)]
    result = CliRunner().invoke(command, [str(path), *options], catch_exceptions=False)
    assert "count error +3.3%" in result.stderr
    protocol = load_protocol(target)
    assert protocol.calibration is not None
    assert (protocol.calibration.images, protocol.calibration.objects) == (6, 30)
    low, high = protocol.calibration.interval
    assert low == pytest.approx(5.5 / 6.5, abs=1e-3)
    assert high == 1
    detector = ThresholdDetector()
    request = CountRequest(
        image=tmp_path / "0.png", protocol=str(target), mpp=0.25, prefilter=False, overwrite=True
    )
    last, _ = counted(request, detector)
    assert last.summary.cells_interval == (4, 5)
    assert "95 %: 4 … 5" in str(last.summary)
    record = json.loads((last.folder / "run.json").read_text())
    assert record["summary"]["cells_interval"] == [4, 5]
    # Another score or other weights: the interval does not hold.
    last, _ = counted(replace(request, score=0.9), detector)
    assert last.summary.cells_interval is None
    detector.info = DetectorInfo("other", "f" * 64, ("nucleus",), "nucleus")
    last, _ = counted(request, detector)
    assert last.summary.cells_interval is None


def test_too_few_images_to_calibrate_on_are_refused_before_they_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.judge.evaluate.load_detector", pytest.fail)
    path = write_set(tmp_path, [PLACES] * 4, [PLACES] * 4)
    request = EvaluateRequest(data=(path,), protocol="he", calibrate=True)
    with pytest.raises(SettingsError, match="at least 5 images with objects, got 4 images with 20"):
        list(evaluate(request))
    result = CliRunner().invoke(command, [str(path), "--calibrate", str(tmp_path / "mine.yaml")])
    assert "at least 5 images" in str(result.exception)


def test_images_of_several_protocols_are_not_calibrated_together(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES] * 6, [PLACES] * 6)
    evaluation, _ = ended(EvaluateRequest(data=(path,), protocol="he", prefilter=False))
    first, *others = evaluation.images
    mixed = replace(evaluation, images=(replace(first, protocol=load_protocol("ihc")), *others))
    with pytest.raises(SettingsError, match="several protocols"):
        mixed.calibrated()
