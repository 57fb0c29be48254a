"""The result folder: what is in it, and what a kill, a clash or a hostile file does to it."""

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from finished import changed_file, frame_of, left_by
from hypothesis import given, settings
from hypothesis import strategies as st
from limited import ENVIRONMENT, peak_of
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from cellseg.errors import InputError, OutputError
from cellseg.instances import Instances
from cellseg.result import add_file, changing, load_result, publish, table_writer
from cellseg.result.folder import Findings, ResultFolder
from cellseg.result.table import Table
from cellseg.table import Column

GOLDEN = Path(__file__).parent / "golden" / "cells.csv"


def columns(**types):
    return [Column(name, "", dtype, "") for name, dtype in types.items()]


COLUMNS = columns(
    label="int64", **{"class": "str"}, object="str", score="float32", area_px="int64",
    area_um2="float64", eccentricity="float64", touches_border="bool",
)  # fmt: skip
FRAME = frame_of(2600, 4800, downsample=2.0, mpp=0.25)
FOUND = Findings(
    frame=FRAME,
    columns=COLUMNS,
    class_names=("tumour", "NA"),
    object_name="nucleus",
    record={"settings": {"score": np.float32(0.5), "path": Path("a.tif"), "nan": float("nan")}},
)


def disk(radius):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2


def disks(centres, radius=9):
    return Instances.build(
        [(y - radius, x - radius, y + radius + 1, x + radius + 1) for y, x in centres],
        [0.5 + (y * 7 + x) % 50 / 100 for y, x in centres],
        [(y // 10 + x) % 2 for y, x in centres],
        [disk(radius) for _ in centres],
    )


def measured(instances):
    areas = instances.areas
    return {
        "area_px": areas * 4,
        "area_um2": areas * 0.25,
        "eccentricity": np.where(instances.classes == 0, 0.0123456, np.nan),
        "touches_border": instances.boxes[:, 0] < 100,
    }


CENTRES = [(40, 40), (1020, 1022), (1024, 2300), (300, 2000), (300, 60), (1250, 1500)]
"""One across four chunks, one across two; two in the same row."""


def fill(folder, centres=CENTRES):
    for part in range(2):
        instances = disks(centres[part::2])
        folder.journal.add_cells(measured(instances), instances)


def make(path, centres=CENTRES, *, key="k", overview=False, **changes):
    with ResultFolder.open(path, key=key) as folder:
        fill(folder, centres)
        return left_by(folder, replace(FOUND, **changes), overview=overview)


FINISHED = ["cells.csv", "labels.ome.zarr", "measured.parquet", "recipe.json", "run.json"]


def contents(path):
    return sorted(entry.name for entry in path.iterdir())


def picture(path):
    return np.asarray(load_result(path).labels()[0])


def test_the_table_is_the_golden_file_byte_by_byte_and_has_the_contracts_types(tmp_path):
    result = make(tmp_path / "a.cellseg")
    assert result.file("cells.csv").read_bytes() == GOLDEN.read_bytes()
    found = result.table.load()
    assert [(name, str(found[name].dtype)) for name in found] == [
        (column.name, column.dtype) for column in COLUMNS
    ]
    assert found["label"].tolist() == [1, 2, 3, 4, 5, 6]
    assert set(found["class"]) == {"tumour", "NA"}, "a class called NA is no missing value"
    assert found["eccentricity"].isna().equals(found["class"] == "NA")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.5, "12.5"), (100000.24999, "100000.25"), (0.1, "0.1"), (0.012344, "0.01234"),
        (0.0, "0"), (-0.0, "0"), (1.50004e-06, "0.0000015"), (-3.0, "-3"), (2 / 3, "0.6667"),
        (float("nan"), ""), (float("inf"), ""),
    ],
)  # fmt: skip
def test_numbers_are_written_as_documented(tmp_path, value, text):
    both = columns(a="float64", b="float32")
    with table_writer(tmp_path / "a.parquet", both) as add:
        add({"a": [value], "b": [0.9]})
    Table(both, [tmp_path / "a.parquet"]).write_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == f"a,b\n{text},0.9\n"


