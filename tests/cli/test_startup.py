"""What the command line says at once, it says without loading what takes seconds to load."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.cli import COMMANDS

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


def test_import_cellseg_is_light():
    _, modules, _ = loaded("import cellseg, sys; print(0, *sys.modules, file=sys.stderr)")
    assert not modules & (HEAVY | {"numpy", "click", "pydantic"})


@pytest.mark.parametrize("args", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_light(args):
    ended, modules, said = loaded(LOADED, *args)
    assert ended == "0"
    assert "Usage: cellseg" in said
    assert not modules & HEAVY


def test_the_commands_are_listed_without_importing_any():
    _, modules, said = loaded(LOADED, "--help")
    assert "numpy" not in modules
    assert not modules & {f"cellseg.cli.{name}" for name in COMMANDS}
    width = max(map(len, COMMANDS)) + 2
    for name, about in COMMANDS.items():
        assert f"{name:<{width}}{about}" in said


def test_the_list_says_what_the_commands_say():
    for name, about in COMMANDS.items():
        command = getattr(importlib.import_module(f"cellseg.cli.{name}"), name)
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
    assert "nonsense://x: is not the address of a Dask scheduler" in said
    assert "torch" not in modules


def test_info_of_a_tiff_is_light(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    ended, modules, said = loaded(LOADED, "info", tmp_path / "a.tif")
    assert ended == "0"
    assert "64 × 64 px" in said
    assert not modules & HEAVY
    assert not modules & {"pydantic", "yaml", "fsspec", "dask", "requests", "asyncio", "PIL"}


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
