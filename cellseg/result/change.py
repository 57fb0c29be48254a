"""A change of a result, by one command at a time: staged, then put in place all at once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cellseg.errors import STAGING, OutputError, output_errors
from cellseg.geometry import Frame
from cellseg.result import publish
from cellseg.result.files import is_writable, remove, write_json
from cellseg.result.result import Result, is_ours, load_result

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_logger = logging.getLogger(__name__)


class Change:
    """Files of one command on their way into a result folder, which is locked.

    ``run`` is the record as it will be; whoever changes the result changes it. ``fresh``: a new
    count, so that nothing of what stands under the final names stays.
    """

    def __init__(self, folder: Path, run: dict[str, Any], frame: Frame, *, fresh: bool) -> None:
        self.folder, self.run, self._frame = folder, run, frame
        self._staging, self._fresh = folder / STAGING, fresh
        self._removed: set[str] = set()

    @property
    def result(self) -> Result:
        """The result as it will be."""
        staged = {path.name for path in self._staging.iterdir()}
        names = {*publish.files_of(self.run), *staged} - self._removed
        run = {**self.run, "files": {name: {} for name in names}}
        roots = (self._staging,) if self._fresh else (self._staging, self.folder)
        return Result(self.folder, run=run, frame=self._frame, roots=roots)

    @property
    def exports(self) -> list[str]:
        """Names of the exports that the result has."""
        staged = filter(publish.is_export_name, (path.name for path in self._staging.iterdir()))
        return sorted({*publish.exports_of(self.run), *staged} - self._removed)

    def path(self, name: str) -> Path:
        """Where a part of the result is written; nothing is there yet."""
        path = self._staging / name
        remove(path)
        self._removed.discard(name)
        return path

    def remove(self, name: str) -> None:
        """Leave a part out of the result."""
        remove(self._staging / name)
        self._removed.add(name)

    def commit(self) -> Result:
        """Put everything in place; an OSError if the disk refuses: the result stays as it was."""
        before = {} if self._fresh else publish.files_of(self.run)
        new = {path.name: publish.entry_of(path) for path in self._staging.iterdir()}
        if publish.TABLE in new:
            new[publish.TABLE]["rows"] = len(self.result.table)
            if kept := publish.edited_name(self.folder):
                shutil.copyfile(self.folder / publish.TABLE, self.folder / kept)
        files = {n: entry for n, entry in {**before, **new}.items() if n not in self._removed}
        record = {**self.run, "exports": self.exports, "files": files}
        write_json(self._staging / publish.RUN, record)
        gone = self._removed
        if self._fresh:
            earlier = publish.published(self.folder)
            gone = gone | {*publish.exports_of(earlier), *publish.OPTIONAL}
        publish.mark_ready(self.folder, str(self.run["result"]), gone=gone - new.keys())
        publish.publish(self.folder)
        return load_result(self.folder)


@contextmanager
def changing(folder: Path, *, is_checked: bool = True) -> Iterator[Change]:
    """Hold a finished result while it is changed; nothing changes without :meth:`Change.commit`.

    An InputError if the folder is no finished result; with ``is_checked`` also if somebody changed
    its measurements or masks. An OutputError if the disk refuses, or a run is writing there.
    """
    with output_errors(folder):
        if not (folder.is_dir() and is_ours(folder)):
            load_result(folder)  # says what it is: the lock would make it look like a run
        lock = FolderLock(folder)
        try:
            if publish.is_ready(folder):
                publish.publish(folder)
            result = load_result(folder)
            if is_checked:
                result.check_table()
            publish.fresh_staging(folder)
            try:
                yield Change(folder, dict(result.run), result.frame, fresh=False)
            finally:
                publish.remove_staging(folder)
        finally:
            lock.release()


def add_file(result: Result, name: str, write: Callable[[Path], None]) -> Path:
    """Add an export, or a picture of the result's own, whole or not at all.

    ``write`` writes a file or a folder at the path that it is given; errors as of :func:`changing`.
    """
    with changing(result.path, is_checked=False) as change:
        path = change.path(name)
        with output_errors(result.path / name):
            write(path)
        change.commit()
    return result.path / name


class FolderLock:
    """Held from construction to :meth:`release`; an OutputError where another run holds it.

    The operating system holds the lock for the process: a lock file that a killed run left behind
    locks nothing. A folder that is read-only is not locked.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / publish.LOCK_NAME
        if self._path.is_symlink():
            raise OutputError(f"{self._path}: is a link; it is not followed")
        self._lock = FileLock(self._path, blocking=False, thread_local=False)
        self._file: os.stat_result | None = None
        try:
            self._lock.acquire()
        except Timeout as error:
            holder = ""
            with suppress(OSError, ValueError):
                holder = f" (process {int(self._path.read_text())})"
            raise OutputError(f"{folder}: another run{holder} is writing here") from error
        except OSError as error:
            if error.errno in _READ_ONLY and not is_writable(folder):
                return  # nothing can be written there, and so nothing need be locked
            if error.errno not in _NO_LOCKS:
                raise
            # Some network drives have no locks: better to run than to refuse.
            _logger.warning("%s: this drive has no locks (%s)", folder, error.strerror)
            self._path.touch()
        self._file = self._path.stat()
        with suppress(PermissionError):  # on Windows nobody else writes in a locked file
            self._path.write_text(f"{os.getpid()}\n")

    def check(self) -> None:
        """Refuse to go on in a folder that was removed, or that is another run's by now.

        An open database takes whatever is written to it after its folder was removed, and
        zarr makes missing folders anew: without this a run would end well and leave nothing.
        """
        if not self.is_held:
            raise OutputError(
                f"{self._path.parent}: was removed while the run was writing into it; "
                "run the same again, it starts afresh"
            )

    @property
    def is_held(self) -> bool:
        """Whether the folder is still there and still this run's."""
        try:
            return self._file is not None and os.path.samestat(self._file, self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def release(self) -> None:
        """Let go; a second time does nothing, and so does a folder that must not be changed."""
        ours, self._file = self.is_held, None
        with suppress(OSError):  # Windows deletes no open file: the library does it afterwards
            if ours:  # not the lock of a run that came after a removal
                self._path.unlink()
        self._lock.release()
