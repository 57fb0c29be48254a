"""One run at a time in a result folder."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from cellseg.errors import OutputError

LOCK_NAME = ".cellseg.lock"

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_logger = logging.getLogger(__name__)

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        # Far behind the text, so that others may read who holds the lock.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """Held from construction to :meth:`release`.

    The operating system holds the lock for the process, so that it goes when the process
    does, however it ends: a lock file that a killed run left behind locks nothing.

    Parameters
    ----------
    folder : Path
        Must exist.

    Raises
    ------
    OutputError
        If another run holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._handle = -1
        while self._handle < 0:
            self._handle = self._try(folder)

    def _try(self, folder: Path) -> int:
        """The locked handle, or -1 if the file was deleted meanwhile by its last holder."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self._path, flags, 0o666)
        try:
            _take(handle)
        except OSError as error:
            if error.errno in _BUSY:
                holder = _holder(handle)
                os.close(handle)
                raise OutputError(f"{folder}: another run{holder} is writing here") from error
            # Some network drives have no locks: better to run than to refuse.
            _logger.warning("%s: this drive has no locks (%s)", folder, error.strerror)
        try:
            if not os.path.samestat(os.fstat(handle), self._path.stat()):
                raise FileNotFoundError
        except FileNotFoundError:
            os.close(handle)
            return -1
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()}\n".encode())
        return handle

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._handle < 0:
            return
        if sys.platform != "win32":
            self._path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = -1
        with suppress(OSError):  # Windows deletes no open file; someone may have it by now.
            if sys.platform == "win32":
                self._path.unlink(missing_ok=True)


def _holder(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    process = os.read(handle, 20).decode("ascii", "replace").strip()
    return f" (process {process})" if process.isdecimal() else ""
