"""What is said at once is said without what takes seconds to load; no library names an option."""

import ast
import os
import re
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
from finished import counted_folder
from limited import python
from synthetic import write_disc_slide

import cellseg
from cellseg.cli import COMMANDS, cli

HEAVY = {"torch", "torchvision", "pandas", "skimage", "matplotlib", "zarr", "scipy"}

EACH = """
import sys
import cellseg.cli
code = 0
for one in sys.argv[1:]:
    sys.argv = ["cellseg", *one.split()]
    try:
        cellseg.cli.main()
    except SystemExit as ended:
        code = ended.code
        print(one, code, "torch" in sys.modules, sep="|")
    if one == "--help":
        assert {name for name in sys.modules if "cellseg.cli." in name} == {"cellseg.cli._shared"}
        assert "numpy" not in sys.modules
print(code, *sys.modules, file=sys.stderr)
"""
"""Commands one after another in one process, and the exit code of the last."""


def loaded(code, *args):
    """Exit code and modules that a process of its own ends with, and what it said."""
    done = python("-c", code, *args, cwd=None, env=None)
    *said, last = done.stderr.splitlines()
    ended, *modules = last.split()
    return ended, set(modules), done.stdout + "\n".join(said)


def test_counting_with_openvino_does_not_import_torch(tmp_path):
    pytest.importorskip("openvino")
    image = tmp_path / "image.tif"
    discs = np.full((96, 96, 3), 235, np.uint8)
    discs[40:56, 40:56] = (90, 60, 140)
    tifffile.imwrite(image, discs, photometric="rgb")
    ended, modules, said = loaded(EACH, f"count {image} --protocol he --types breast")
    assert ended == "0", said
    if "openvino" not in modules:
        pytest.skip("this machine counts with torch")
    assert not modules & {"torch", "torchvision"}


def test_import_cellseg_is_light():
    _, modules, _ = loaded("import cellseg, sys; print(0, *sys.modules, file=sys.stderr)")
    assert not modules & (HEAVY | {"numpy", "click", "pydantic"})


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
    ended, modules, said = loaded(EACH, f"{command} {tmp_path}/mistyped.tif")
    assert ended in ("2", "4")
    assert "mistyped.tif" in said
    assert not modules & HEAVY


def test_an_address_of_no_scheduler_is_said_at_once(tmp_path):
    pytest.importorskip("distributed")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    asked = f"count {tmp_path}/a.tif --engine dask --scheduler nonsense://x"
    ended, modules, said = loaded(EACH, asked)
    assert ended == "2"
    assert "nonsense://x: no Dask scheduler answers there" in said
    assert "torch" not in modules


def test_info_of_a_tiff_is_light(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    ended, modules, said = loaded(EACH, f"info {tmp_path}/a.tif")
    assert ended == "0"
    assert "64 × 64 px" in said
    assert not modules & HEAVY
    assert not modules & {"pydantic", "yaml", "fsspec", "dask", "requests", "asyncio", "PIL"}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with a slide and its result."""
    home = tmp_path_factory.mktemp("counted")
    write_disc_slide(home / "a.tif", np.random.default_rng(5), shape=(300, 300))
    result = counted_folder(home / "a.tif", "he", export=("cells.geojson",))
    (result / "cells.geojson").rename(home / "a.geojson")
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
@pytest.mark.parametrize("asked", ["--help", "info a.tif"])
def test_what_is_said_at_once_takes_half_a_second_of_the_processor(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((64, 64), np.uint8))
    took = []
    for _ in range(3):
        before = sum(os.times()[2:4])
        assert loaded(EACH, asked)[0] == "0"
        took.append(sum(os.times()[2:4]) - before)
    assert min(took) < 0.5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", [["--help"], ["info", "a.tif"], ["info", "--json", "a.tif"]])
def test_an_output_that_is_full_is_one_line(tmp_path, args):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    with Path("/dev/full").open("w") as full:
        done = python("-m", "cellseg", *args, stdout=full, cwd=tmp_path)
    assert done.stderr == "cellseg: the output cannot be written: No space left on device\n"
    assert done.returncode == 5


ROOT = Path(cellseg.__file__).parent
PLUGIN = ROOT.parent / "napari_plugin" / "cellseg_napari"

OPTION = re.compile(
    r"(?<![\w<!-])--[a-z]"
    r"|\bcellseg (count|classify|export|train|expand|spatial|report|serve|view|info|doctor)\b"
)


def strings(tree):
    """String constants that are no docstrings, with their lines; also those inside f-strings."""
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    } | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


def found():
    for path in sorted([*ROOT.rglob("*.py"), *PLUGIN.rglob("*.py")]):
        if ROOT / "cli" not in path.parents:
            for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                if OPTION.search(text):
                    yield f"{path.relative_to(ROOT.parent)}:{line}: {text[:90]!r}"


def test_no_string_outside_of_the_command_line_names_an_option():
    assert not list(found())


def test_the_rule_can_fail():
    assert all(map(OPTION.search, ("pass --mpp", "use cellseg count")))
    assert not any(map(OPTION.search, ("a -- b", "<!--x-->", "cellseg counts")))
