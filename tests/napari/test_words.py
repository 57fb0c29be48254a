"""What people read: fields in place of options, names in place of columns."""

from __future__ import annotations

from pathlib import Path

from cellseg_napari._words import ACTIONS, by_interest, in_fields, menu

import cellseg
from cellseg.errors import ExistingResultError, InputError
from cellseg.table import columns

HOME = Path(cellseg.__file__).parent


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
    text = (HOME.parent / "docs" / "napari.md").read_text(encoding="utf-8")
    for key, what in ACTIONS.values():
        assert not key or f"| {key} | {what} |" in text
