"""The slide's totals, and what a run returns."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellseg.api import Cells
from cellseg.errors import InputError
from cellseg.table.summary import summarised

MPP = 0.5


def rows(areas, classes="a", touching=False, stitched=False):
    return pd.DataFrame(
        {"class": classes, "area_px": areas, "touches_border": touching, "stitched": stitched},
        index=range(len(areas)),
    )


def summary_of(table, mpp=MPP, tissue_mm2=None):
    return summarised(table, ["a", "b", "c"], object="nucleus", mpp=mpp, tissue_mm2=tissue_mm2)


def test_totals():
    first, last = [True, False, False, False, False], [False, False, False, True, True]
    table = rows([10.0, 20.0, 30.0, 40.0, 50.0], [*"ababb"], first, last)
    summary = summary_of(table, tissue_mm2=0.5)
    assert summary.cells == 5
    assert list(summary.cells_per_class.items()) == [("a", 2), ("b", 3), ("c", 0)]
    assert (summary.touching_border, summary.stitched) == (1, 2)
    assert summary.density_per_mm2 == 10
    assert summary.density_per_mm2_per_class == {"a": 4, "b": 6, "c": 0}
    assert summary.area_px.median == 30
    assert summary.area_px.quantiles == {5: 12, 25: 20, 50: 30, 75: 40, 95: 48}
    assert (summary.area_px.mean, summary.area_px.minimum, summary.area_px.maximum) == (30, 10, 50)
    assert summary.area_px.std == pytest.approx(np.sqrt(200))
    assert summary.median_area_um2 == 30 * 0.25
    assert summary.area_um2.std == pytest.approx(np.sqrt(200) * 0.25)


def test_no_cells():
    summary = summary_of(rows([]), tissue_mm2=2.0)
    assert summary.cells == 0
    assert summary.area_px is None
    assert summary.median_area_um2 is None
    assert summary.density_per_mm2 == 0
    assert summary_of(rows([]), tissue_mm2=0.0).density_per_mm2 is None


def test_without_pixel_size_nothing_is_in_millimetres():
    summary = summary_of(rows([8.0]), mpp=None, tissue_mm2=3.0)
    assert summary.area_px.median == 8
    assert summary.area_um2 is None
    assert summary.tissue_mm2 is None
    assert summary.density_per_mm2 is None
    assert summary.density_per_mm2_per_class is None


def test_unknown_class_is_refused():
    with pytest.raises(ValueError, match="unknown class 'z'"):
        summary_of(rows([1.0], "z"))


def test_summary_goes_through_json():
    summary = summary_of(rows([10.0, 20.0]), tissue_mm2=0.5)
    found = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert found == summary.as_dict()
    assert found["object"] == "nucleus"
    assert found["density_per_mm2"] == 4
    assert found["area_um2"]["quantiles"]["50"] == 3.75
    assert json.loads(json.dumps(summary_of(rows([])).as_dict()))["area_px"] is None


def test_sentence_says_what_was_counted():
    many = rows([10.0, 20.0, 30.0], ["a", "b", "a"])
    assert str(summary_of(many, tissue_mm2=0.5)) == (
        "3 nuclei (2 a, 1 b, 0 c), median area 5.0 µm², 6 per mm² in 0.5 mm² of tissue"
    )
    for areas, said in (([], "0 cells"), ([10.0], "1 cell, median area 10 px²")):
        assert str(summarised(rows(areas, "x"), ["x"], object="cell", mpp=None)) == said


def test_the_table_is_read_when_it_is_asked_for():
    cells = Cells(summary_of(rows([10.0, 20.0])), Path("x.cellseg"), warnings=("no pixel size",))
    assert len(cells) == 2
    assert cells.warnings == ("no pixel size",)
    with pytest.raises(InputError, match="no such folder"):
        _ = cells.table
