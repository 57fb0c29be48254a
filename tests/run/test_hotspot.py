"""A hot spot in a result: derived, kept by later changes, told in every file."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from finished import counted, request_for, told
from PIL import Image
from synthetic.discs import draw_discs
from synthetic.tiff import PyramidLayout, write_pyramid

from cellseg.derive import Recipe
from cellseg.errors import SettingsError
from cellseg.protocol import Marker
from cellseg.result import load_result
from cellseg.run import change
from cellseg.study.folder import load_study, write_summary
from cellseg.study.page import write_study
from cellseg.table.hotspot import HotSpot

LARGE = (Marker(measure="area_um2", threshold=45.0, name="large"),)
ASKED = HotSpot(mm2=0.01)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Small discs, and two groups of large ones."""
    path = tmp_path_factory.mktemp("hot") / "discs.tif"
    rng = np.random.default_rng(4)
    image = draw_discs((720, 920), rng, radius_px=(5, 6)).image.copy()
    large = draw_discs((720, 920), rng, radius_px=(10, 12)).image
    for rows, columns in ((slice(200, 440), slice(480, 720)), (slice(600, 640), slice(40, 240))):
        image[rows, columns] = large[rows, columns]
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    return path


def result_of(slide, home, **settings):
    result, events = counted(request_for(slide, output=home, **settings))
    return told(events), result


def test_the_hot_spot_is_derived_and_told_everywhere(slide, tmp_path):
    _, result = result_of(slide, tmp_path)
    plain = np.asarray(Image.open(result.folder / "overview.png"))
    said = []
    found = change(result.folder, markers=LARGE, hotspot=ASKED, on_notice=said.append)
    record = found.section("hotspot")
    assert (record["y_px"], record["x_px"]) == pytest.approx((320, 600), abs=40)
    assert record["hot"] == record["cells"]
    assert record["slide_share"] < 0.2 < record["shuffled_share"][0] < record["shuffled_share"][1]
    assert any("its share is too high" in text and "shuffled" in text for text in said)
    (region,) = found.summary.regions
    assert (region.name, region.cells) == ("hot spot", record["cells"])
    assert region.area_mm2 == pytest.approx(0.01, rel=0.01)
    assert region.said("nucleus").startswith(f"in hot spot: {region.cells} nuclei")
    (marker,) = found.summary.labelling
    assert marker["regions"]["hot spot"]["index"] == 1.0
    assert marker["regions"]["hot spot"]["index_interval"] == record["index_interval"]
    assert "of the slide" not in str(found.summary)
    later = change(result.folder, expand=3.0)
    assert later.section("hotspot") == record
    assert Recipe.of(later).hotspot == ASKED
    marked = np.asarray(Image.open(result.folder / "overview.png"))
    assert plain.shape != marked.shape or (plain != marked).any()
    study = load_study(tmp_path)
    write_summary(study)
    whole, row = csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    assert (whole["region"], row["region"]) == ("", "hot spot")
    assert float(row["positive_percent_large"]) == 100
    write_study(study)
    assert "with the classes shuffled" in (tmp_path / "report.html").read_text()
    assert "hot spot" not in (result.folder / "cells.csv").read_text()
    gone = change(result.folder, hotspot=None)
    assert gone.section("hotspot") == {}
    assert gone.summary.regions == ()


def test_a_finished_count_gets_the_hot_spot_that_is_asked_for(slide, tmp_path):
    result_of(slide, tmp_path)
    said, result = result_of(slide, tmp_path, recipe=Recipe(hotspot=HotSpot(cells=60)))
    assert any("nothing to do" in text for text in said)
    assert [one.cells for one in result.summary.regions] == [60]
    record = json.loads((result.folder / "run.json").read_text())["hotspot"]
    assert record["shuffled_share"] is None  # cells of one kind: nothing can be shuffled


def test_a_hot_spot_larger_than_the_tissue_is_one_line(slide, tmp_path):
    said, result = result_of(slide, tmp_path, recipe=Recipe(hotspot=HotSpot(mm2=5)))
    assert [text for text in said if "5 mm² are more than the tissue" in text]
    assert result.summary.regions == ()
    with pytest.raises(SettingsError, match=r"9 mm² are more than the tissue, which is 0\.166 mm²"):
        change(result.folder, hotspot=HotSpot(mm2=9))
    with pytest.raises(SettingsError, match="there are no cells of class 'tumour', but of nucleus"):
        change(result.folder, hotspot=HotSpot(cells=50, of="tumour"))
    assert load_result(result.folder).changed() is None
    change(result.folder, spatial=True)  # what cannot be is no fault of another decision


def test_a_slide_without_positive_cells_has_its_densest_place(slide, tmp_path):
    none = (Marker(measure="area_um2", threshold=1e5, name="large"),)
    _, result = result_of(slide, tmp_path)
    told = []
    found = change(result.folder, markers=none, hotspot=ASKED, on_notice=told.append)
    assert any(text.endswith("the densest place; no cell is positive") for text in told)
    record = found.section("hotspot")
    assert record["hot"] == 0 < record["cells"]
    assert record["shuffled_share"] is record["index_interval"] is None
