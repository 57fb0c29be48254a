"""Turn whatever the decoders raise into one line for a person."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from cellseg.errors import InputError, RegionError, line_of, worded_by
from cellseg.storage import Location, RemotePath

STORAGE_PACKAGES = frozenset(
    ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs",
     "google", "requests", "s3fs", "urllib3")
)  # fmt: skip
"""Whose errors, of a remote file, are the storage's."""

Found = TypeVar("Found")


def reading(
    path: Location, what: str, *, kind: type[InputError] = InputError, advice: str = ""
) -> AbstractContextManager[None]:
    """Let no exception but cellseg's own leave the block: others become one line, a ``kind``.

    It tells ``what`` could not be done, such as ``"is no readable TIFF"``, and gives ``advice``.
    """

    def worded(error: Exception) -> InputError:
        if kind is RegionError and _is_outage(error, path):
            return InputError(
                f"{path.name}: cannot be read any more ({line_of(error)}); what is done is kept, "
                "the same command goes on"
            )
        tail = f"; {advice}" if advice else ""
        return kind(f"{path.name}: {what} ({line_of(error)}){tail}")

    return worded_by(worded, Exception)


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
