"""Columns that are added to a finished table; everything else in it stays byte for byte.

They stand last, kind after kind, and are plain numbers: a line is taken apart from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.result import publish
from cellseg.result.files import read_json, sync, write_json
from cellseg.result.inventory import file_entry, folder_entry, sizes_below
from cellseg.result.result import ADDED, Result
from cellseg.result.table import TableColumn, formatter

Values = Callable[[int, int], Mapping[str, NDArray[np.float64]]]
"""The added columns of the rows from one to another (half-open)."""

_ROWS = 16_384


def add_columns(
    result: Result,
    kind: str,
    columns: Sequence[TableColumn],
    values: Values,
    *,
    about: Callable[[], Mapping[str, Any]],
    before: Callable[[Path, str], None] | None = None,
) -> None:
    """Put a kind's columns into a result, in the place of earlier ones, all or nothing.

    Parameters
    ----------
    result : Result
        Held while it is changed.
    kind : str
        Of :data:`ADDED`; what ``run.json`` calls it.
    about : callable
        What ``run.json`` says beside the names of the columns; asked when the table is written.
    before : callable, optional
        Writes other parts into the folder that it is given, with the result's token.

    Raises
    ------
    InputError
        If the table has another number of rows.
    OutputError
        If the disk refuses.
    """
    folder = result.path
    staging = publish.fresh_staging(folder)
    try:
        run = read_json(result.run_path)
        token = str(run["result"])
        if before is not None:
            before(staging, token)
        rows = _rewrite(result, staging / publish.TABLE, kind, columns, values)
        files = dict(publish.files_of(run))
        files[publish.TABLE] = {**file_entry(staging / publish.TABLE), "rows": rows}
        if (staging / publish.CELLS).is_dir():
            files[publish.CELLS] = folder_entry(sizes_below(staging / publish.CELLS))
        there = {str(column["name"]): column for column in run["columns"]}
        new = [{"name": column.name, "dtype": column.dtype} for column in columns]
        by_kind = {
            other: new if other == kind else [there[name] for name in result.added(other)]
            for other in ADDED
        }
        stale = {*(run.get("stale") or ()), *publish.exports_of(run)} - {kind}
        record = {
            **run,
            "columns": [*result.found_columns, *(one for some in by_kind.values() for one in some)],
            "files": files,
            "stale": sorted(stale),
            kind: {**about(), "columns": [column.name for column in columns]},
        }
        write_json(staging / publish.RUN, record)
        publish.mark_ready(folder, token, outdated=(), absent=())
        publish.publish(folder)
    finally:
        publish.remove_staging(folder)


def _rewrite(
    result: Result, target: Path, kind: str, columns: Sequence[TableColumn], values: Values
) -> int:
    """Write the table with the new columns, and say how many rows it has."""
    earlier = [name for other in ADDED for name in result.added(other)]
    first_of = {other: len(_before(result, other)) for other in ADDED}
    start, end = first_of[kind], first_of[kind] + len(result.added(kind))

    def joined(line: str, new: Sequence[str]) -> str:
        parts = line.removesuffix("\n").rsplit(",", len(earlier)) if earlier else [line[:-1]]
        base, fields = parts[0], parts[1:]
        return ",".join([base, *fields[:start], *new, *fields[end:]]) + "\n"

    written = [formatter(column.dtype) for column in columns]
    first = 0
    with (
        result.table_path.open(encoding="utf-8", newline="") as source,
        target.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(joined(source.readline(), [column.name for column in columns]))
        while lines := list(islice(source, _ROWS)):
            table = values(first, first + len(lines))
            fields = zip(
                *(form(table[column.name]) for form, column in zip(written, columns, strict=True)),
                strict=True,
            )
            try:
                file.writelines(joined(*one) for one in zip(lines, fields, strict=True))
            except ValueError as error:
                raise InputError(f"{result.table_path}: has more rows than cells") from error
            first += len(lines)
    sync(target)
    return first


def _before(result: Result, kind: str) -> list[str]:
    """Names of the added columns that stand before those of a kind."""
    return [name for other in ADDED[: ADDED.index(kind)] for name in result.added(other)]
