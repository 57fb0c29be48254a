"""The slide's totals, made from parts, and what a run returns."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.api import Cells
from cellseg.errors import InputError
from cellseg.table import Scale
from cellseg.table.summary import SummaryBuilder

SCALE = Scale(2.0, 0.5)


def rows(areas, classes="a", touching=False, stitched=False):
    return pd.DataFrame(
        {"class": classes, "area_px": areas, "touches_border": touching, "stitched": stitched},
        index=range(len(areas)),
    )


def summary_of(*tables, scale=SCALE, tissue_mm2=None):
    builder = SummaryBuilder(["a", "b", "c"], object="nucleus", scale=scale)
    for table in tables:
        builder.add(table)
    return builder.build(tissue_mm2=tissue_mm2)


def test_totals():
    first = rows([10.0, 20.0, 30.0], ["a", "b", "a"], [True, False, False])
    second = rows([40.0, 50.0], "b", False, [True, True])
    summary = summary_of(first, second, tissue_mm2=0.5)
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
    for summary in (summary_of(), summary_of(rows([]), tissue_mm2=2.0)):
        assert summary.cells == 0
        assert summary.area_px is None
        assert summary.median_area_um2 is None
    assert summary.density_per_mm2 == 0
    assert summary_of(tissue_mm2=0.0).density_per_mm2 is None


def test_without_pixel_size_nothing_is_in_millimetres():
    summary = summary_of(rows([8.0]), scale=Scale(1.0, None), tissue_mm2=3.0)
    assert summary.area_px.median == 8
    assert summary.area_um2 is None
    assert summary.tissue_mm2 is None
    assert summary.density_per_mm2 is None
    assert summary.density_per_mm2_per_class is None


def test_unknown_class_is_refused():
    with pytest.raises(ValueError, match="unknown class 'z'"):
        summary_of(rows([1.0], "z"))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, 1e5, width=32)), max_size=30),
    st.integers(1, 7),
)
def test_parts_change_nothing(cells, size):
    whole = rows([area for _, area in cells], [name for name, _ in cells])
    parts = [whole.iloc[first : first + size] for first in range(0, len(whole), size)]
    assert summary_of(*parts, tissue_mm2=1.0) == summary_of(whole, tissue_mm2=1.0)


def test_summary_goes_through_json():
    summary = summary_of(rows([10.0, 20.0]), tissue_mm2=0.5)
    found = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert found == summary.as_dict()
    assert found["object"] == "nucleus"
    assert found["density_per_mm2"] == 4
    assert found["area_um2"]["quantiles"]["50"] == 3.75
    assert json.loads(json.dumps(summary_of().as_dict()))["area_px"] is None


def test_sentence_says_what_was_counted():
    many = rows([10.0, 20.0, 30.0], ["a", "b", "a"])
    assert str(summary_of(many, tissue_mm2=0.5)) == (
        "3 nuclei (2 a, 1 b, 0 c), median area 5.0 µm², 6 per mm² in 0.5 mm² of tissue"
    )
    builder = SummaryBuilder(["x"], object="cell", scale=Scale(1.0, None))
    assert str(builder.build()) == "0 cells"
    builder.add(rows([10.0], "x"))
    assert str(builder.build()) == "1 cell, median area 10 px²"


def test_the_table_is_read_when_it_is_asked_for():
    cells = Cells(summary_of(rows([10.0, 20.0])), Path("x.cellseg"), warnings=("no pixel size",))
    assert len(cells) == 2
    assert cells.warnings == ("no pixel size",)
    with pytest.raises(InputError, match="no such folder"):
        _ = cells.table
