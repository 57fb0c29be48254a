"""Turn whatever the decoders raise into one line for a person."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from cellseg.errors import CellsegError, InputError, RegionError, line_of
from cellseg.storage import Location, RemotePath

STORAGE_PACKAGES = frozenset(
    ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs",
     "google", "requests", "s3fs", "urllib3")
)  # fmt: skip
"""Whose errors, of a remote file, are the storage's."""

Found = TypeVar("Found")


@contextmanager
def reading(
    path: Location, what: str, *, kind: type[InputError] = InputError, advice: str = ""
) -> Iterator[None]:
    """Let no exception but cellseg's own leave the block: others become one line, a ``kind``.

    It tells ``what`` could not be done, such as ``"is no readable TIFF"``, and gives ``advice``.
    """
    try:
        yield
    except CellsegError:
        raise
    except Exception as error:
        if kind is RegionError and _is_outage(error, path):
            raise InputError(
                f"{path.name}: cannot be read any more ({line_of(error)}); what is done is kept, "
                "the same command goes on"
            ) from error
        tail = f"; {advice}" if advice else ""
        raise kind(f"{path.name}: {what} ({line_of(error)}){tail}") from error


def opened(
    path: Location, what: str, library: Callable[[], Any], look: Callable[[Any], Found]
) -> Found:
    """What ``look`` finds in a file that ``library`` opens; it is closed after an error.

    ``what`` is said if anything goes wrong: ``"is no readable CZI"``.
    """
    with reading(path, f"{what}, is cut off or damaged"):
        file = library()
        try:
            return look(file)
        except BaseException:
            file.close()
            raise


def _is_outage(error: BaseException, path: Location) -> bool:
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
