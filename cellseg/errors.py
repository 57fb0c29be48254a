"""What can go wrong, one class an exit code.

Each error is also the builtin that it resembles, so that library users can catch either.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.text import scrubbed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class CellsegError(Exception):
    """Base of every error that cellseg raises on purpose.

    Parameters
    ----------
    text : str
        One line for a person. It names no command and no option.
    hint : str
        Fields that can mend it, such as ``"mpp"`` or ``"mpp,diameter"``. The command line, napari
        and Python each name their own control for a field.
    """

    exit_code = 1

    def __init__(self, text: str = "", *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Notice(str):
    """A line for a person about a count or a result; its hint is as in :class:`CellsegError`."""

    __slots__ = ("hint",)
    hint: str

    def __new__(cls, text: str, *, hint: str = "") -> Notice:
        made = super().__new__(cls, text)
        made.hint = hint or getattr(text, "hint", "")
        return made


def hinted(told: object, control: Callable[[str], str]) -> str:
    """The text of an error or a notice, followed by the controls that its hint names.

    ``control`` turns a field's name into what a face calls it, such as ``--mpp``; empty for none.
    """
    fields = str(getattr(told, "hint", "")).split(",")
    named = ", ".join(filter(None, (control(field) for field in fields if field)))
    return f"{told} ({named})" if named else str(told)


def line_of(error: BaseException) -> str:
    """What an error says, as one line that is not too long, without what may be a secret."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    said = scrubbed(" ".join(str(error).split())) or type(error).__name__
    return f"{said} is missing" if isinstance(error, KeyError) else said[:200]


def unexpected_text(error: BaseException) -> str:
    """One line about an error that nobody foresaw."""
    said = f": {line_of(error)}" if str(error) else ""
    return f"unexpected error, {type(error).__name__}{said}; please report it"


def unforeseen(error: BaseException) -> CellsegError:
    """The same as an error to be told; where memory ran out it says so, with its exit code."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
        return NoMemoryError(
            "not enough memory; what is done is kept, the same command goes on: give it more, or "
            "take smaller tiles",
            hint="max_memory,tile",
        )
    return CellsegError(unexpected_text(error), hint="verbose")


_NO_MEMORY = ("can't allocate memory", "not enough memory", "can't start new thread")
"""What torch, and Python's threads, say in a RuntimeError."""


class NoMemoryError(CellsegError, MemoryError):
    """The machine, or a limit that the user set, gives no more memory."""

    exit_code = 4


class SettingsError(CellsegError, ValueError):
    """An option, a protocol or a combination of them makes no sense."""

    exit_code = 2


class PartialResultError(CellsegError, RuntimeError):
    """Some tiles or some files failed; what could be done was done."""

    exit_code = 3


class InputError(CellsegError, OSError):
    """A file that is missing, is no image, is cut off, or does not decode."""

    exit_code = 4


class RegionError(InputError):
    """One region of an otherwise readable slide does not decode."""


class OutputError(CellsegError, OSError):
    """The result cannot be written."""

    exit_code = 5


@contextmanager
def worded_by(
    worded: Callable[[Exception], CellsegError], *kinds: type[Exception]
) -> Iterator[None]:
    """Turn what the disk says, and errors of ``kinds``, into another one; cellseg's own pass."""
    faults: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except CellsegError:
        raise
    except faults as error:
        raise worded(error) from error


def input_errors(
    path: object, *kinds: type[Exception], what: str = "cannot be read"
) -> AbstractContextManager[None]:
    """Turn what the disk says, and errors of ``kinds``, into an InputError that names ``path``."""

    def worded(error: Exception) -> InputError:
        if reason := getattr(error, "strerror", None):
            return InputError(f"{path}: cannot be read: {reason}")
        return InputError(f"{path}: {what}: {line_of(error)}")

    return worded_by(worded, *kinds)


def output_errors(path: Path, *kinds: type[Exception]) -> AbstractContextManager[None]:
    """Turn what the disk says, and errors of ``kinds``, into one line that names ``path``."""
    return worded_by(
        lambda error: OutputError(f"{path}: cannot be written: {_said(error)}"), *kinds
    )


def _said(error: Exception) -> str:
    """What went wrong, and what to do about it where that is known."""
    # SQLite gives no number of the system, and does not pass on why a file does not open.
    name = getattr(error, "sqlite_errorname", "")
    number = errno.ENOSPC if name == "SQLITE_FULL" else getattr(error, "errno", None)
    text = getattr(error, "strerror", None) or (os.strerror(number) if number else str(error))
    if name == "SQLITE_CANTOPEN":
        return f"{text}; may its folder be written to?"
    if number in _FULL:
        return f"{text}; make room and run the same again: what is done is kept"
    if number in _FORBIDDEN:
        return f"{text}; allow it, or write to another folder"
    return text


STAGING = ".partial"
"""Name of a folder whose content is put on the disk at once, by whoever moves it out of there."""


@contextmanager
def writing(path: Path, *kinds: type[Exception]) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well.

    Raises
    ------
    OutputError
        If the disk refuses, or the block raises one of ``kinds``.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with output_errors(path, *kinds):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.parent.name == STAGING:
                temporary.replace(path)
                return
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ExistingResultError(OutputError):
    """A result that would have to be replaced (``why``), and nobody said that it may be."""

    def __init__(self, why: str, *, place: object) -> None:
        self.why, self.place = why, place
        super().__init__(f"{place}: holds {why}", hint="overwrite,output")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(ExistingResultError, self.why, place=self.place), ()


class WeightsError(InputError):
    """A weights file that is missing, damaged, or made for another network."""


class CountWarning(UserWarning):
    """What a person should know about a count, one line; :func:`cellseg.count` warns with it."""
