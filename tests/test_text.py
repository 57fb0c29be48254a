"""Names from files: what a spreadsheet, a terminal or a page would obey is only shown."""

import csv
import gzip
import json
from dataclasses import replace

import finished
import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from synthetic import write_disc_slide
from synthetic.threshold import ThresholdDetector

from cellseg.counting.request import CountRequest
from cellseg.derive.corrections import Corrections
from cellseg.errors import SettingsError
from cellseg.export import EXPORTS, write_export
from cellseg.network.weights import ModelCard
from cellseg.protocol import Marker
from cellseg.result import load_result
from cellseg.run import change, save
from cellseg.slide import open_slide
from cellseg.text import as_cell, from_cell, time_left, visible, visible_lines

LINK = '=HYPERLINK("http://x")'
FORMULAS = [LINK, "+", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "plain", "'s"]
NASTY = "\x1b]0;owned\x07\x9b2J\u202egnp"


@given(st.text() | st.sampled_from(FORMULAS))
def test_a_cell_never_begins_a_formula_and_is_read_again(text):
    assert not as_cell(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert from_cell(as_cell(text)) == text


@given(st.text(), st.text())
def test_control_characters_are_shown(before, after):
    shown = visible(before + NASTY + after)
    assert shown.encode("utf-8", "surrogatepass").decode("utf-8", "strict") == shown
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e"}
    assert visible_lines(f"{before}\n{after}") == visible_lines(before) + "\n" + visible_lines(
        after
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "less than a minute left"), (100, "about 2 min left"), (3600, "about 1 h 0 min left")],
)
def test_the_time_left_in_words(seconds, words):
    assert time_left(seconds) == words


def test_a_json_text_keeps_its_content():
    for text in (json.dumps([NASTY], ensure_ascii=False), json.dumps([NASTY])):
        assert json.loads(visible_lines(text)) == [NASTY]


def counted_as(name, home):
    """A result whose detector calls every object so."""
    detector = ThresholdDetector()
    detector.info = replace(detector.info, classes=(name,))
    write_disc_slide(home / "a.tif", np.random.default_rng(0), shape=(200, 200))
    last, _ = finished.counted(CountRequest(image=home / "a.tif", prefilter=False), detector)
    return load_result(last.folder)


@pytest.fixture
def counted(tmp_path):
    return counted_as(LINK, tmp_path)


def column(path, name="class"):
    with path.open(newline="", encoding="utf-8") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_a_class_that_is_a_formula_is_text_in_the_table(counted):
    assert set(column(counted.file("cells.csv"))) == {f"'{LINK}"}
    assert set(counted.table.load()["class"]) == {LINK}
    assert set(counted.table.column("class")) == {LINK}
    assert set(counted.table.take(range(2))["class"]) == {LINK}
    assert list(counted.run["summary"]["cells_per_class"]) == [LINK]


