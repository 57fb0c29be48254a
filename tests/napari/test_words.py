"""What people read: fields in place of options, names in place of columns."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("napari", reason='napari is not installed: pip install ".[napari]"')
pytest.importorskip("cellseg_napari", reason="the plugin is not installed")

from cellseg_napari._shortcuts import KEYS
from cellseg_napari._words import FIELDS, counted, in_fields, measurement, menu

import cellseg
from cellseg.errors import ExistingResultError
from cellseg.table import columns

HOME = Path(cellseg.__file__).parent

ONLY_ON_THE_COMMAND_LINE = {
    "series", "tile", "scheduler", "scheduler-file", "engine", "precision",
    "box", "image", "calibrate", "json", "strict", "batch", "t", "max-memory", "within",
}  # fmt: skip
"""Options that no panel has a field for."""


def said_in(room: str) -> set[str]:
    """Options that stand in the texts of a room, docstrings left out."""
    found: set[str] = set()
    for path in (HOME / room).rglob("*.py") if (HOME / room).is_dir() else [HOME / room]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docs:
                found |= set(re.findall(r"--([a-z][a-z-]*)", str(node.value)))
    return found


@pytest.mark.parametrize(
    "room",
    ["counting", "pipeline", "slide", "results", "classify", "detect", "errors.py", "protocol.py"],
)
def test_every_option_in_a_message_has_a_field(room: str) -> None:
    assert said_in(room) <= set(FIELDS) | ONLY_ON_THE_COMMAND_LINE


def test_messages_read_well() -> None:
    existing = in_fields(str(ExistingResultError("another result", place="a.cellseg")))
    assert existing.endswith(
        "; the box “overwrite” replaces it, another folder in “results in” keeps it"
    )
    assert in_fields("pass --mpp (µm per pixel), or --diameter PX of a usual object") == (
        "fill in “µm per pixel”, or “diameter, px” of a usual object"
    )
    assert in_fields("--no-prefilter looks everywhere") == (
        "“tissue only” switched off looks everywhere"
    )
    assert in_fields("take a smaller --tile") == "take a smaller `--tile` of the command line"


def test_what_a_file_is_called_stays() -> None:
    for text in ("slide--mpp.tif: no such file", "/data/--mpp/a.tif: damaged"):
        assert in_fields(text) == text
    assert "\x1b" not in in_fields("a\x1b[2J.tif: damaged")


def test_every_column_has_a_readable_name() -> None:
    found = columns(("red", "green", "blue"), stain="ihc", has_mpp=True)
    shown = menu((column.name, column.dtype) for column in found)
    assert shown[0] == ("area (µm²)", "area_um2")
    assert len({text for text, _ in shown}) == len(shown), "no two alike"
    assert not any("_" in text for text, _ in shown)
    assert ("DAB, optical density", "dab_od_mean") in shown
    assert ("red, mean intensity", "intensity_mean_red") in shown
    assert ("long axis (µm)", "axis_major_length_um") in shown
    assert "area_px" not in dict(shown).values()
    in_px = menu((c.name, c.dtype) for c in found if not c.unit.startswith("µm"))
    assert in_px[0] == ("area (px²)", "area_px")
    assert measurement("cell_intensity_mean_cd3") == "cd3, mean intensity (cell)"


def test_the_docs_list_every_key() -> None:
    text = (HOME.parent / "docs" / "napari.md").read_text(encoding="utf-8")
    for key, what in KEYS.values():
        assert f"| {key} | {what} |" in text


def test_numbers_with_what_they_count() -> None:
    assert [counted(n, "cell") for n in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]
