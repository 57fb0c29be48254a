"""What people read: fields for options, names for columns, scores of thresholds; no window."""

from pathlib import Path

import cellseg_napari
import numpy as np
import pytest
from cellseg_napari._classify_box import first_measure, marker_of, said, starting
from cellseg_napari._words import ACTIONS, by_interest, in_fields, menu

from cellseg.derive.scores import Blocks
from cellseg.errors import ExistingResultError, InputError
from cellseg.protocol import Marker
from cellseg.table import columns


def test_messages_name_the_fields_of_the_panel():
    existing = in_fields(ExistingResultError("another result", place="a.cellseg"))
    assert existing.endswith("holds another result (“overwrite”, “results in”)")
    assert in_fields(InputError("not enough memory", hint="tile")) == "not enough memory"


def test_what_a_file_is_called_stays():
    for text in ("slide--mpp.tif: no such file", "/data/--mpp/a.tif: damaged"):
        assert in_fields(text) == text
    assert "\x1b" not in in_fields("a\x1b[2J.tif: damaged")


def test_every_column_has_a_readable_name():
    found = columns(("red", "green", "blue"), stain="ihc", has_mpp=True)
    shown = menu((column.name, column.dtype) for column in found)
    assert shown[0] == ("area (µm²)", "area_um2")
    assert len({text for text, _ in shown}) == len(shown), "no two alike"
    assert not any("_" in text for text, _ in shown)
    assert ("dab od mean", "dab_od_mean") in shown
    assert ("axis major length (µm)", "axis_major_length_um") in shown
    assert "area_px" not in dict(shown).values()
    in_px = menu((c.name, c.dtype) for c in found if not c.unit.startswith("µm"))
    assert in_px[0] == ("area (px²)", "area_px")


def test_the_table_begins_with_what_is_asked_about():
    every = columns(("red", "green", "blue"), stain="ihc", has_mpp=True)
    found = by_interest([column.name for column in every])
    wanted = ("area_um2", "class", "dab_od_mean", "solidity", "centroid_y_um")
    places = [found.index(name) for name in wanted]
    assert places == sorted(places)
    assert places[0] == 0


def test_the_docs_list_every_key():
    docs = Path(cellseg_napari.__file__).parents[2] / "docs"
    text = (docs / "napari.md").read_text(encoding="utf-8")
    for key, what in ACTIONS.values():
        assert not key or f"| {key} | {what} |" in text


@pytest.mark.parametrize(
    ("thresholds", "codes", "text"),
    [
        ((0.3,), [0, 0, -1, 1, 1, 1], "DAB 60.0 % positive\n2 negative, 3 positive"),
        # (2 × 1 + 1 × 2 + 1 × 3) / 5 × 100
        (
            (0.2, 0.35, 0.8),
            [0, 1, -1, 1, 2, 3],
            "DAB 80.0 % positive, H-score 140, Allred 7\n1 negative, 2 1+, 1 2+, 1 3+",
        ),
    ],
)
def test_positive_cells_are_told(thresholds, codes, text):
    assert said(np.array(codes), marker_of("dab_od_mean", thresholds)) == text


def test_handles_at_one_place_are_three_thresholds():
    low, middle, high = marker_of("dab_od_mean", (0.3, 0.3, 0.3)).threshold
    assert 0.3 == low < middle < high == pytest.approx(0.3)


def test_an_interval_is_told():
    marker = Marker(measure="intensity_mean_cd3", threshold=400)
    codes, blocks = np.repeat([0, 1], [80, 20]), Blocks(np.arange(100) % 20, 20, 100.0)
    assert "cd3 20.0 % positive (95 %: " in said(codes, marker, blocks)
    assert "no cell was measured" in said(np.array([-1]), marker)


def test_thresholds_begin_inside_the_values():
    values = np.random.default_rng(0).normal(1, 0.1, 1000)
    (one,) = starting(values, 1)
    assert values.min() < one < values.max()
    three = starting(values, 3)
    assert list(three) == sorted(set(three))
    assert starting(np.array([np.nan]), 1) == (0.5,)


@pytest.mark.parametrize(
    "names",
    [["dab_od_mean", "area_um2", "hematoxylin_od_mean"], ["intensity_mean_cd3", "area_um2"],
     ["area_um2"], [""]],
)  # fmt: skip
def test_stains_come_first(names):
    assert first_measure(sorted(filter(None, names))) == names[0]
