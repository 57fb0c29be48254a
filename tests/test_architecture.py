"""The house: few rooms, few floors, no circles, heavy libraries in one place each."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cellseg

ROOT = Path(cellseg.__file__).parent
PLUGIN = ROOT.parent / "napari_plugin" / "cellseg_napari"

BESIDE = {
    "errors": "ground", "geometry": "ground", "instances": "ground", "protocol": "ground",
    "palette": "ground", "pattern": "ground", "storage": "ground", "text": "ground",
    "run": "run", "events": "run", "api": "run", "__main__": "cli",
}  # fmt: skip
"""The room of each module beside the folders."""

MOST_ROOMS, MOST_FLOORS, MOST_LINES = 18, 8, 37_437

HOMES = {
    "torch": {"network", "train"},
    "torchvision": {"network", "train"},
    "tifffile": {"slide", "annotations", "export", "train", "napari"},
    "zarr": {"slide", "result", "export"},
    "pyarrow": {"result", "export"},
    "pycocotools": {"annotations", "judge", "train", "export"},
    "anndata": {"export", "run"},
    "spatialdata": {"export"},
    "click": {"cli"},
    "napari": {"cli", "napari"},
    "matplotlib": {"draw", "judge", "napari"},
    "dask": {"export"},
    "distributed": {"counting"},
    "cloudpickle": {"counting"},
    "filelock": {"result"},
    "fsspec": {"storage", "ground"},
}  # fmt: skip


@cache
def files():
    """Each module of the house by its dotted name; the package's own face is none."""
    found = {}
    for path in sorted([*ROOT.rglob("*.py"), *PLUGIN.rglob("*.py")]):
        home = ROOT.parent if path.is_relative_to(ROOT) else PLUGIN.parent
        name = ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    found.pop("cellseg")
    return found


def room_of(module):
    package, *rest = module.split(".")
    if package == PLUGIN.name:
        return "napari"
    return BESIDE.get(rest[0], rest[0]) if rest else "cellseg"


@cache
def imported(module):
    """What a module imports: a module and a name in it, empty for the module itself."""
    found = []
    for node in ast.walk(ast.parse(files()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(node.module, alias.name) for alias in node.names]
    return found


@cache
def arrows():
    """The modules of the house that each module imports, for type checking too."""
    return {
        module: {
            target
            for name, attribute in imported(module)
            for target in [f"{name}.{attribute}" if f"{name}.{attribute}" in files() else name]
            if target in files() and target != module
        }
        for module in files()
    }


def floors_of(graph):
    """The floor of each node: one above the highest that it stands on.

    Raises
    ------
    CycleError
        With the nodes of a circle.
    """
    floors: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        floors[node] = 1 + max((floors[below] for below in graph.get(node, ())), default=0)
    return floors


def rooms():
    """The rooms that each room imports from."""
    graph: dict[str, set[str]] = {room_of(module): set() for module in files()}
    for module, targets in arrows().items():
        graph[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return graph


def test_a_circle_is_seen():
    with pytest.raises(CycleError):
        floors_of({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert floors_of({"a": {"b"}, "b": {"c"}}) == {"c": 1, "b": 2, "a": 3}


def test_few_rooms_on_few_floors(record_property):
    floors = floors_of(rooms())
    figures = f"{len(floors)} rooms on {max(floors.values())} floors"
    record_property("house", figures)
    print(figures, sorted(floors.items(), key=lambda item: item[1]))
    assert len(floors) <= MOST_ROOMS
    assert max(floors.values()) <= MOST_FLOORS


@pytest.mark.parametrize("room", sorted(rooms()))
def test_few_floors_inside_a_room(room):
    inside = {module for module in files() if room_of(module) == room}
    floors = floors_of({module: arrows()[module] & inside for module in inside})
    print(room, max(floors.values()))
    assert max(floors.values()) <= MOST_FLOORS


def test_no_circle_between_files():
    floors_of(arrows())


def test_no_private_name_crosses_rooms():
    crossed = [
        f"{module} imports {name}.{attribute}"
        for module in files()
        for name, attribute in imported(module)
        if name.split(".")[0] in ("cellseg", PLUGIN.name)
        and (name in files() or f"{name}.{attribute}" in files())
        and room_of(name) != room_of(module)
        and any(
            part.startswith("_") and not part.startswith("__")
            for part in [*name.split(".")[1:], attribute]
        )
    ]
    assert not crossed


def test_no_two_classes_of_one_name():
    names = Counter(
        node.name
        for path in files().values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_heavy_libraries_live_in_one_place():
    strays = [
        f"{module} imports {name}"
        for module in files()
        for name, _ in imported(module)
        if room_of(module) not in HOMES.get(name.split(".")[0], {room_of(module)})
    ]
    assert not strays


def test_every_room_says_what_belongs_there():
    for room in {module for module in files() if (ROOT / module.split(".")[-1]).is_dir()}:
        if room.count(".") == 1:
            text = ast.get_docstring(ast.parse(files()[room].read_text(encoding="utf-8"))) or ""
            assert text.count(". ") + text.count(".\n") + text.endswith(".") >= 3, room


def test_few_lines(record_property):
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files().values())
    record_property("lines", lines)
    print(f"{lines:,} lines")
    assert lines <= MOST_LINES


def test_importing_cellseg_does_not_import_torch():
    code = "import cellseg, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


HELPERS = [
    path
    for folder in ("benchmarks", "tools", "docs", "example_slides")
    for path in sorted((ROOT.parent / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.stem)
def test_what_scripts_import_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cellseg":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
