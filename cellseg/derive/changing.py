"""A finished result while it is changed: nobody else writes, and nobody edited its table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellseg.errors import InputError
from cellseg.result import publish
from cellseg.result.files import output_errors
from cellseg.result.lock import FolderLock
from cellseg.result.result import Result, is_ours, load_result
from cellseg.table.summary import Summary


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
        if not (folder.is_dir() and is_ours(folder)):
            load_result(folder)  # says what it is: the lock would make it look like a run
        lock = FolderLock(folder)
        try:
            if publish.is_ready(folder):
                publish.publish(folder)
            result = load_result(folder)
            result.check_table()
            try:
                str(Summary.from_dict(result.run["summary"]))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise InputError(
                    f"{result.run_path}: is damaged: its summary: {type(error).__name__}: {error}"
                ) from error
            try:
                yield result
            except UnicodeDecodeError as error:
                raise InputError(f"{result.table_path}: is no table of cells: {error}") from error
        finally:
            lock.release()