def test_so_is_a_class_that_a_person_gave(counted):
    corrections = Corrections(counted)
    corrections.classify([1], "@SUM(A1)")
    saved = save(corrections)
    assert sorted(set(column(saved.file("cells.csv")))) == [f"'{LINK}", "'@SUM(A1)"]
    assert set(saved.table.load()["class"]) == {LINK, "@SUM(A1)"}


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A corrected result whose classes are named by a model, by markers and by a person."""
    result = counted_as(f"a\n{NASTY}", tmp_path_factory.mktemp("named"))
    assert set(result.table.load()["class"]) == {visible(f"a\n{NASTY}")}
    small = float(result.table.column("area_px").median())
    markers = [Marker(measure="area_px", threshold=small, name=name) for name in (LINK, NASTY)]
    corrections = Corrections(change(result.path, markers=tuple(markers)))
    for name in ("\n", NASTY, "b\0c"):
        with pytest.raises(SettingsError, match="expected a class name"):
            corrections.classify([1], name)
    corrections.classify([1], " b\n c\u2028d")
    corrections.classify([2], "@<img src=x onerror=alert(1)>/../e")
    return save(corrections)


def classes_in(path):
    """Class names as the packages that people open an export with read them."""
    if path.suffix == ".json":
        return {one["name"] for one in json.loads(path.read_text("utf-8"))["categories"]}
    if path.name.startswith("cells.geojson"):
        data = path.read_bytes()
        whole = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        return {one["properties"]["classification"]["name"] for one in whole["features"]}
    if path.suffix == ".zip":
        return {roi.properties["class"] for roi in roifile.roiread(path)}
    if path.suffix == ".h5ad":
        return {*pytest.importorskip("anndata").read_h5ad(path).obs["class"]}
    if path.suffix == ".zarr":
        found = pytest.importorskip("spatialdata").read_zarr(path).tables["table"]
        return {*found.obs["class"]}
    table = pd.read_excel(path) if path.suffix == ".xlsx" else pd.read_parquet(path)
    return {from_cell(name) if path.suffix == ".xlsx" else name for name in table["class"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "name", [name for name in EXPORTS if not name.startswith(("labels", "annotations"))]
)
def test_no_class_name_acts_in_exports(named, tmp_path, name):
    names = {*named.table.load()["class"]}
    assert {"b c d", "@<img src=x onerror=alert(1)>/../e"} < names
    assert len(names) > 3
    assert any(LINK in one for one in names)
    assert set(column(named.file("cells.csv"))) == {as_cell(one) for one in names}
    if name in ("cells.h5ad", "spatialdata.zarr"):
        pytest.importorskip("anndata" if name == "cells.h5ad" else "spatialdata")
    write_export(named, name, tmp_path / name)
    found = classes_in(tmp_path / name)
    assert found == ({*named.class_names} if name == "cells.coco.json" else names)
    assert all(visible(one) == one for one in found)


def test_a_models_names_show_their_control_characters():
    card = ModelCard(name=NASTY, classes=(NASTY, "b"))
    assert (card.name, card.classes) == (visible(NASTY), (visible(NASTY), "b"))


def test_a_channels_name_shows_its_control_characters(tmp_path):
    path = tmp_path / "a.ome.tif"
    names = ["DAPI\u202e", "b\x9b"]
    pixels = np.zeros((2, 64, 64), np.uint8)
    tifffile.imwrite(path, pixels, metadata={"axes": "CYX", "Channel": {"Name": names}})
    with open_slide(path) as slide:
        assert slide.channels == ("DAPI\\u202e", "b\\u009b")


@pytest.mark.parametrize(
    "args",
    [
        ("info", "{0}.tif"),
        ("info", "--json", "{0}.tif"),
        ("count", "{0}.tif"),
        ("count", "a.tif", "--protocol", "{0}"),
        ("count", "a.tif", "--channel", "{0}"),
        ("count", "a.tif", "--mpp", "{0}"),
        ("view", "a.tif", "{0}"),
        ("train", "{0}.json"),
        ("{0}",),
        ("count", "--{0}"),
    ],
)
def test_nothing_that_is_typed_or_named_steers_the_terminal(monkeypatch, cellseg, tmp_path, args):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector", lambda model, **_: ThresholdDetector()
    )
    write_disc_slide(tmp_path / "a.tif", np.random.default_rng(0), shape=(100, 100))
    said = "".join(cellseg(*(part.format(NASTY) for part in args))[1:])
    assert said
    assert not {c for c in said if visible_lines(c) != c}
    if args[0] == "info":
        assert "\\u001b" in said


def test_a_page_shows_them_too(tmp_path):
    from cellseg.draw.page import render_page

    template = tmp_path / "a.html"
    template.write_text('{% extends "frame.html" %}{% block body %}<p>{{ name }}</p>{% endblock %}')
    text = render_page(template, title=NASTY, name=f"<b>{NASTY}")
    assert f"<p>&lt;b&gt;{visible(NASTY)}</p>" in text
    assert f"<title>{visible(NASTY)}</title>" in text
