"""A finished result while it is changed: nobody else writes, and nobody edited its table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellseg.errors import InputError
from cellseg.results import publish
from cellseg.results.files import output_errors
from cellseg.results.lock import FolderLock
from cellseg.results.result import Result, load_result


@contextmanager
def changing(folder: Path) -> Iterator[Result]:
    """Hold a finished result while it is changed.

    Raises
    ------
    InputError
        If the folder is no finished result, or its table was changed since.
    OutputError
        If the disk refuses, or a run is writing there.
    """
    with output_errors(folder):
        if not folder.is_dir():
            load_result(folder)  # says what it is
        lock = FolderLock(folder)
        try:
            if publish.is_ready(folder):
                publish.publish(folder)
            result = load_result(folder)
            if (name := result.changed(table_only=True)) is not None:
                raise InputError(
                    f"{folder}: its {name} was changed since it was counted; count the slide again"
                )
            yield result
        finally:
            lock.release()
