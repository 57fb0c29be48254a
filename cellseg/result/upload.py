"""A result folder behind a URL: counted in a scratch folder, uploaded when it is whole.

The journal needs a disk that knows locks and small writes; object storage knows neither. So
a run works in a folder on this machine, named after the URL, and the finished folder goes up
file by file, ``run.json`` last: whoever finds it there finds a whole result.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from cellseg.errors import CellsegError, ExistingResultError, OutputError
from cellseg.result.journal import JOURNAL_NAME
from cellseg.result.publish import (
    CORRECTIONS,
    DERIVED,
    FETCHED,
    MEASURED,
    RESULT_FILES,
    changed_files,
    is_export_name,
)
from cellseg.result.result import load_result
from cellseg.storage import Location, RemotePath, is_another, scrubbed_line

MARK = "uploading.json"
"""Lies in the remote folder while files of it are exchanged."""

_TABLE, _LABELS, _RUN = "cells.csv", "labels.ome.zarr", "run.json"
_FOLDERS = (_LABELS, "cells.ome.zarr")
_ATTRIBUTES = f"{_LABELS}/.zattrs"
_AT_ONCE = 500


@dataclass(frozen=True)
class RemoteResult:
    """A result folder, there and here.

    Attributes
    ----------
    local : Path
        The scratch folder; gone once everything is uploaded.
    """

    url: RemotePath
    local: Path

    @classmethod
    def at(cls, url: RemotePath) -> RemoteResult:
        """The result folder of a URL; always the same scratch folder on a machine."""
        digest = sha256(url.url.encode()).hexdigest()[:16]
        return cls(url, scratch_home() / digest / url.name)

    def prepare(self, image: Location, *, whole: bool, overwrite: bool = False) -> None:
        """Fetch what tells whether the slide was counted before.

        Parameters
        ----------
        whole : bool
            Fetch all of an earlier result, because something is to be added to it.
        overwrite : bool
            A result that was changed since it was counted may be replaced.

        Raises
        ------
        ExistingResultError
            If there is a result that was changed, and it may not be replaced.
        OutputError
            If the folder holds something else, or another slide's result.
        """
        # What an interrupted repeat had fetched says nothing of what lies there now.
        if not (self.local / _TABLE).is_file():
            for name in (_RUN, FETCHED):
                (self.local / name).unlink(missing_ok=True)
            shutil.rmtree(self.local / _LABELS, ignore_errors=True)
        with _output_errors(self.url):
            fs, path = self.url.filesystem()
            fs.invalidate_cache()
            names = _listed(fs, path)
            if names and _RUN not in names and MARK not in names:
                raise OutputError(f"{self.url}: exists and is no result folder of cellseg")
            if _RUN not in names or MARK in names:
                return
            run = _read_run(fs, path)
            self._refuse_other(run, image)
            if (self.local / _RUN).exists() or _TABLE not in names or _LABELS not in names:
                return
            file = _changed(fs, path, run)
            if file is not None and not overwrite:
                raise self._refusal(f"a count whose {file} was changed since", names)
            self._fetch(fs, path, names, whole=whole and file is None)
            if file is not None:
                # The record alone, so that what lies beside it is known: it is not gone on from.
                (self.local / _RUN).write_text(json.dumps({**run, "complete": False}))

    def _refusal(self, why: str, names: set[str]) -> ExistingResultError:
        return ExistingResultError(why, place=self.url, has_corrections=CORRECTIONS in names)

    def _refuse_other(self, run: dict[str, Any], image: Location) -> None:
        """Never write one slide's result over that of another one with the same name."""
        recorded = run.get("image")
        place = recorded.get("path") if isinstance(recorded, dict) else None
        if isinstance(place, str) and is_another(place, image):
            raise OutputError(f"{self.url}: holds the result of {place}", hint="output")

    def _fetch(self, fs: Any, path: str, names: set[str], *, whole: bool) -> None:  # noqa: ANN401
        self.local.mkdir(parents=True, exist_ok=True)
        if whole:
            for name in names & {*_FOLDERS}:
                fs.get(f"{path}/{name}/", f"{self.local / name}{os.sep}", recursive=True)
            own = {*RESULT_FILES} - {*_FOLDERS, _RUN}
            wanted = [name for name in names if name in own or is_export_name(name)]
        else:
            (self.local / _LABELS).mkdir(exist_ok=True)
            (self.local / FETCHED).touch()
            wanted = [_ATTRIBUTES]
        if CORRECTIONS in names:
            wanted.append(CORRECTIONS)
        for name in (*wanted, _RUN):
            fs.get_file(f"{path}/{name}", str(self.local / name))

    def finish(self, image: Location, *, overwrite: bool = False) -> bool:
        """Upload the finished folder and empty the scratch; False where there was nothing new.

        Raises
        ------
        OutputError
            If the storage refuses, or another result lies there by now that may not be
            replaced; the folder stays here, and the same command uploads it.
        """
        new = (self.local / _TABLE).is_file()
        if new:
            kept = f"; the result is kept in {self.local}, the same command uploads it"
            with _output_errors(self.url, kept):
                self._upload(image, overwrite=overwrite)
        for entry in list(self.local.iterdir()) if self.local.is_dir() else ():
            # A journal that the run left is of a slide some of whose tiles did not decode.
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.name.startswith(JOURNAL_NAME):
                entry.unlink(missing_ok=True)
        _remove_empty(self.local)
        _remove_empty(self.local.parent)
        return new

    def _upload(self, image: Location, *, overwrite: bool) -> None:
        fs, path = self.url.filesystem()
        fs.invalidate_cache()
        names = _listed(fs, path)
        earlier = _read_run(fs, path) if _RUN in names else {}
        self._refuse_other(earlier, image)  # another run may have come first
        if earlier and not overwrite and earlier.get("key") != load_result(self.local).run["key"]:
            raise self._refusal("a count with other settings by now", names)
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(f"{path}/{MARK}", json.dumps({"format": "cellseg upload"}).encode())
        outdated = [name for name in earlier.get("exports") or [] if is_export_name(name)]
        # run.json first: from here on nobody takes the folder for a whole result.
        for name in dict.fromkeys((_RUN, *RESULT_FILES, *outdated)):
            if name in names:
                fs.rm(f"{path}/{name}", recursive=name in _FOLDERS)
        files = [name for name in _files(self.local) if name not in (_RUN, CORRECTIONS)]
        for first in range(0, len(files), _AT_ONCE):
            part = files[first : first + _AT_ONCE]
            fs.put([str(self.local / name) for name in part], [f"{path}/{name}" for name in part])
        fs.put_file(str(self.local / _RUN), f"{path}/{_RUN}")
        fs.rm_file(f"{path}/{MARK}")

    def table(self) -> pd.DataFrame:
        """The uploaded table.

        Raises
        ------
        InputError
        """
        with self.url.reached() as (fs, path), tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            (here / _LABELS).mkdir()
            (here / FETCHED).touch()
            for name in (MEASURED, DERIVED, _ATTRIBUTES, _RUN):
                if name != DERIVED or fs.exists(f"{path}/{name}"):
                    fs.get_file(f"{path}/{name}", str(here / name))
            return load_result(here).table.load()


