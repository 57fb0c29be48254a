"""The house: rooms on floors, imports that run down, heavy libraries in one place each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cellseg

ROOT = Path(cellseg.__file__).parent
PLUGIN = ROOT.parent / "napari_plugin" / "cellseg_napari"

FLOORS = [
    {"errors", "geometry", "intensity", "text"},
    {"annotations", "instances", "models", "picture", "protocol", "storage", "synthetic"},
    {"classify", "detect", "measure", "merge", "metrics", "slide", "tissue"},
    {"counting", "training"},
    {"evaluate", "results"},
    {"export"},
    {"pipeline"},
    {"cellseg_napari", "report", "serve"},
    {"cli"},
    {"__main__"},
]
"""From the ground up. A room is a folder or a module beside it; it imports from lower floors."""

MOST_ROOMS, MOST_FLOORS = 30, 10

HOMES = {
    "torch": {"models", "tissue", "detect", "training"},
    "torchvision": {"models", "detect", "training"},
    "tifffile": {"slide", "annotations", "export", "synthetic", "results", "training",
                 "cellseg_napari"},
    "zarr": {"slide", "results", "export"},
    "pycocotools": {"annotations", "metrics", "export"},
    "anndata": {"export", "pipeline"},
    "spatialdata": {"export"},
    "click": {"cli"},
    "napari": {"cli", "cellseg_napari"},
    "matplotlib": {"report", "picture", "cellseg_napari"},
    "dask": {"export"},
    "distributed": {"counting"},
    "cloudpickle": {"counting"},
    "filelock": {"results"},
    "fsspec": {"storage"},
}  # fmt: skip

Import = tuple[str, str]
"""A module, and a name in it; the name is empty for ``import module``."""


def modules(root=ROOT, plugin=PLUGIN):
    """Each file with the room that it belongs to."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]
    for path in sorted(plugin.rglob("*.py")):
        yield path, plugin.name


def imports(path) -> list[Import]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(node.module, alias.name) for alias in node.names]
    return found


def room_of(module, name):
    """The room that an import leads to; None outside of the house."""
    package, *rest = module.split(".")
    if package == PLUGIN.name:
        return package
    if package != "cellseg":
        return None
    if rest:
        return rest[0]
    if not name:
        return None
    return name if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file() else None


def floor_of(room):
    numbers = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert len(numbers) == 1, f"{room} stands on {len(numbers)} floors"
    return numbers[0]


def faults(found, room):
    """What is wrong with a room's imports, a line each."""
    lines = []
    for module, name in found:
        other = room_of(module, name)
        if other is None or other == room:
            continue
        if floor_of(other) >= floor_of(room):
            lines.append(f"{room} imports {other}, which does not lie lower")
        parts = [*module.split(".")[2:], name]
        if any(part.startswith("_") and not part.startswith("__") for part in parts):
            lines.append(f"{room} imports {module}.{name}, which is private to {other}")
    return lines


def named(path):
    return path.relative_to(ROOT.parent).as_posix()


@pytest.mark.parametrize(("path", "room"), list(modules()), ids=lambda value: Path(value).stem)
def test_imports_run_down_and_to_public_names(path, room):
    assert not faults(imports(path), room), named(path)


@pytest.mark.parametrize(
    ("module", "name", "word"),
    [
        ("cellseg.run", "run", "does not lie lower"),
        ("cellseg.result", "load_result", ""),
        ("cellseg.result.lock", "_held", "private"),
        ("cellseg.slide._tiff", "TiffSlide", "private"),
        ("cellseg.judge.evaluate", "evaluate", "does not lie lower"),
        ("torch", "nn", ""),
    ],
)
def test_the_rule_can_fail(module, name, word):
    (line,) = faults([(module, name)], "pipeline" if word != "does not lie lower" else "slide") or [
        ""
    ]
    assert word in line
    assert bool(word) == bool(line)


def test_few_rooms_on_few_floors(record_property):
    there = {room for _, room in modules()}
    assert set().union(*FLOORS) == there
    arrows = {
        (room, other)
        for path, room in modules()
        for module, name in imports(path)
        if (other := room_of(module, name)) not in (None, room)
    }
    figures = f"{len(there)} rooms on {len(FLOORS)} floors, {len(arrows)} arrows"
    record_property("house", figures)
    print(figures)
    assert len(there) <= MOST_ROOMS
    assert len(FLOORS) <= MOST_FLOORS


@pytest.mark.parametrize(("path", "room"), list(modules()), ids=lambda value: Path(value).stem)
def test_heavy_libraries_live_in_one_place(path, room):
    for module, _ in imports(path):
        library = module.split(".")[0]
        if library in HOMES:
            assert room in HOMES[library], f"{named(path)} imports {library}"


def test_importing_cellseg_does_not_import_torch():
    code = "import cellseg, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
