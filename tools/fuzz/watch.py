"""What a process opens: a hook that names all that lies outside of the folders it was given."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

READS = {"os.listdir": 1, "os.scandir": 1}
WRITES = {
    "sqlite3.connect": 1, "os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2, "os.truncate": 1, "os.chmod": 1, "os.chown": 1, "os.utime": 1,
}  # fmt: skip
"""Audit events and how many of their arguments are paths."""

OF_LINKS = ("os.remove", "os.rename", "os.link", "os.symlink")
"""What happens to a link itself, not to what it leads to."""

FORBIDDEN = (
    "socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
    "pickle.find_class", "ctypes.dlopen",
)  # fmt: skip
"""What the reading of a file never needs."""

_MACHINE = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/etc", "/usr/share", "/usr/lib")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def installation() -> tuple[str, ...]:
    """Folders of Python, its packages and cellseg, which any process reads."""
    import cellseg

    folders = {sys.prefix, sys.base_prefix, *sys.path[1:]}
    folders |= {str(Path(cellseg.__file__).parents[1] / name) for name in ("cellseg", "protocols")}
    return tuple(sorted({os.path.realpath(folder) for folder in folders if folder} | {*_MACHINE}))


def watch(
    reads: Sequence[str], writes: Sequence[str], trespasses: list[str], *, may_connect: bool = False
) -> None:
    """From now on, in this process: add to ``trespasses`` what leads out of the folders.

    Parameters
    ----------
    reads, writes : sequence of str
        Folders, without links in them; what may be written may be read.
    trespasses : list of str
        Grows: each event and its path.
    may_connect : bool
        To this machine, and have a port of it.
    """
    may_write = (*writes, "/dev/null")
    may_read = (*reads, *may_write, *installation())

    def within(path: object, folders: Sequence[str], *, follows: bool = True) -> bool:
        text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
        text = text.removeprefix("file:").partition("?")[0] if text.startswith("file:") else text
        try:
            parent, name = os.path.split(text)
            real = os.path.realpath(text if follows else parent)
            real = real if follows else f"{real}/{name}"
        except (OSError, ValueError):
            return True  # nothing can be opened under such a name
        return any(real == folder or real.startswith(f"{folder}/") for folder in folders)

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = given
            writing = bool(set(str(mode or "")) & set("wax+"))
            writing = writing or bool(isinstance(flags, int) and flags & _WRITING)
            is_there = writing or isinstance(path, int) or os.path.exists(path)  # noqa: PTH110 - a path of bytes too
            folders = may_write if writing else may_read
            if is_there and not isinstance(path, int) and not within(path, folders):
                trespasses.append(f"{'writes' if writing else 'reads'} {path}")
        elif event in READS or event in WRITES:
            folders = may_read if event in READS else may_write
            for path in given[: READS.get(event) or WRITES[event]]:
                named = not isinstance(path, int) and path not in (None, ":memory:", "")
                if named and not within(path, folders, follows=event not in OF_LINKS):
                    trespasses.append(f"{event} {path}")
        elif may_connect and event.startswith("socket.") and "'127.0.0.1'" in repr(given[1]):
            pass
        elif event in FORBIDDEN:
            trespasses.append(f"{event} {given!r:.200}")

    sys.addaudithook(hook)
