"""Turn whatever the decoders raise into one line for a person, and keep memory bounded."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from cellseg.errors import CellsegError, InputError, RegionError
from cellseg.storage import Location, RemotePath, scrubbed

WHOLE_LIMIT_BYTES = 8_000_000_000
"""The most that a file which can only be decoded whole may need."""

WHOLE_LIMIT_PX = 20_000_000_000
"""The most pixels of a file which can only be decoded whole."""

WHOLE_SAID_BYTES = 500_000_000
"""From here on its memory is worth a word."""

STORAGE_PACKAGES = frozenset(
    ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs",
     "google", "requests", "s3fs", "urllib3")
)  # fmt: skip
"""Whose errors, of a remote file, are the storage's."""

_log = logging.getLogger(__name__)
_inside = threading.local()


class Closable(Protocol):
    """A file as a library has it open."""

    def close(self) -> None: ...


File = TypeVar("File", bound=Closable)
Found = TypeVar("Found")


class _Hush(logging.Filter):
    """Sends a decoder's complaints to this package's debug log while cellseg is the caller."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(_inside, "depth", 0) == 0:
            return True
        _log.debug("tifffile: %s", record.getMessage())
        return False


_hush = _Hush()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep tifffile's log lines of this thread out of the user's sight.

    They are logged again at debug level under this package's name. Other users of tifffile
    in the same process are not touched.
    """
    logging.getLogger("tifffile").addFilter(_hush)
    _inside.depth = getattr(_inside, "depth", 0) + 1
    try:
        yield
    finally:
        _inside.depth -= 1


def one_line(error: BaseException, limit: int = 160) -> str:
    """What an exception says, on one line of at most ``limit`` characters."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = scrubbed(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def reading(
    path: Location, what: str, *, kind: type[InputError] = InputError, advice: str = ""
) -> Iterator[None]:
    """Let no exception but cellseg's own leave the block.

    Parameters
    ----------
    path : Location
        The file; its name starts the message.
    what : str
        What could not be done, such as ``"is no readable TIFF"``.
    kind : type
        The error to raise.
    advice : str
        What a person can do about it.
    """
    try:
        with hushed():
            yield
    except CellsegError:
        raise
    except Exception as error:
        if kind is RegionError and is_outage(error, path):
            raise InputError(
                f"{path.name}: cannot be read any more ({one_line(error)}); what is done is kept, "
                "the same command goes on"
            ) from error
        tail = f"; {advice}" if advice else ""
        raise kind(f"{path.name}: {what} ({one_line(error)}){tail}") from error


def opened(
    path: Location, what: str, library: Callable[[], File], look: Callable[[File], Found]
) -> Found:
    """What is found in a file that another library opens; it is closed where nothing is.

    Parameters
    ----------
    what : str
        What it is not, if anything goes wrong: ``"is no readable CZI"``.
    library : callable
        Opens it.
    look : callable
        Gets the open file.

    Raises
    ------
    InputError
    """
    what = f"{what}, is cut off or damaged"
    with reading(path, what):
        file = library()
    try:
        with reading(path, what):
            return look(file)
    except BaseException:
        file.close()
        raise


def is_outage(error: BaseException, path: Location) -> bool:
    """Whether the place failed and not the file: then no other part of it would be read either.

    Decoders say that data are damaged by errors of their own, or by an OSError without a number.
    """
    if isinstance(error, MemoryError | TimeoutError | ConnectionError):
        return True
    remote = isinstance(path, RemotePath)
    if isinstance(error, OSError) and error.errno is not None:
        return remote or error.errno != errno.EIO
    package = type(error).__module__.partition(".")[0]
    plain = package == "builtins" and isinstance(error, OSError)
    return remote and (plain or package in STORAGE_PACKAGES)


def whole_limit_bytes() -> int:
    """The most that may be decoded at once: 8 GB, or half of the memory that there is.

    That is the machine's, or what this process may take (``--max-memory``, ``ulimit -d``).
    """
    known = [2 * WHOLE_LIMIT_BYTES]
    with suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ImportError, OSError):
        import resource

        known.append(resource.getrlimit(resource.RLIMIT_DATA)[0])
    return min(limit for limit in known if limit > 0) // 2


def check_whole(path: Location, *, pixels: int, n_bytes: int, what: str) -> list[str]:
    """Refuse to decode at once what does not fit.

    Parameters
    ----------
    path : Location
        The file; its name starts the message.
    pixels, n_bytes : int
        Declared size of what must be decoded in one piece.
    what : str
        The piece, such as ``"the image"`` or ``"one strip"``.

    Returns
    -------
    list of str
        A note of what it costs, where that is much.

    Raises
    ------
    InputError
    """
    limit = whole_limit_bytes()
    if pixels > WHOLE_LIMIT_PX or n_bytes > limit:
        raise InputError(
            f"{path.name}: {what} can only be decoded whole and claims {pixels:,} px "
            f"({n_bytes / 1e9:,.1f} GB), more than the {limit / 1e9:.1f} GB that may be used; "
            "convert the file to a tiled TIFF"
        )
    if n_bytes < WHOLE_SAID_BYTES:
        return []
    return [f"decoded whole: {n_bytes / 1e9:.1f} GB of memory while it is open"]