def test_labels_follow_position_and_not_arrival(tmp_path):
    forth, back = make(tmp_path / "a.cellseg"), make(tmp_path / "b.cellseg", CENTRES[::-1])
    assert forth.file("cells.csv").read_bytes() == back.file("cells.csv").read_bytes()
    assert np.array_equal(picture(forth.path), picture(back.path))
    labels = picture(forth.path)
    centres = sorted(CENTRES)
    assert [labels[y, x] for y, x in centres] == [1, 2, 3, 4, 5, 6]


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(5)))
def test_nested_cells_with_one_centre_are_ordered_too(order):
    rings = [(40, radius) for radius in (4, 6, 8, 10, 12)]
    with (
        tempfile.TemporaryDirectory() as home,
        ResultFolder.open(Path(home) / "a.cellseg", key="k") as folder,
    ):
        for index in order:
            ring = disks([(40, 40)], rings[index][1])
            folder.journal.add_cells(measured(ring), ring)
        found = left_by(folder, FOUND).table.load()
    assert found["area_px"].tolist() == sorted(found["area_px"], reverse=True)


def test_a_slide_without_cells_has_a_table_and_labels(tmp_path):
    with ResultFolder.open(tmp_path / "a.cellseg", key="k") as folder:
        result = left_by(folder, FOUND)
    assert len(result.table.load()) == 0
    assert str(result.table.load()["area_um2"].dtype) == "float64"
    assert not np.asarray(result.labels()[-1]).any()


def test_a_missing_column_is_refused(tmp_path):
    cells = disks(CENTRES)
    with ResultFolder.open(tmp_path / "a.cellseg", key="k") as folder:
        folder.journal.add_cells(measured(cells), cells)
        with pytest.raises(KeyError, match="solidity"):
            left_by(folder, replace(FOUND, columns=[*COLUMNS, *columns(solidity="float64")]))


def test_the_label_image_is_painted_exactly_and_ome_zarr_py_reads_it(tmp_path):
    expected = np.zeros((1300, 2400), np.uint32)
    for label, (y, x) in enumerate(sorted(CENTRES), start=1):
        expected[y - 9 : y + 10, x - 9 : x + 10][disk(9)] = label
    result = make(tmp_path / "a.cellseg")
    levels = result.labels()
    assert levels[0].dtype == np.uint32
    assert levels[0].chunks == (1024, 1024)
    for number, level in enumerate(levels):
        step = 2**number
        assert np.array_equal(np.asarray(level), expected[::step, ::step])
    assert max(levels[-1].shape) <= 512 < max(levels[-2].shape)
    location = parse_url(str(result.file("labels.ome.zarr")))
    assert location is not None
    read = next(iter(Reader(location)())).data
    assert [level.shape for level in read] == [level.shape for level in levels]
    assert np.array_equal(np.asarray(read[0]), expected)


def test_a_small_image_has_one_small_chunk_and_empty_chunks_are_not_written(tmp_path):
    path = make(tmp_path / "a.cellseg", [(40, 40)]).file("labels.ome.zarr")
    files = [file for file in path.rglob("*") if file.name.isdecimal() and file.is_file()]
    names = sorted(file.relative_to(path).as_posix() for file in files)
    assert names == ["0/0/0", "1/0/0", "2/0/0", "3/0/0"]
    small = replace(FRAME, height=90, width=70, lattice_height=90, lattice_width=70)
    (level,) = make(tmp_path / "b.cellseg", [(40, 40)], frame=small).labels()
    assert (level.shape, level.chunks) == ((90, 70), (90, 70))


def test_a_cell_outside_the_lattice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="outside the lattice"):
        make(tmp_path / "a.cellseg", [(40, 5000)])
    with pytest.raises(InputError):
        load_result(tmp_path / "a.cellseg")


