"""``cellseg evaluate``: annotated images and centres through the whole of a count."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from finished import counted, table_of
from imageio.v3 import imread, imwrite
from skimage.data import immunohistochemistry
from squares import squares
from synthetic.threshold import ThresholdDetector

from cellseg.cli.evaluate import evaluate as command
from cellseg.counting.request import CountRequest
from cellseg.errors import InputError, Notice, SettingsError
from cellseg.judge.centres import CentreEvaluation, Centres, matched, read_points
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, ImageDone, evaluate
from cellseg.judge.judged import Judged, fates, tally
from cellseg.judge.report import ranked, sample, write_report
from cellseg.network.detector import DetectorInfo
from cellseg.network.modelfile import SHIPPED
from cellseg.protocol import load_protocol

COUNTED = {"path": Path("a.png"), "protocol": load_protocol("he"), "model": "1" * 64}

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
            ids = {"id": len(annotations), "image_id": number, "category_id": kind}
            outline = [x, y, x + 12, y, x + 12, y + 12, x, y + 12]
            square = {"segmentation": [outline], "bbox": [x, y, 12, 12], "area": 144}
            annotations.append({**ids, **square, "iscrowd": 0})
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    path = folder / "val.json"
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """A threshold in the network's place."""
    detector = ThresholdDetector()
    monkeypatch.setattr("cellseg.judge.evaluate.load_detector", lambda *_, **__: detector)
    return detector


PLACES = [(20, 20), (20, 60), (60, 20), (60, 90), (100, 150)]


def evaluated(path):
    events = list(evaluate(EvaluateRequest(data=(path,), protocol="he", prefilter=False)))
    assert isinstance(events[-1], Evaluation)
    return events[-1], events


def test_what_was_drawn_is_found_missed_and_invented_as_it_was_drawn(tmp_path, stand_in):
    truths = [PLACES, [*PLACES, (120, 20)]]
    drawn = [[*PLACES, (120, 60)], PLACES]
    path = write_set(tmp_path, truths, drawn)
    evaluation, events = evaluated(path)
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
    evaluation, _ = evaluated(path)
    request = CountRequest(image=tmp_path / "0.png", protocol="he", mpp=0.25, prefilter=False)
    last, _ = counted(request)
    found = evaluation.images[0].found
    assert sorted(found.areas) == sorted(table_of(last)["area_px"])
    boxes = table_of(last)[["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px"]]
    assert sorted(found.boxes.tolist()) == sorted(boxes.to_numpy().astype(int).tolist())


def test_classes_are_matched_by_name_and_told_apart(tmp_path, stand_in):
    stand_in.info = DetectorInfo("typed", "0" * 64, ("tumour", "stroma"), "nucleus")
    path = write_set(
        tmp_path, [PLACES], [PLACES], classes=("stroma", "tumour"), labels=[1, 2, 2, 2, 1]
    )
    evaluation, _ = evaluated(path)
    tables = evaluation.tables()
    # The stand-in calls everything the first class.
    assert (tables["class tumour"].count.truth, tables["class tumour"].count.found) == (3, 5)
    assert (tables["class stroma"].count.truth, tables["class stroma"].count.found) == (2, 0)
    assert tables["all"].f1[0.5] == 1


def test_other_classes_are_compared_without_them_and_that_is_said(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES], [PLACES], classes=("a", "b"), labels=[1, 2, 2, 2, 1])
    evaluation, events = evaluated(path)
    assert any("without their class" in e for e in events if isinstance(e, Notice))
    assert evaluation.scores().f1[0.5] == 1


def test_a_wrong_annotation_file_is_refused_with_its_faults(tmp_path, stand_in):
    path = write_set(tmp_path, [PLACES], [PLACES])
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match="no such image"):
        evaluated(path)


def test_a_set_is_called_as_its_folder(tmp_path, stand_in, monkeypatch):
    write_set(tmp_path, [PLACES], [PLACES])
    monkeypatch.chdir(tmp_path)
    evaluation, _ = evaluated(Path("val.json"))
    assert evaluation.images[0].group == f"{tmp_path.name}/histology"


