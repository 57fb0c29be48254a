"""What the command line says at once, it says without loading what takes seconds to load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import finished
import numpy as np
import pytest
import tifffile
from synthetic import write_disc_slide

from cellseg.cli import COMMANDS, cli
from cellseg.counting.request import CountRequest

HEAVY = {"torch", "torchvision", "pandas", "skimage", "matplotlib", "zarr", "scipy"}

LOADED = """
import sys
from pathlib import Path
sys.argv = ["cellseg", *sys.argv[1:]]
from cellseg.cli import main
try:
    main()
except SystemExit as ended:
    print(ended.code, *sys.modules, file=sys.stderr)
"""


def loaded(code: str, *args: object) -> tuple[str, set[str], str]:
    """Exit code and modules that a process of its own ends with, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False
    )
    *said, last = done.stderr.splitlines()
    ended, *modules = last.split()
    return ended, set(modules), done.stdout + "\n".join(said)


def test_counting_with_openvino_does_not_import_torch(tmp_path):
    pytest.importorskip("openvino")
    image = tmp_path / "image.tif"
    discs = np.full((96, 96, 3), 235, np.uint8)
    discs[40:56, 40:56] = (90, 60, 140)
    tifffile.imwrite(image, discs, photometric="rgb")
    ended, modules, said = loaded(LOADED, "count", image, "--protocol", "he", "--types", "breast")
    assert ended == "0", said
    if "openvino" not in modules:
        pytest.skip("this machine counts with torch")
    assert not modules & {"torch", "torchvision"}


def test_import_cellseg_is_light():
    _, modules, _ = loaded("import cellseg, sys; print(0, *sys.modules, file=sys.stderr)")
    assert not modules & (HEAVY | {"numpy", "click", "pydantic"})


EACH = """
import sys
import cellseg.cli
for one in sys.argv[1:]:
    sys.argv = ["cellseg", *one.split()]
    try:
        cellseg.cli.main()
    except SystemExit as ended:
        print(one, ended.code, "torch" in sys.modules, sep="|")
    if one == "--help":
        assert {name for name in sys.modules if "cellseg.cli." in name} == {"cellseg.cli._shared"}
        assert "numpy" not in sys.modules
print(0, *sys.modules, file=sys.stderr)
"""
"""Commands one after another in one process."""


def test_help_is_light():
    asked = ["--help", *(f"{name} --help" for name in COMMANDS)]
    _, modules, said = loaded(EACH, *asked)
    assert said.count("Usage: cellseg") == len(asked)
    assert not modules & HEAVY
    width = max(map(len, COMMANDS)) + 2
    for name, about in COMMANDS.items():
        assert f"{name:<{width}}{about}" in said


def test_the_list_says_what_the_commands_say():
    for name, about in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        first = about.rstrip(".").split(",")[0].split(":")[0]
        assert (command.help or "").startswith(first)


@pytest.mark.parametrize("command", ["count", "info", "view", "train", "evaluate"])
def test_a_mistyped_path_is_said_at_once(tmp_path, command):
    ended, modules, said = loaded(LOADED, command, tmp_path / "mistyped.tif")
    assert ended in ("2", "4")
    assert "mistyped.tif" in said
    assert not modules & HEAVY


def test_an_address_of_no_scheduler_is_said_at_once(tmp_path):
    pytest.importorskip("distributed")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    args = ("count", tmp_path / "a.tif", "--engine", "dask", "--scheduler", "nonsense://x")
    ended, modules, said = loaded(LOADED, *args)
    assert ended == "2"
    assert "nonsense://x: no Dask scheduler answers there" in said
    assert "torch" not in modules


def test_info_of_a_tiff_is_light(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    ended, modules, said = loaded(LOADED, "info", tmp_path / "a.tif")
    assert ended == "0"
    assert "64 × 64 px" in said
    assert not modules & HEAVY
    assert not modules & {"pydantic", "yaml", "fsspec", "dask", "requests", "asyncio", "PIL"}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with a slide and its result."""
    home = tmp_path_factory.mktemp("counted")
    write_disc_slide(home / "a.tif", np.random.default_rng(5), shape=(300, 300))
    request = CountRequest(image=home / "a.tif", prefilter=False, export=("cells.geojson",))
    finished.counted(request)
    (home / "a.cellseg" / "cells.geojson").rename(home / "a.geojson")
    return home


def test_only_commands_that_detect_or_train_import_torch(counted, monkeypatch):
    monkeypatch.chdir(counted)
    served = "from socketserver import BaseServer\nBaseServer.serve_forever = lambda *_, **__: None"
    asked = [
        "info a.tif",
        "classify a.cellseg --measure area_px --threshold 100",
        "spatial a.cellseg",
        "expand a.cellseg --by 3",
        "overlay a.cellseg",
        "export a.cellseg --to cells.geojson --to labels.tif --to rois.zip --to cells.xlsx",
        "report .",
        "serve a.cellseg --no-browser",
        "annotations convert a.geojson -o training/cells.json",
    ]
    _, _, said = loaded(served + EACH, *asked)
    ended = [line.split("|") for line in said.splitlines() if line.count("|") == 2]
    assert ended == [[one, "0", "False"] for one in asked], said


@pytest.mark.skipif(sys.platform == "win32", reason="no processor time of children there")
@pytest.mark.parametrize("args", [["--help"], ["info", "a.tif"]])
def test_what_is_said_at_once_takes_half_a_second_of_the_processor(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((64, 64), np.uint8))
    took = []
    for _ in range(3):
        before = sum(os.times()[2:4])
        assert loaded(LOADED, *args)[0] == "0"
        took.append(sum(os.times()[2:4]) - before)
    assert min(took) < 0.5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", [["--help"], ["info", "a.tif"], ["info", "--json", "a.tif"]])
def test_an_output_that_is_full_is_one_line(tmp_path, args):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cellseg", *args],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert done.stderr == "cellseg: the output cannot be written: No space left on device\n"
    assert done.returncode == 5