def fetch_record(url: RemotePath, here: Path, more: Sequence[str] = ()) -> None:
    """Fetch what :func:`cellseg.result.load_result` reads of a result, but for its pixels.

    Parameters
    ----------
    url : RemotePath
    here : Path
        A folder that is made.
    more : sequence of str
        Further files, where they are there.

    Raises
    ------
    InputError
        If the storage refuses.
    """
    (here / _LABELS).mkdir(parents=True)
    (here / FETCHED).touch()
    with url.reached() as (fs, path):
        for name in (_ATTRIBUTES, _RUN, *more):
            with suppress(FileNotFoundError):
                fs.get_file(f"{path}/{name}", str(here / name))


def send(file: Path, url: RemotePath) -> None:
    """Put a file behind a URL.

    Raises
    ------
    OutputError
        If the storage refuses.
    """
    with _output_errors(url):
        fs, path = url.filesystem()
        fs.put_file(str(file), path)


def scratch_home() -> Path:
    """Where scratch folders lie: ``CELLSEG_SCRATCH``, or the user's cache folder."""
    given = os.environ.get("CELLSEG_SCRATCH")
    if given:
        return Path(given)
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cellseg" / "scratch"


def _listed(fs: Any, path: str) -> set[str]:  # noqa: ANN401
    """Names in a remote folder; none where there is no such folder."""
    try:
        found = fs.ls(path, detail=False, refresh=True)
    except FileNotFoundError:
        return set()
    names = {str(entry).rstrip("/").rpartition("/")[2] for entry in found}
    # Some storages list an empty folder as itself.
    return names - {"", path.rstrip("/").rpartition("/")[2]}


def _read_run(fs: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
    try:
        found = json.loads(fs.cat_file(f"{path}/{_RUN}"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != "cellseg result":
        raise OutputError(f"{path}: exists and is no result folder of cellseg")
    return found


def _changed(fs: Any, path: str, run: dict[str, Any]) -> str | None:  # noqa: ANN401
    """What of a remote result is not as it was published; None where all is."""
    sizes = {
        str(name)[len(path.rstrip("/")) + 1 :]: int(info.get("size") or 0)
        for name, info in fs.find(path, detail=True).items()
    }

    def checksum(name: str) -> str:
        with fs.open(f"{path}/{name}") as file:
            digest = sha256()
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()

    return changed_files(run, sizes, checksum)


def _files(folder: Path) -> Iterator[str]:
    """Files of a finished result, as names below it; what is the run's own business stays."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        hidden = name.startswith(".") or name.startswith(JOURNAL_NAME)
        if file.is_file() and not file.is_symlink() and not hidden:
            yield name


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


@contextmanager
def _output_errors(url: RemotePath, more: str = "") -> Iterator[None]:
    try:
        yield
    except CellsegError:
        raise
    except Exception as error:
        raise OutputError(f"{url}: cannot be written ({scrubbed_line(error)}){more}") from error
