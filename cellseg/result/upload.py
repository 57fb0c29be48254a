"""A result folder behind a URL: counted in a scratch folder, uploaded when it is whole.

The journal needs a disk that knows locks and small writes; object storage knows neither. So
a run works in a folder on this machine, named after the URL, and the finished folder goes up
file by file, ``run.json`` last: whoever finds it there finds a whole result.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from cellseg.errors import ExistingResultError, OutputError, line_of, worded_by
from cellseg.result.files import remove
from cellseg.result.journal import JOURNAL_FILES
from cellseg.result.publish import (
    CORRECTIONS,
    DERIVED,
    FETCHED,
    FORMAT,
    LABELS,
    MEASURED,
    RESULT_FILES,
    RUN,
    exports_of,
)
from cellseg.result.result import load_result
from cellseg.storage import Location, RemotePath, is_another

MARK = "uploading.json"
"""Lies in the remote folder while files of it are exchanged."""

_ATTRIBUTES = f"{LABELS}/.zattrs"


@dataclass(frozen=True)
class RemoteResult:
    """A result folder, there and here.

    ``local`` is the scratch folder; gone once everything is uploaded. While :data:`FETCHED` lies in
    it, its result is a copy of the one there.
    """

    url: RemotePath
    local: Path

    @classmethod
    def at(cls, url: RemotePath) -> RemoteResult:
        """The result folder of a URL; always the same scratch folder on a machine.

        It lies in ``CELLSEG_SCRATCH``, or in the user's cache folder.
        """
        digest = sha256(url.url.encode()).hexdigest()[:16]
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = Path(os.environ.get("CELLSEG_SCRATCH") or Path(cache, "cellseg", "scratch"))
        return cls(url, home / digest / url.name)

    @contextmanager
    def fetched(self, image: Location) -> Iterator[None]:
        """An earlier result of the slide lies in the scratch folder, as long as it is a copy."""
        self._drop_copy()  # of a command that was killed
        try:
            self._fetch(image)
            yield
        finally:
            self._drop_copy()

    def _fetch(self, image: Location) -> None:
        with _output_errors(self.url):
            fs, path, names = _listed(self.url)
            if names and not names & {RUN, MARK}:
                raise OutputError(f"{self.url}: exists and is no result folder of cellseg")
            if RUN not in names or MARK in names:
                return
            self._earlier(fs, path, image)
            if (self.local / RUN).exists():
                return  # counted here, and not yet uploaded
            self.local.mkdir(parents=True, exist_ok=True)
            (self.local / FETCHED).touch()
            fs.get(f"{path}/", f"{self.local}{os.sep}", recursive=True)

    def _earlier(self, fs: Any, path: str, image: Location) -> dict[str, Any]:  # noqa: ANN401
        """The record of the result there; refuses other files, and another slide's result."""
        run = None
        with suppress(ValueError):
            run = json.loads(fs.cat_file(f"{path}/{RUN}"))
        if not isinstance(run, dict) or run.get("format") != FORMAT:
            raise OutputError(f"{path}: exists and is no result folder of cellseg")
        match run.get("image"):
            case {"path": str(place)} if is_another(place, image):
                raise OutputError(f"{self.url}: holds the result of {place}", hint="output")
        return run

    @property
    def is_new(self) -> bool:
        """Whether the scratch folder holds a result that is not there yet."""
        return (self.local / RUN).is_file() and not (self.local / FETCHED).exists()

    def upload(self, image: Location, *, overwrite: bool = False) -> None:
        """Upload the finished folder; from then on it is a copy.

        An OutputError if the storage refuses, or another result lies there by now that may not be
        replaced; the folder stays here, and the same command uploads it.
        """
        kept = f"; the result is kept in {self.local}, the same command uploads it"
        with _output_errors(self.url, kept):
            fs, path, names = _listed(self.url)
            # Another run may have come first.
            earlier = self._earlier(fs, path, image) if RUN in names else {}
            mine = load_result(self.local).run["key"]
            if earlier and not overwrite and earlier.get("key") != mine:
                corrected = " and corrections of it" * (CORRECTIONS in names)
                why = f"a count with other settings by now{corrected}"
                raise ExistingResultError(why, place=self.url)
            fs.makedirs(path, exist_ok=True)
            fs.pipe_file(f"{path}/{MARK}", json.dumps({"format": "cellseg upload"}).encode())
            # run.json first: from here on nobody takes the folder for a whole result.
            for name in dict.fromkeys((RUN, *RESULT_FILES, *exports_of(earlier))):
                if name in names:
                    fs.rm(f"{path}/{name}", recursive=True)
            files = [name for name in _files(self.local) if name not in (RUN, CORRECTIONS)]
            fs.put([str(self.local / name) for name in files], [f"{path}/{name}" for name in files])
            fs.put_file(str(self.local / RUN), f"{path}/{RUN}")
            fs.rm_file(f"{path}/{MARK}")
        (self.local / FETCHED).touch()

    def _drop_copy(self) -> None:
        """Remove a copy; a journal that stays is of a slide some of whose tiles failed."""
        with suppress(OSError):
            if (self.local / FETCHED).exists():
                for entry in self.local.iterdir():
                    if entry.name not in JOURNAL_FILES:
                        remove(entry)
            self.local.rmdir()
            self.local.parent.rmdir()

    def table(self) -> pd.DataFrame:
        """The uploaded table."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder, "result")
            fetch_record(self.url, here, (MEASURED, DERIVED))
            return load_result(here).table.load()


def fetch_record(url: RemotePath, here: Path, more: Sequence[str] = ()) -> None:
    """Fetch what :func:`cellseg.result.load_result` reads of a result, but for its pixels.

    ``here`` is made; ``more`` are further files, where they are there.
    """
    (here / LABELS).mkdir(parents=True)
    (here / FETCHED).touch()
    with url.reached() as (fs, path):
        for name in (_ATTRIBUTES, RUN, *more):
            with suppress(FileNotFoundError):
                fs.get_file(f"{path}/{name}", str(here / name))


def send(file: Path, url: RemotePath) -> None:
    """Put a file behind a URL."""
    with _output_errors(url):
        fs, path = url.filesystem()
        fs.put_file(str(file), path)


def _listed(url: RemotePath) -> tuple[Any, str, set[str]]:
    """The storage, a folder's path on it, and the names in it; none where it is not there."""
    fs, path = url.filesystem()
    fs.invalidate_cache()
    try:
        found = fs.ls(path, detail=False, refresh=True)
    except FileNotFoundError:
        found = []
    names = {str(entry).rstrip("/").rpartition("/")[2] for entry in found}
    # Some storages list an empty folder as itself.
    return fs, path, names - {"", path.rstrip("/").rpartition("/")[2]}


def _files(folder: Path) -> Iterator[str]:
    """Files of a finished result, as names below it; what is the run's own business stays."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        hidden = name.startswith(".") or name in JOURNAL_FILES
        if file.is_file() and not file.is_symlink() and not hidden:
            yield name


def _output_errors(url: RemotePath, more: str = "") -> AbstractContextManager[None]:
    return worded_by(
        lambda error: OutputError(f"{url}: cannot be written ({line_of(error)}){more}"), Exception
    )
