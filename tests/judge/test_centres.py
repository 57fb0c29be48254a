"""Evaluation on annotated centres."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from imageio.v3 import imwrite
from synthetic.threshold import ThresholdDetector

from cellseg.cli.evaluate import evaluate as command
from cellseg.errors import InputError
from cellseg.judge.centres import CentreEvaluation, Centres, matched, read_points
from cellseg.network.detector import DetectorInfo

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
def folder(tmp_path, monkeypatch):
    """An image with dark squares, a detector that calls them all ``round``."""
    detector = ThresholdDetector()
    detector.info = DetectorInfo("drawn", "0" * 12, ("round", "long"), "cell")
    monkeypatch.setattr("cellseg.judge.evaluate.load_detector", lambda *_, **__: detector)
    picture = np.full((160, 200, 3), (236, 214, 228), np.uint8)
    for y, x in CELLS:
        picture[y - 6 : y + 6, x - 6 : x + 6] = (80, 50, 140)
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