def test_an_image_is_counted_by_the_model_of_its_protocol(tmp_path):
    path = write_set(tmp_path, [PLACES, PLACES], [PLACES, PLACES])
    imwrite(tmp_path / "0.png", immunohistochemistry()[:160, :200])
    imwrite(
        tmp_path / "1.png",
        np.asarray(imread(tmp_path / "1.png") == NUCLEUS)[..., 0] * np.uint8(200),
    )
    *_, evaluation = evaluate(EvaluateRequest(data=(path,)))
    told = [(image.protocol.name, image.model) for image in evaluation.images]
    assert told == [("ihc", SHIPPED["ihc"]), ("fluorescence", SHIPPED["default"])]


def test_the_report_shows_tables_plots_and_the_worst_images_first(tmp_path, stand_in):
    truths = [PLACES, [*PLACES, (120, 20)], PLACES]
    drawn = [PLACES, PLACES[:2], PLACES]
    path = write_set(tmp_path, truths, drawn)
    evaluation, _ = evaluated(path)
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
    def one(group, right):
        """Four annotated squares, so many of them found."""
        truth = squares(*((0, 20 * k, 10, 20 * k + 10) for k in range(4)))
        return judged(truth.take(np.arange(right)), truth, group)

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


def judged(found, truth, group="b"):
    return Judged(found, truth, (100, 100), name=group, group=group, score=0.5, **COUNTED)


def test_two_in_one_are_merged_and_one_in_two_is_split():
    two, one = squares((0, 0, 10, 10), (0, 10, 10, 20)), squares((0, 0, 10, 20))
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
    evaluation, _ = evaluated(path)
    first, *others = evaluation.images
    mixed = replace(evaluation, images=(replace(first, protocol=load_protocol("ihc")), *others))
    with pytest.raises(SettingsError, match="several protocols"):
        mixed.calibrated()


CELLS = [(30, 40), (30, 100), (90, 60), (120, 150)]


@pytest.mark.parametrize(
    ("found", "truth", "within", "pairs"),
    [
        ([], [], 3, []),
        ([], [(0, 0)], 3, []),
        ([(0, 0)], [(0, 3)], 3, [(0, 0)]),
        ([(0, 0)], [(0, 3.01)], 3, []),
        # One centre serves once.
        ([(0, 0), (0, 1)], [(0, 0)], 3, [(0, 0)]),
        # As many pairs as there can be, although the nearest two would be one shorter pair.
        ([(0, 0), (0, 2)], [(0, 2), (0, 5)], 3, [(0, 0), (1, 1)]),
        # Of as many, the least total distance.
        ([(0, 0), (0, 2)], [(0, 2.1), (0, 0.1)], 3, [(0, 1), (1, 0)]),
    ],
)
def test_pairs(found, truth, within, pairs):
    rows, columns = matched(np.array(found, float), np.array(truth, float), within)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


def field(*sides):
    """Found and annotated rows of (x, class)."""
    return tuple(
        Centres(
            "a.png",
            np.array([(x, 0) for x, _ in rows], float).reshape(-1, 2),
            np.array([kind for _, kind in rows], object),
        )
        for rows in sides
    )


def test_scores():
    fields = (
        field([(0, "a"), (10, "b"), (20, ""), (90, "a")], [(0, "a"), (10, "a"), (20, "b")]),
        field([], [(5, "b")]),
    )
    said = CentreEvaluation(fields, ("a", "b"), 3, "drawn").as_dict()
    assert (said["images"], said["counted"], said["annotated"]) == (2, 4, 4)
    assert (said["f1"], said["bias"]) == (pytest.approx(6 / 8), 0)
    assert said["error_per_image"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-5)
    assert said["classes"] == {
        "a": {"annotated": 2, "counted": 2, "bias": 0, "f1": 2 / 4,
              "found_as": {"a": 1, "b": 1, "none": 0}},
        "b": {"annotated": 2, "counted": 1, "bias": -0.5, "f1": 0,
              "found_as": {"a": 0, "b": 0, "none": 1}},
    }  # fmt: skip
    assert said["mean_class_f1"] == 0.25
    assert CentreEvaluation((), (), 3, "drawn").as_dict()["f1"] is None


