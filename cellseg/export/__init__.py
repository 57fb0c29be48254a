"""Exports: other files made from a result folder, one module a format.

Each puts one file into the result folder, whole or not at all. A module is found by the file that
it writes: ``cells.geojson`` by ``cells_geojson.py``, which has ``write(result, path)``; modules
that begin with an underscore are what they share. Memory does not grow with the slide, and by
some tens of bytes with each cell.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from cellseg.errors import SettingsError

__all__ = ["EXPORTS", "check_exports", "export"]

EXPORTS = {
    found.name.replace("_", "."): found.name
    for found in iter_modules(__path__)
    if not found.name.startswith("_")
}
"""File names that can be exported, and the module of each."""

_EXTRAS = {"roifile": "export", "pyarrow": "export", "xlsxwriter": "export"}
"""Packages that not everyone installs, and the extra that brings each."""


def check_exports(names: tuple[str, ...]) -> None:
    """Refuse exports that do not exist or lack a package, before a run rather than after it.

    Raises
    ------
    SettingsError
    """
    for name in names:
        _module(name)


def export(folder: str | Path, name: str) -> Path:
    """Write one export into a finished result folder.

    Parameters
    ----------
    folder : str or Path
        Of a finished result.
    name : str
        One of :data:`EXPORTS`.

    Returns
    -------
    Path
        Of the new file.

    Raises
    ------
    SettingsError
        If there is no such export, or a package that it needs is not installed.
    InputError
        If the folder is no finished result, or is damaged.
    OutputError
        If the file cannot be written.
    """
    # Here and not above: the list of exports is known without the libraries that read results.
    from cellseg.results import load_result

    module = _module(name)
    result = load_result(folder)
    return result.export(name, lambda path: module.write(result, path))


def _module(name: str) -> ModuleType:
    if name not in EXPORTS:
        raise SettingsError(f"no export {name!r}; there are: {', '.join(EXPORTS)}")
    try:
        return import_module(f"cellseg.export.{EXPORTS[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise SettingsError(
            f'{name} needs {error.name}: pip install ".[{_EXTRAS[error.name]}]"'
        ) from error
