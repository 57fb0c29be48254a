"""Imports run one way, and heavy libraries live in one place each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cellseg

ROOT = Path(cellseg.__file__).parent

LAYERS = [
    {"errors", "text"},
    {
        "geometry",
        "normalise",
        "counterstain",
        "stain",
        "remaining",
        "location",
        "_scanline",
        "_results.lock",
        "_results.files",
    },
    {"protocol", "region", "picture"},
    {"instances", "models", "slide", "synthetic"},
    {"sample", "channel", "merge", "measure", "tissue", "detect", "engine", "evaluation"},
    {"threshold"},
    {"cells", "_results", "choice"},
    {"results", "plan"},
    {"tiles", "provenance"},
    {"recorder", "export", "training", "work", "events"},
    {"corrections", "cluster", "upload"},
    {"slide_run", "overlay"},
    {"pipeline"},
    {"evaluate"},
    {"report"},
    {"cli"},
    {"__main__"},
]

HOMES = {
    "torch": {"models", "tissue", "detect", "training"},
    "torchvision": {"models", "detect", "training"},
    "tifffile": {"slide", "export", "synthetic", "corrections"},
    "zarr": {"slide", "results", "_results", "export", "corrections"},
    "pycocotools": {"training", "evaluation", "export"},
    "click": {"cli", "training"},
    "napari": {"cli"},
    "matplotlib": {"report", "picture"},
    "dask": set(),
    "distributed": {"cluster"},
    "cloudpickle": {"cluster"},
    "fsspec": {"location"},
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield pytest.param(path, parts[0], id=".".join(parts))


def imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def layer_of(room):
    for number, rooms in enumerate(LAYERS):
        if room in rooms:
            return number
    raise AssertionError(f"{room} has no layer")


@pytest.mark.parametrize(("path", "room"), list(modules()))
def test_imports_run_one_way(path, room):
    for name in imports(path):
        if not name.startswith("cellseg."):
            continue
        other = name.split(".")[1]
        if other != room:
            assert layer_of(other) < layer_of(room), f"{room} imports {other}"


@pytest.mark.parametrize(("path", "room"), list(modules()))
def test_heavy_libraries_live_in_one_place(path, room):
    for name in imports(path):
        library = name.split(".")[0]
        if library in HOMES:
            assert room in HOMES[library], f"{room} imports {library}"


def test_importing_cellseg_does_not_import_torch():
    code = "import cellseg, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
