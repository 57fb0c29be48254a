"""One run at a time in a result folder."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cellseg.errors import OutputError

LOCK_NAME = ".cellseg.lock"

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
_logger = logging.getLogger(__name__)


class FolderLock:
    """Held from construction to :meth:`release`; an OutputError where another run holds it.

    The operating system holds the lock for the process: a lock file that a killed run left behind
    locks nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        if self._path.is_symlink():
            raise OutputError(f"{self._path}: is a link; it is not followed")
        self._lock = FileLock(self._path, blocking=False, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            holder = ""
            with suppress(OSError, ValueError):
                holder = f" (process {int(self._path.read_text())})"
            raise OutputError(f"{folder}: another run{holder} is writing here") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # Some network drives have no locks: better to run than to refuse.
            _logger.warning("%s: this drive has no locks (%s)", folder, error.strerror)
            self._path.touch()
        self._file: os.stat_result | None = self._path.stat()
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
