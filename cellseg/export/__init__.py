"""Exports: other files made from a result folder, one module a format.

A module is found by the file that it writes: ``cells.geojson`` by ``cells_geojson.py``, which has
``write(result, path)``: of a finished result, over whatever lies at ``path``; modules that begin
with an underscore are what they share. Nothing here changes a result or draws a picture. Memory
does not grow with the slide, and by some tens of bytes with each cell (``cells.h5ad``: hundreds).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

from cellseg.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellseg.result.result import Result

__all__ = ["EXPORTS", "anndata_of", "check_exports", "export", "outlines_of", "write_export"]

EXPORTS = {
    found.name.replace("_", "."): found.name
    for found in iter_modules(__path__)
    if not found.name.startswith("_")
}
"""File names that can be exported, and the module of each."""

_SCVERSE = {"anndata", "dask", "h5py", "spatialdata"}  # Packages that the extra ``scverse`` brings.


def check_exports(names: tuple[str, ...]) -> None:
    """Refuse exports that do not exist or lack a package, before a run rather than after it."""
    for name in names:
        _module(name)


def export(folder: str | Path, name: str) -> Path:
    """Write one of :data:`EXPORTS` into a result folder, whole or not at all; returns its path.

    A SettingsError if there is no such export, or it needs a package that is not installed. An
    InputError if the folder is no finished result, or is damaged. An OutputError if the file cannot
    be written.
    """
    # Here and not above: the list of exports is known without the libraries that read results.
    from cellseg.result import add_file, load_result

    module = _module(name)
    result = load_result(folder)
    result.check_table()
    return add_file(result, name, lambda path: module.write(result, path))


def write_export(result: Result, name: str, path: Path) -> None:
    """Write one export of a result to a path; raises what :func:`export` does."""
    _module(name).write(result, path)


def anndata_of(result: Result) -> AnnData:
    """The table of a result as scverse has it: what ``cells.h5ad`` holds."""
    found: AnnData = _module("cells.h5ad").anndata_of(result)
    return found


def outlines_of(result: Result) -> NDArray[np.object_]:
    """Outlines of all cells of a result, Polygons or MultiPolygons, in the order of their labels.

    As the exports have them: (x, y) in level-0 pixels, 0 at the corner of the first pixel.
    """
    import numpy

    from cellseg.export._cells import outlined, simplest

    found = numpy.empty(len(result.table), dtype=object)
    for _, cells in outlined(result):
        for label, *_, outline in cells:
            found[label - 1] = simplest(outline)
    return found


def _module(name: str) -> ModuleType:
    if name not in EXPORTS:
        raise SettingsError(f"no export {name!r}; there are: {', '.join(EXPORTS)}")
    try:
        return import_module(f"cellseg.export.{EXPORTS[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _SCVERSE:
            raise
        raise SettingsError(f'{name} needs {error.name}: pip install ".[scverse]"') from error
