"""Results from somebody else, or from a disk that fails: read with as much care as slides."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_disc_slide

from cellseg.cli import main
from cellseg.counting.request import CountRequest
from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError
from cellseg.network.threshold import ThresholdDetector
from cellseg.result import load_result
from cellseg.run import run


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "a.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(300, 300))
    request = CountRequest(image=path, protocol="he", mpp=0.25, prefilter=False)
    *_, last = run(request, detector=ThresholdDetector())
    return last.folder


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


def test_masks_outside_of_the_folder_are_not_read(result, tmp_path):
    chunk = result / "labels.ome.zarr" / "0" / "0" / "0"
    shutil.move(chunk, tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of the folder"):
        load_result(result).labels()[0][:]


def test_masks_that_unpack_to_too_much_are_refused(result):
    chunk = array_of(result, compressor={"id": "zlib", "level": 9})
    chunk.write_bytes(zlib.compress(bytes(50_000_000), 9))
    with pytest.raises(InputError, match="unpacks to more"):
        load_result(result).labels()[0][:]


def test_sides_beyond_any_slide_are_damage(result):
    path = result / "run.json"
    record = json.loads(path.read_text())
    record["frame"]["lattice_height"] = 10**12
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json: is damaged"):
        load_result(result)


@pytest.mark.parametrize("rows", [{}, [[1]], [{"name": "a"}], [{"tissue_mm2": "x"}]])
def test_regions_that_are_none_are_damage(result, rows):
    path = result / "run.json"
    record = json.loads(path.read_text())
    record["summary"]["regions"] = rows
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json: is damaged: summary\.regions"):
        load_result(result)


COMMANDS = {
    "tif": ["export", "--to", "labels.tif"],
    "geojson": ["export", "--to", "cells.geojson"],
    "overlay": ["overlay"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_masks_that_do_not_decode_are_one_line(result, counted, monkeypatch, capsys, name):
    shutil.copy(counted.parent / "a.tif", result.parent)
    chunk = result / "labels.ome.zarr" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:60])
    command, *options = COMMANDS[name]
    monkeypatch.setattr(sys, "argv", ["cellseg", command, str(result), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 4
    assert "labels.ome.zarr: cannot be read" in said
    assert "\n" not in said


def test_masks_that_do_not_decode_are_not_corrected(result):
    chunk = result / "labels.ome.zarr" / "0" / "0" / "0"
    chunk.write_bytes(b"\xff" * 500)
    with pytest.raises(InputError, match=r"labels\.ome\.zarr: cannot be read"):
        Corrections.open(result).delete([1])
