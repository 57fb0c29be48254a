"""Plates: fields by well, and holes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from cellseg.cli.count import find_images, folder_names
from cellseg.errors import InputError
from cellseg.slide import open_slide, slide_name
from cellseg.slide.formats import home_of
from cellseg.slide.plates import is_plate, read_plate

AXES = [{"name": axis, "unit": "micrometer"} for axis in "yx"]


def plate(path: Path, version: int = 2) -> Path:
    """Wells A01 (two fields), B03 (the second field missing) and C07 (missing)."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)

    def said(where: str, entry: dict[str, object]) -> None:
        one = group.require_group(where) if where else group
        one.attrs.update({"ome": {"version": "0.5", **entry}} if version == 3 else entry)

    said("", {"plate": {"wells": [{"path": p} for p in ("A/01", "B/03", "C/07")]}})
    for well, fields in (("A/01", (0, 1)), ("B/03", (0,))):
        said(well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for field in fields:
            value = 10 * ord(well[0]) % 256 + field
            group.create_array(f"{well}/{field}/0", data=np.full((20, 30), value, np.uint8))
            said(f"{well}/{field}", {"multiscales": [
                {"version": "0.4", "axes": AXES, "datasets": [{"path": "0"}]}
            ]})  # fmt: skip
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_fields_by_well_and_holes(tmp_path: Path, version: int) -> None:
    path = plate(tmp_path / "screen.ome.zarr", version)
    assert is_plate(path)
    found = read_plate(path)
    assert [(field.well, field.number) for field in found.fields] == [
        ("A01", 0), ("A01", 1), ("B03", 0),
    ]  # fmt: skip
    assert found.missing == ("B03/1", "C07")
    with open_slide(found.fields[2].path) as slide:
        assert slide.name == "screen-B03-0"
        assert slide.overview()[0].max() == 660 % 256
    with pytest.raises(InputError, match="is a plate"):
        open_slide(path)


def test_the_command_counts_the_fields_and_names_the_holes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plate(tmp_path / "screen.zarr")
    images = find_images((path,))
    assert folder_names(images, None) == [
        "screen-A01-0.cellseg", "screen-A01-1.cellseg", "screen-B03-0.cellseg",
    ]  # fmt: skip
    assert {home_of(image) for image in images} == {tmp_path}
    assert "2 of its wells or fields are not there: B03/1, C07" in capsys.readouterr().err


def test_what_is_no_plate(tmp_path: Path) -> None:
    assert not is_plate(tmp_path)
    empty = tmp_path / "empty.zarr"
    zarr.open_group(str(empty), mode="w", zarr_format=2)
    assert not is_plate(empty)
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1"}]}}))
    with pytest.raises(InputError, match="without a field"):
        read_plate(empty)
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "../../A/1"}]}}))
    with pytest.raises(InputError, match="outside"):
        read_plate(empty)
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": "none"}}))
    with pytest.raises(InputError, match="no readable plate"):
        read_plate(empty)


def test_names_that_only_look_alike() -> None:
    assert slide_name(Path("a/b/c/S21.12.tif")) == "S21.12"
    assert slide_name(Path("plate.zarr/B/03/0")) == "plate-B03-0"
    assert home_of(Path("slides/a.tif")) == Path("slides")
