"""Plates: fields by well, and holes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zarr
from microscopes import plate

from cellseg.errors import InputError
from cellseg.slide import open_slide, slide_name
from cellseg.slide.formats import home_of, image_name
from cellseg.slide.plates import read_plate


@pytest.mark.parametrize("version", [2, 3])
def test_fields_by_well_and_holes(tmp_path, version):
    path = plate(tmp_path / "screen.ome.zarr", version)
    fields, missing = read_plate(path)
    assert [image_name(field).removeprefix("screen-") for field in fields] == [
        "A01-0", "A01-1", "B03-0",
    ]  # fmt: skip
    assert missing == ["B03/1", "C07"]
    with open_slide(fields[2]) as slide:
        assert slide.name == "screen-B03-0"
        assert slide.overview()[0].max() == 660 % 256
    with pytest.raises(InputError, match="is a plate"):
        open_slide(path)


def test_what_is_no_plate(tmp_path):
    assert read_plate(tmp_path) is None
    empty = tmp_path / "empty.zarr"
    zarr.open_group(str(empty), mode="w", zarr_format=2)
    assert read_plate(empty) is None
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1"}]}}))
    with pytest.raises(InputError, match="without a field"):
        read_plate(empty)
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": "none"}}))
    with pytest.raises(InputError, match="no readable plate"):
        read_plate(empty)


def test_wells_never_lead_out(tmp_path):
    plate(tmp_path / "secret.zarr")
    path = plate(tmp_path / "screen.zarr")
    (path / "A" / "01").rename(tmp_path / "moved")
    (path / "A" / "01").symlink_to(tmp_path / "secret.zarr" / "A" / "01")
    with pytest.raises(InputError, match="point outside"):
        read_plate(path)
    (path / "A" / "01").unlink()
    (tmp_path / "moved").rename(path / "A" / "01")
    (path / "A" / "01" / "0").rename(tmp_path / "moved")
    (path / "A" / "01" / "0").symlink_to(tmp_path / "secret.zarr" / "A" / "01" / "0")
    with pytest.raises(InputError, match="point outside"):
        read_plate(path)


@pytest.mark.parametrize(
    "where", ["A/01/0", "A/B/C", "A", "A//01", "A/./01", "/A/01", "../../A/1", "A/..", ""]
)
def test_a_well_lies_in_a_row_and_a_column(tmp_path, where):
    path = plate(tmp_path / "screen.zarr")
    (path / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": where}]}}))
    with pytest.raises(InputError, match="ROW/COLUMN"):
        read_plate(path)


def test_what_is_listed_again_and_again_is_there_once(tmp_path):
    path = plate(tmp_path / "screen.zarr")
    wells, fields = [{"path": "A/01"}] * 30_000, [{"path": "0"}] * 30
    (path / ".zattrs").write_text(json.dumps({"plate": {"wells": wells}}))
    (path / "A" / "01" / ".zattrs").write_text(json.dumps({"well": {"images": fields}}))
    assert read_plate(path) == ([path / "A" / "01" / "0"], [])


def test_names_that_only_look_alike():
    assert slide_name(Path("a/b/c/S21.12.tif")) == "S21.12"
    assert slide_name(Path("plate.zarr/B/03/0")) == "plate-B03-0"
    assert image_name(Path("plate.zarr/B/03/0")) == "plate-B03-0"
    assert image_name(Path("S21.12.tif")) == "S21.12.tif"
    assert home_of(Path("slides/a.tif")) == Path("slides")