@pytest.fixture
def folder(tmp_path, stand_in):
    """An image with dark squares, a detector that calls them all ``round``."""
    stand_in.info = DetectorInfo("drawn", "0" * 12, ("round", "long"), "cell")
    picture = np.full((160, 200, 3), WHITE, np.uint8)
    for y, x in CELLS:
        picture[y - 6 : y + 6, x - 6 : x + 6] = NUCLEUS
    (tmp_path / "images").mkdir()
    imwrite(tmp_path / "images" / "a.png", picture)
    return tmp_path


def write(folder, rows, head="image,x,y,class"):
    path = folder / "centres.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_counts_and_classes(folder):
    # One of another class, one 4 px (1 µm) and half a pixel off, one that is not there.
    rows = ["a.png,40,30,round", "a.png,104,30,round", "a.png,60,90,long", "a.png,10,150,long"]
    options = ["--mpp", "0.25", "--protocol", "he", "--no-prefilter", "--within", "1.2"]
    done = CliRunner().invoke(command, [str(write(folder, rows)), *options, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["annotated"], said["counted"], said["images"]) == (4, 4, 1)
    assert said["f1"] == pytest.approx(3 / 4)
    assert said["classes"]["round"]["f1"] == pytest.approx(2 * 2 / (2 + 4), abs=1e-4)
    assert said["classes"]["long"]["f1"] == 0
    assert said["classes"]["long"]["found_as"] == {"long": 0, "round": 1, "none": 0}
    nearer = [*options[:-1], "0.9"]
    done = CliRunner().invoke(command, [str(folder / "centres.csv"), *nearer, "--json"])
    assert json.loads(done.stdout)["f1"] == pytest.approx(2 / 4)
    done = CliRunner().invoke(command, [str(folder / "centres.csv"), *options])
    assert "mean F1 of the classes" in done.stdout


def test_an_image_without_cells(folder):
    imwrite(folder / "images" / "empty.png", np.full((64, 64, 3), 240, np.uint8))
    (first, second) = read_points(write(folder, ["a.png,1,2,", "empty.png,,,"]))
    assert (len(first.places), [*first.classes], len(second.places)) == (1, [""], 0)
    assert first.places.tolist() == [[2, 1]]


def test_a_table_from_a_spreadsheet_with_semicolons(folder):
    (one,) = read_points(write(folder, ["a.png;1,5;2;x", "a.png;3;4,25;y"], "image;x;y;class"))
    assert one.places.tolist() == [[2, 1.5], [4.25, 3]]
    assert one.classes.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        (["a.png,1,2"], "image,x,z", "lacks the columns y"),
        (["a.png,one,2,"], "image,x,y,class", "line 2: no place"),
        (["a.png,nan,2,"], "image,x,y,class", "line 2: no place"),
        ([], "image,x,y,class", "no images in this table"),
    ],
)
def test_tables_that_are_none(folder, rows, head, said):
    with pytest.raises(InputError, match=said):
        read_points(write(folder, rows, head))


@pytest.mark.parametrize(
    ("rows", "options", "code", "said"),
    [
        (["a.png,500,2,"], [], 4, "1 centres lie outside of the image"),
        (["../a.png,5,2,"], [], 4, "is no file's name"),
        (["b.png,5,2,"], [], 4, "b.png lies in none of"),
        (["a.png,5,2,"], ["--calibrate", "x.yaml"], 2, "want outlines"),
    ],
)
def test_what_cannot_be_compared(folder, rows, options, code, said):
    arguments = [str(write(folder, rows)), "--mpp", "0.25", "--protocol", "he", *options]
    done = CliRunner().invoke(command, arguments)
    assert done.exception.exit_code == code
    assert said in str(done.exception)
