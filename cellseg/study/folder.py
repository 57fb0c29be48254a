"""The result folders of a study: found below one folder, each told once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cellseg.errors import CellsegError, InputError
from cellseg.result.result import Result, load_result
from cellseg.result.upload import send
from cellseg.storage import Location, RemotePath
from cellseg.study.images import RESULT
from cellseg.study.rows import Row, rows_of
from cellseg.text import visible


@dataclass(frozen=True)
class Counted:
    """A result of the study.

    Attributes
    ----------
    folder : Path
    place : str
        The same as seen from the study's folder, with ``/`` between names.
    rows : list of Row
        The whole slide, then its regions.
    """

    folder: Path
    place: str
    rows: list[Row]

    @property
    def whole(self) -> Row:
        """The slide's row."""
        return self.rows[0]


@dataclass(frozen=True)
class Study:
    """All results below a folder.

    Attributes
    ----------
    folder : Path
    counted : tuple of Counted
        In the order of their places.
    unread : tuple of str
        Why a result folder could not be read, a line each.
    failed : tuple of Row
        Images of which there is no result.
    place : RemotePath or None
        Of what the folder is a copy, to which goes what is written in it.
    """

    folder: Path
    counted: tuple[Counted, ...]
    unread: tuple[str, ...] = ()
    failed: tuple[Row, ...] = ()
    place: RemotePath | None = None

    def shown(self, path: Path) -> Location:
        """Where a file is for a person."""
        is_copy = self.place is not None and path.parent == self.folder
        return self.place.child(path.name) if self.place is not None and is_copy else path

    def left(self, path: Path) -> Location:
        """The same of a file that was written; behind a URL it is put there.

        Raises
        ------
        OutputError
            If the storage refuses.
        """
        shown = self.shown(path)
        if isinstance(shown, RemotePath):
            send(path, shown)
        return shown

    @property
    def rows(self) -> list[Row]:
        """Of the table: each slide and its regions, then the images without a result."""
        return [*(row for one in self.counted for row in one.rows), *self.failed]


def load_study(folder: Path, *, place: RemotePath | None = None) -> Study:
    """Read the records of all results below a folder.

    Of a count and its corrected result the corrected one is taken; of one count that stands in
    two folders (an image of the same stem came later) the newer.

    Parameters
    ----------
    folder : Path
    place : RemotePath, optional
        Of what the folder is a copy.

    Raises
    ------
    InputError
        If there is no such folder, or no result in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    kept: dict[tuple[str, str], tuple[str, Counted]] = {}
    corrected: set[str] = set()
    unread: list[str] = []
    for path in _result_folders(folder):
        inside = path.relative_to(folder).as_posix() if path != folder else path.name
        try:
            result = load_result(path)
            one = Counted(path, visible(inside), rows_of(result, visible(inside)))
        except CellsegError as error:
            unread.append(str(error))
            continue
        corrected |= _automatic(result)
        key = (one.whole.path, str(result.run.get("key")))
        if key not in kept or kept[key][0] <= one.whole.counted:
            kept[key] = (one.whole.counted, one)
    counted = [one for _, one in kept.values() if str(one.folder) not in corrected]
    if not counted and not unread:
        where = place or folder
        raise InputError(f"{where}: holds no results of cellseg; cellseg count makes them")
    counted.sort(key=lambda one: one.place)
    if place is not None:
        unread = [line.replace(str(folder), str(place).rstrip("/")) for line in unread]
    return Study(folder, tuple(counted), tuple(unread), place=place)


def _automatic(result: Result) -> set[str]:
    """The automatic result's folder, of a corrected one."""
    origin = result.run.get("corrected_from")
    name = origin.get("folder") if isinstance(origin, dict) else None
    return {str(result.path.with_name(name))} if isinstance(name, str) and name else set()


def _result_folders(folder: Path) -> list[Path]:
    """Result folders below a folder, or the folder itself; hidden folders are left out."""
    if folder.suffix.lower() == RESULT:
        return [folder]
    found = []
    for home, names, _ in os.walk(folder):
        found += [Path(home, name) for name in names if name.lower().endswith(RESULT)]
        names[:] = [
            name
            for name in names
            if not name.startswith(".") and not name.lower().endswith((RESULT, ".zarr"))
        ]
    return found
