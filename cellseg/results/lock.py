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
            if not self._is_at(handle):
                os.close(handle)
                return -1
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"{os.getpid()}\n".encode())
        except OSError:
            os.close(handle)
            raise
        return handle

    def _is_at(self, handle: int) -> bool:
        """Whether the open file is the one that stands under the lock's name."""
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def check(self) -> None:
        """Refuse to go on in a folder that is no longer this run's.

        An open database takes whatever is written to it after its folder was removed, and
        zarr makes missing folders anew: without this a run would end well and leave nothing.

        Raises
        ------
        OutputError
            If the folder was removed, or another one stands under its name.
        """
        if not self.is_held:
            raise OutputError(
                f"{self._path.parent}: was removed while the run was writing into it; "
                "run the same again, it starts afresh"
            )

    @property
    def is_held(self) -> bool:
        """Whether the folder is still there and still this run's."""
        return self._handle >= 0 and self._is_at(self._handle)

    def release(self) -> None:
        """Let go; a second time does nothing, and so does a folder that must not be changed."""
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1
        if sys.platform != "win32":
            with suppress(OSError):
                if self._is_at(handle):  # not the lock of a run that came after a removal
                    self._path.unlink()
        os.close(handle)
        with suppress(OSError):  # Windows deletes no open file; someone may have it by now.
            if sys.platform == "win32":
                self._path.unlink(missing_ok=True)


def _holder(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    process = os.read(handle, 20).decode("ascii", "replace").strip()
    return f" (process {process})" if process.isdecimal() else ""
