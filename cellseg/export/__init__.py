"""Exports: other files made from a result folder, one module a format.

Each puts one file into the result folder, whole or not at all.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cellseg.errors import SettingsError
from cellseg.results import load_result

__all__ = ["EXPORTS", "check_exports", "export"]

EXPORTS = {"labels.tif": "labels_tiff", "labels.tiff": "labels_tiff"}
"""File names that can be exported, and the module of each, which has ``write(result, path)``."""


def check_exports(names: tuple[str, ...]) -> None:
    """Refuse exports that do not exist, before a run rather than after it.

    Raises
    ------
    SettingsError
    """
    for name in names:
        if name not in EXPORTS:
            raise SettingsError(f"no export {name!r}; there are: {', '.join(EXPORTS)}")


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
        If there is no such export.
    InputError
        If the folder is no finished result.
    OutputError
        If the file cannot be written.
    """
    check_exports((name,))
    result = load_result(folder)
    module = import_module(f"cellseg.export.{EXPORTS[name]}")
    return result.export(name, lambda path: module.write(result, path))