def test_the_metadata_is_ngff_04(tmp_path):
    path = make(tmp_path / "a.cellseg").file("labels.ome.zarr")
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    (image,) = attributes["multiscales"]
    assert image["version"] == attributes["image-label"]["version"] == "0.4"
    assert image["axes"] == [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    first, second = (entry["coordinateTransformations"] for entry in image["datasets"][:2])
    assert first == [
        {"type": "scale", "scale": [0.5, 0.5]},
        {"type": "translation", "translation": [0.125, 0.125]},
    ]
    # Both levels begin at the slide's corner, half a level-0 pixel before its first centre.
    for scale, shift in (first, second):
        assert shift["translation"][0] - scale["scale"][0] / 2 == -0.125
    store = json.loads((path / "0" / ".zarray").read_text())
    assert (store["zarr_format"], store["dimension_separator"], store["fill_value"]) == (2, "/", 0)
    assert store["compressor"]["cname"] == "zstd"
    path = make(tmp_path / "b.cellseg", frame=replace(FRAME, mpp=None)).file("labels.ome.zarr")
    (image,) = zarr.open_group(path, mode="r").attrs["multiscales"]
    assert "unit" not in image["axes"][0]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [2.0, 2.0]


def test_memory_does_not_grow_with_the_slide(tmp_path):
    side = 40_000
    frame = frame_of(side, side, mpp=0.5)
    centres = [(y, x) for y in range(100, side, 19_000) for x in range(100, side, 19_000)]
    make(tmp_path / "warm.cellseg")
    peak = peak_of(lambda: make(tmp_path / "a.cellseg", centres, frame=frame))
    # An array of the slide's size would take 6,400 MB, one row of chunks 164 MB.
    assert peak < 110e6


def test_run_json_has_what_was_given_and_what_is_known(tmp_path):
    result = make(tmp_path / "a.cellseg", record={**FOUND.record, "format": "x"})
    run = json.loads(result.file("run.json").read_text())
    assert run["settings"] == {"score": 0.5, "path": "a.tif", "nan": None}
    assert run["format"] == "cellseg result", "what is given cannot hide what a reader needs"
    assert run["frame"]["downsample"] == 2.0
    assert result.frame == FRAME
    assert result.is_complete
    assert not make(tmp_path / "b.cellseg", is_complete=False).is_complete


def test_a_second_run_finds_the_tiles_of_the_first_and_one_of_another_key_says_why_not(tmp_path):
    cells = disks(CENTRES)
    with ResultFolder.open(tmp_path / "a.cellseg", key={"a": 1, "b": 2}) as folder:
        assert not folder.journal.resumed
        folder.journal.tile_done(1, 2, cells, info={"limits": ["queries"]})
        folder.journal.tile_done(0, 7, Instances.empty())
    with ResultFolder.open(tmp_path / "a.cellseg", key={"b": 2, "a": 1}) as folder:
        assert folder.journal.resumed
        assert folder.journal.discarded_because is None
        first, second = folder.journal.tiles()
    assert first[:3] == (1, 2, {"limits": ["queries"]})
    assert first[3].to_bytes() == cells.to_bytes()
    assert (*second[:3], len(second[3])) == (0, 7, {}, 0)
    with ResultFolder.open(tmp_path / "a.cellseg", key={"a": 1, "b": 3}) as folder:
        assert not folder.journal.resumed
        assert "settings" in (folder.journal.discarded_because or "")
        assert list(folder.journal.tiles()) == []


def test_a_damaged_journal_is_thrown_away_wherever_the_damage_lies(tmp_path, caplog):
    path, rng = tmp_path / "a.cellseg", np.random.default_rng(1)
    journal, cells = path / "journal.sqlite", disks(CENTRES)
    table = measured(cells)
    with ResultFolder.open(path, key="k") as folder:
        for column in range(12):
            info = {"limits": ["queries"] * column}
            folder.journal.tile_done(0, column, disks(CENTRES[: column % 5]), info=info)
        folder.journal.tile_done(1, 0, cells, cells=[(table, cells)])
        tiles = [(row, column, info) for row, column, info, _ in folder.journal.tiles()]
    whole = journal.read_bytes()
    damaged = [b"this is no database" * 900, whole[: len(whole) // 2], b""]
    for at in [0, 60, *rng.integers(0, len(whole) - 20, 50).tolist()]:
        turned = bytes(byte ^ 0xFF for byte in whole[at : at + 20])
        damaged.append(whole[:at] + turned + whole[at + 20 :])
    afresh = 0
    for data in damaged:
        journal.write_bytes(data)
        with ResultFolder.open(path, key="k") as folder:
            found = [(row, column, info) for row, column, info, _ in folder.journal.tiles()]
            assert found == (tiles if folder.journal.resumed else [])
            afresh += folder.journal.discarded_because == "the journal is damaged"
            folder.journal.tile_done(7, 7, cells)
            folder.journal.recall(cells, list(table))
            folder.journal.add_cells(table, cells)
        with closing(sqlite3.connect(journal)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert afresh > 15
    assert "damaged" in caplog.text


def test_a_finished_folder_holds_the_result_and_nothing_else(tmp_path):
    with ResultFolder.open(tmp_path / "a.cellseg", key="k") as folder:
        folder.journal.tile_done(0, 0, disks(CENTRES))
        fill(folder)
        left_by(folder, FOUND)
    assert contents(tmp_path / "a.cellseg") == FINISHED
    with ResultFolder.open(tmp_path / "a.cellseg", key="k") as folder:
        assert folder.already_complete
        assert not folder.journal.resumed
    with ResultFolder.open(tmp_path / "a.cellseg", key="other") as folder:
        assert not folder.already_complete


def test_a_folder_of_other_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="no result folder of cellseg"):
        ResultFolder.open(tmp_path, key="k")
    assert contents(tmp_path) == ["run.json", "thesis.docx"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "a.cellseg").write_text("mine")
    with pytest.raises(OutputError, match=r"a\.cellseg: is a file"):
        ResultFolder.open(tmp_path / "a.cellseg", key="k")
    assert (tmp_path / "a.cellseg").read_text() == "mine"
    with pytest.raises(OutputError, match=r"b\.cellseg: cannot be written"):
        ResultFolder.open(tmp_path / "a.cellseg" / "b.cellseg", key="k")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize(
    "name", [".partial", "journal.sqlite", "cells.csv", "labels.ome.zarr", "run.json"]
)
def test_links_in_the_folder_do_not_lead_out_of_it(tmp_path, name):
    outside, path = tmp_path / "outside", tmp_path / "a.cellseg"
    outside.mkdir()
    (outside / "file").write_text("mine")
    path.mkdir()
    (path / ".cellseg.lock").touch()
    (path / name).symlink_to(
        outside if name in (".partial", "labels.ome.zarr") else outside / "file"
    )
    make(path)
    assert contents(outside) == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert picture(path).max() == 6


def test_what_is_no_result_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_result(tmp_path / "none")
    image = tmp_path / "a.tif"
    image.touch()
    with pytest.raises(InputError, match=r"\.tif: is an image, not a result: count it first$"):
        load_result(image)
    image.unlink()
    with pytest.raises(InputError, match="is no result of cellseg"):
        load_result(tmp_path)
    (tmp_path / "b.cellseg").mkdir()
    (tmp_path / "a.cellseg").mkdir()
    with pytest.raises(InputError, match=r"; it holds a\.cellseg, b\.cellseg$"):
        load_result(tmp_path)
    with pytest.raises(InputError, match="is no result"), changing(tmp_path):
        pass
    assert contents(tmp_path) == ["a.cellseg", "b.cellseg"]
    (tmp_path / "run.json").write_text("[1, 2")
    with pytest.raises(InputError, match="is no JSON"):
        load_result(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not one of cellseg's"):
        load_result(tmp_path)
    result = make(tmp_path / "c.cellseg")
    result.file("run.json").write_text(json.dumps({**result.run, "format_version": 0}))
    with pytest.raises(InputError, match="another version"):
        load_result(result.path)
    shutil.rmtree(make(tmp_path / "d.cellseg").path / "labels.ome.zarr")
    with pytest.raises(InputError, match="is missing"):
        load_result(tmp_path / "d.cellseg")


def test_labels_of_another_run_are_refused(tmp_path):
    one, two = make(tmp_path / "a.cellseg"), make(tmp_path / "b.cellseg")
    (two.file("labels.ome.zarr") / ".zattrs").write_bytes(
        (one.file("labels.ome.zarr") / ".zattrs").read_bytes()
    )
    with pytest.raises(InputError, match="another run"):
        load_result(two.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("run.json", {"frame": frame}) for frame in ({}, {"height": 1}, None)),
        *(("measured.parquet", data) for data in (b"", b"label\nx\n", b"PAR1PAR1", "half")),
    ],
)
def test_a_damaged_file_is_said(tmp_path, name, content):
    result = make(tmp_path / "a.cellseg")
    path = result.file(name)
    whole = path.read_bytes()
    if isinstance(content, dict):
        content = json.dumps({**result.run, **content}).encode()
    path.write_bytes(whole[: len(whole) // 2] + bytes(200) if content == "half" else content)
    with pytest.raises(InputError, match=re.escape(name)):
        load_result(result.path).table.load()


OLD, NEW = CENTRES[:3], CENTRES


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_lock_of_a_killed_run_locks_nothing_but_that_of_a_live_one_does(tmp_path):
    path = tmp_path / "a.cellseg"
    script = (
        "import time\n"
        "from cellseg.result import ResultFolder\nfrom cellseg.instances import Instances\n"
        f"folder = ResultFolder.open({str(path)!r}, key='k')\n"
        "folder.journal.tile_done(3, 4, Instances.empty())\n"
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            with pytest.raises(OutputError, match=f"process {process.pid}"):
                ResultFolder.open(path, key="k")
        finally:
            process.kill()
            process.wait()
    assert (path / ".cellseg.lock").exists()
    with ResultFolder.open(path, key="k") as folder:
        assert [(row, column) for row, column, *_ in folder.journal.tiles()] == [(3, 4)]


@pytest.mark.parametrize("call", ["replace", "rename"])
@pytest.mark.parametrize("name", ["cells.csv", "labels.ome.zarr", "labels.tif"])
def test_a_file_that_cannot_be_replaced_leaves_the_old_result_whole(
    tmp_path, monkeypatch, name, call
):
    """As a table that is open in a spreadsheet, on Windows."""
    path = tmp_path / "a.cellseg"
    make(path, OLD, key="old", overview=True)
    add_file(load_result(path), "labels.tif", lambda temporary: temporary.write_bytes(b"old"))
    whole = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    original, refused = getattr(os, call), []

    def locked(source, target, **rest):
        at = source if call == "rename" else target
        if Path(at) == path / name and not refused:
            refused.append(name)
            raise PermissionError(errno.EACCES, "is being used by another process")
        return original(source, target, **rest)

    with ResultFolder.open(path, key="new") as folder:
        folder.journal.tile_done(0, 0, disks(NEW))
        fill(folder, NEW)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, locked)
            if (call, name) == ("replace", "labels.tif"):
                return  # an export is not put in place of another
            with pytest.raises(OutputError, match="used by another process"):
                left_by(folder, FOUND, overview=True)
    assert refused
    found = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert found.pop(path / "journal.sqlite")
    assert found == whole
    assert changed_file(load_result(path)) is None
    with ResultFolder.open(path, key="new") as folder:
        assert folder.journal.resumed
        fill(folder, NEW)
        assert len(left_by(folder, FOUND).table.load()) == len(NEW)
    assert contents(path) == FINISHED


CHUNK = "labels.ome.zarr/0/0/0"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("measured.parquet", lambda data: data[:-9]),
        (CHUNK, lambda data: data[:-1]),
        (CHUNK, None),
        ("overview.png", None),
    ],
)
def test_a_result_that_was_changed_is_not_vouched_for(tmp_path, name, change):
    path = tmp_path / "a.cellseg"
    result = make(path, overview=True)
    assert result.run["files"]["cells.csv"]["rows"] == len(CENTRES)
    (path / "labels.ome.zarr" / ".DS_Store").touch()  # a file manager's
    with ResultFolder.open(path, key="k", overwrite=False) as folder:
        assert folder.already_complete
    data = (path / name).read_bytes()
    (path / name).unlink()
    if change is not None:
        (path / name).write_bytes(change(data))
    with pytest.raises(OutputError, match=r"was changed or removed since") as caught:
        ResultFolder.open(path, key="k", overwrite=False)
    assert "\n" not in str(caught.value)
    with ResultFolder.open(path, key="k") as folder:
        assert not folder.already_complete


def test_other_settings_replace_a_result_only_where_they_may(tmp_path):
    path = tmp_path / "a.cellseg"
    make(path, OLD, key="old")
    (path / "corrections.json").write_text("{}")
    with pytest.raises(OutputError, match=r"other settings.* corrections of it"):
        ResultFolder.open(path, key="new", overwrite=False)
    assert len(load_result(path).table.load()) == len(OLD)
    with ResultFolder.open(path, key="new") as folder:
        folder.journal.tile_done(0, 0, disks(NEW))
    with pytest.raises(OutputError, match="holds a count with other settings"):
        ResultFolder.open(path, key="third", overwrite=False)
    with ResultFolder.open(path, key="new") as folder:
        assert folder.journal.resumed, "a refusal throws no unfinished run away"


@pytest.mark.parametrize(
    "record", ["", "{", "[1]", '{"format": "cellseg result"}', "version", "frame"]
)
def test_a_result_that_cannot_be_read_is_replaced_only_where_it_may(tmp_path, record):
    path = tmp_path / "a.cellseg"
    result = make(path, OLD)
    changes = {"version": {"format_version": 99}, "frame": {"frame": {}}}
    text = json.dumps({**result.run, **changes[record]}) if record in changes else record
    result.file("run.json").write_text(text)
    before = contents(path)
    with pytest.raises(OutputError, match=r"holds a result that cannot be read \(") as caught:
        ResultFolder.open(path, key="k", overwrite=False)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) <= 2
    assert contents(path) == before
    assert len(make(path, NEW).table.load()) == len(NEW)


@pytest.mark.parametrize("damage", ["", "[]", '{"token": 7}', '{"token": "another"}'])
def test_a_damaged_note_of_what_waits_is_in_nobodys_way(tmp_path, damage):
    path = tmp_path / "a.cellseg"
    make(path, OLD)
    (path / ".partial").mkdir()
    (path / ".partial" / "READY").write_text(damage)
    assert len(load_result(path).table.load()) == len(OLD)
    assert len(make(path, NEW).table.load()) == len(NEW)


def test_a_new_result_takes_away_what_was_made_of_the_old_one(tmp_path):
    path = tmp_path / "a.cellseg"
    old = make(path, OLD, overview=True)
    add_file(old, "labels.tif", lambda temporary: temporary.write_bytes(b"old"))
    (path / "notes.txt").write_text("mine")
    make(path, NEW)
    assert contents(path) == sorted([*FINISHED, "notes.txt"])


def test_names_in_run_json_delete_nothing_outside(tmp_path):
    path = tmp_path / "a.cellseg"
    result = make(path)
    (tmp_path / "mine.txt").write_text("mine")
    names = ["../mine.txt", str(tmp_path / "mine.txt"), "run.json", ".", 7]
    result.file("run.json").write_text(json.dumps({**result.run, "exports": names}))
    make(path)
    assert (tmp_path / "mine.txt").exists()
    assert load_result(path).is_complete


@pytest.mark.parametrize(
    "name",
    ["../a", "/a", "a/b", "a\\b", "", ".", "..", ".hidden", "Cells.csv", "run.json", "c:x", "a\0b"],
)
def test_export_names_stay_in_the_folder(name):
    assert not publish.is_export_name(name)
    assert publish.is_export_name("labels.tif")


def test_tissue_outlines_have_their_holes():
    import shapely

    from cellseg.annotations.region import Region, tissue_outline

    mask = np.zeros((60, 80), bool)
    mask[10:50, 5:45] = True
    mask[20:30, 15:25] = False
    mask[0:4, 70:80] = True
    outline = tissue_outline(mask, downsample=10.0, within=(600, 793))
    assert outline is not None
    assert sorted(len(rings) for rings in outline["coordinates"]) == [1, 2]
    region = Region(shapely.geometry.shape(outline))
    ys, xs = (np.indices(mask.shape) * 10 + 5).reshape(2, -1)
    assert (region.contains(ys, xs) == mask.ravel()).mean() > 0.99
    assert shapely.geometry.shape(outline).bounds == (50.0, 0.0, 793.0, 500.0)
    assert tissue_outline(np.zeros((4, 4), bool), downsample=1.0, within=(4, 4)) is None
