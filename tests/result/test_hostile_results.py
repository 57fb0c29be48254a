"""Results from somebody else, or from a disk that fails: read with as much care as slides."""

import json
import os
import pickle
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from finished import changed_file, counted_folder, edit
from synthetic import write_disc_slide

from cellseg.derive import Recipe
from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError
from cellseg.result import load_result


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "a.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(300, 300))
    return counted_folder(path, "he", mpp=0.25)


@pytest.fixture
def result(counted, tmp_path):
    return shutil.copytree(counted, tmp_path / "a.cellseg")


def array_of(result, **changes):
    """Change what the finest level of the masks says of itself."""
    path = result / "labels.ome.zarr" / "0" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path.parent / "0" / "0"


class Trap:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_masks_are_never_unpickled(result, tmp_path, where):
    sprung = tmp_path / "sprung"
    codec = {"id": "pickle", "protocol": 4}
    given = (
        {"filters": [codec], "compressor": None} if where == "filters" else {"compressor": codec}
    )
    array_of(result, **given).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match=r"labels\.ome\.zarr"):
        load_result(result).labels()[0][:]
    assert not sprung.exists()


def read(folder):
    """All that is read of a result."""
    result = load_result(folder)
    Recipe.of(result)
    result.labels()[0][:]
    result.table.load()
    result.regions()
    assert changed_file(result) is None
    Corrections(result)


PARTS = ("run.json", "recipe.json", "cells.csv", "measured.parquet", "outlines.png",
         "labels.ome.zarr", "labels.ome.zarr/.zattrs", "labels.ome.zarr/0",
         "labels.ome.zarr/0/.zarray", "labels.ome.zarr/0/0/0")  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_links_that_lead_out_of_the_folder_are_not_followed(result, tmp_path, name):
    read(result)
    shutil.move(result / name, tmp_path / "elsewhere")
    (result / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of the folder") as caught:
        read(result)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".cellseg.lock", ".partial"])
@pytest.mark.parametrize("target", ["other", "absent"])
def test_a_change_follows_no_link(result, tmp_path, cellseg, name, target):
    """Neither to write there nor to delete, and also where it leads to nothing."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kept").touch()
    (result / name).symlink_to(tmp_path / target)
    code, _, said = cellseg("expand", result, "--by", "3")
    assert code == (5 if name == ".cellseg.lock" else 0), said
    assert "\n" not in said.strip()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["kept"]
    assert not (tmp_path / "absent").exists()


def test_a_result_behind_a_link_is_a_result(result, tmp_path):
    (tmp_path / "link.cellseg").symlink_to(result)
    (result / "outlines.png").rename(result / "a.png")
    (result / "outlines.png").symlink_to("a.png")
    read(tmp_path / "link.cellseg")


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("made", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", [*PARTS[:5], "regions.geojson", "corrections.json"])
def test_pipes_and_devices_are_not_read(result, name, made):
    (result / name).unlink(missing_ok=True)
    made(result / name)
    with pytest.raises(InputError, match=r"not a regular file|leads out of the folder") as caught:
        read(result)
    assert "\n" not in str(caught.value)


def test_files_beyond_any_size_are_not_read(result):
    with (result / "recipe.json").open("r+b") as file:
        file.truncate(10**12)  # takes no room
    with pytest.raises(InputError, match="bytes; at most"):
        read(result)


def test_masks_that_unpack_to_too_much_are_refused(result):
    chunk = array_of(result, compressor={"id": "zlib", "level": 9})
    chunk.write_bytes(zlib.compress(bytes(50_000_000), 9))
    with pytest.raises(InputError, match="unpacks to more"):
        load_result(result).labels()[0][:]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("frame", "lattice_height", 10**12),
        *(("summary", "regions", rows) for rows in ({}, [[1]], [{"name": "a"}])),
        ("summary", "regions", [{"tissue_mm2": "x"}]),
        ("columns", 3, {"name": "a", "dtype": "\x1b[31mred"}),
        ("columns", 3, {"name": "\ud800", "dtype": "float64"}),
        ("found", "columns", [{"name": "score", "dtype": "float64"}] * 2),
        ("found", "counted", [{"saturated_share": None}]),
        ("found", "doubts", {"a": 1}),
        ("found", "tissue_mm2", [1.0]),
        ("found", "skipped_share", "half"),
        ("protocol", "score", "high"),
        ("settings", "channels", 3),
    ],
)
def test_a_record_that_cannot_be_is_damage(result, part, name, value):
    found = load_result(result).run[part]
    found[name] = value
    edit(result, **{part: found})
    with pytest.raises(InputError, match=r"run\.json: is damaged"):
        load_result(result)


@pytest.mark.parametrize("part", ["protocol", "settings", "spatial"])
def test_a_part_of_the_record_that_is_no_object_is_damage(result, part):
    edit(result, **{part: "x"})
    with pytest.raises(InputError, match=rf"run\.json: is damaged: {part}:"):
        load_result(result)


def test_a_picture_has_one_channel_or_three(result):
    settings = load_result(result).run["settings"]
    edit(result, settings=settings | {"channels": settings["channels"] * 13})
    opened = load_result(result)
    with opened.slide() as slide, pytest.raises(InputError, match="39 channels"):
        opened.ground(slide)


@pytest.mark.parametrize(
    "command", ["export --to labels.tif", "export --to cells.geojson", "overlay"]
)
def test_masks_that_do_not_decode_are_one_line(result, counted, cellseg, command):
    shutil.copy(counted.parent / "a.tif", result.parent)
    chunk = result / "labels.ome.zarr" / "0" / "0" / "0"
    chunk.write_bytes(b"\xff" * chunk.stat().st_size)
    _, _, said = cellseg(*command.split(), result, ends=4)
    assert "labels.ome.zarr: cannot be read" in said
    assert said.count("\n") == 1
    chunk.unlink()  # zarr reads zeros then
    _, _, said = cellseg(*command.split(), result, ends=4)
    assert "labels.ome.zarr was changed" in said


def test_masks_that_do_not_decode_are_not_corrected(result):
    chunk = result / "labels.ome.zarr" / "0" / "0" / "0"
    chunk.write_bytes(b"\xff" * chunk.stat().st_size)
    with pytest.raises(InputError, match=r"labels\.ome\.zarr: cannot be read"):
        Corrections.open(result).delete([1])
