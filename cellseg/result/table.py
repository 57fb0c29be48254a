r"""``cells.csv``: how each kind of value is written, and read again.

UTF-8, comma, ``\n``, one header row. Numbers with a decimal part have 4 decimals, or 4
significant digits below 0.1 (``12.5000``, ``0.01234``, ``1.5e-06``); NaN and infinities are empty;
booleans are ``true`` and ``false``; text that a spreadsheet would take for a formula begins with an
apostrophe (:func:`cellseg.text.as_cell`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.annotations.region import Regions
from cellseg.errors import InputError
from cellseg.result.cellstore import Batch
from cellseg.result.files import sync
from cellseg.table import REGION
from cellseg.text import as_cell, from_cell

PART_ROWS = 100_000


class TableColumn(Protocol):
    """One column of the contract: its name and what pandas calls its type."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...


def write_table(
    path: Path,
    batches: Iterable[Batch],
    columns: Sequence[TableColumn],
    *,
    measured: Sequence[str],
    class_names: Sequence[str],
    texts: Mapping[str, str],
    regions: Regions | None = None,
) -> None:
    """Stream the cells to a CSV file, in order of their labels.

    Parameters
    ----------
    path : Path
        Overwritten.
    batches : iterable of Batch
        In order of their labels.
    columns : sequence of TableColumn
        The contract, in order. ``label``, ``class`` and ``score`` are filled from the cells,
        ``texts`` are the same in each row; the others must have been measured.
    measured : sequence of str
        Names of the batches' measured columns.
    class_names : sequence of str
        By class index.
    texts : mapping of str
        What stands in ``image`` and ``object`` in every row.
    regions : Regions, optional
        For the column ``region``, by the measured centroids.

    Raises
    ------
    ValueError
        If a column is in the contract, but was not measured.
    """
    known = {name: index for index, name in enumerate(measured)}
    own = {"label", "class", "score", *texts, *([] if regions is None else [REGION])}
    names = [as_cell(name) for name in class_names]
    missing = [column.name for column in columns if column.name not in own | known.keys()]
    if missing and known:
        raise ValueError(f"columns {missing} are in the contract, but were not measured")

    def values(batch: Batch, column: TableColumn) -> list[str]:
        match column.name:
            case "label":
                return [str(label) for label in batch.labels.tolist()]
            case "class":
                return [names[index] for index in batch.classes.tolist()]
            case "region" if regions is not None:
                y, x = (batch.measured[:, known[f"centroid_{axis}_px"]] for axis in "yx")
                return [as_cell(names) for names in regions.names_at(y, x)]
            case "score":
                return formatter(column.dtype)(batch.scores)
        if column.name in texts:
            return [as_cell(texts[column.name])] * len(batch.labels)
        return formatter(column.dtype)(batch.measured[:, known[column.name]])

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        for batch in batches:
            cells = [values(batch, column) for column in columns]
            writer.writerows(zip(*cells, strict=True))
    sync(path)


def read_table(
    path: Path, columns: Sequence[tuple[str, str]], *, text: IO[bytes] | None = None
) -> pd.DataFrame:
    """Read a CSV file of :func:`write_table`, with the contract's types.

    Parameters
    ----------
    path : Path
        A CSV file.
    columns : sequence of (str, str)
        Name and dtype.
    text : file, optional
        The header and some of the rows; the whole file otherwise.

    Raises
    ------
    InputError
        If the file is missing, or its columns or values are others.
    """
    dtypes = dict(columns)
    with table_errors(path):
        table = pd.read_csv(text or path, **csv_options(dtypes))
    if list(table.columns) != list(dtypes):
        raise InputError(f"{path}: expected columns {list(dtypes)}, got {list(table.columns)}")
    return with_texts(table, from_cell)


@contextmanager
def table_errors(path: Path) -> Iterator[None]:
    """What pandas says of a table, in one line.

    Raises
    ------
    InputError
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is no table of cells: {error}") from error


def csv_options(dtypes: Mapping[str, str]) -> dict[str, Any]:
    """How ``pandas.read_csv`` reads columns of these types."""
    empty = {name: [""] for name, dtype in dtypes.items() if dtype.startswith("float")}
    return {
        "dtype": dict(dtypes), "keep_default_na": False, "na_values": empty, "encoding": "utf-8",
    }  # fmt: skip


def read_parts(path: Path, wanted: Mapping[str, str]) -> Iterator[pd.DataFrame]:
    """Some columns of a long table, a part of its rows at a time; texts as they are written.

    Parameters
    ----------
    path : Path
        A CSV file.
    wanted : mapping of str
        Name to dtype.

    Raises
    ------
    InputError
        If the file is missing, or a column is, or a value is another.
    """
    # Without a place a cell is none: no value is left open here.
    options: dict[str, Any] = {
        "keep_default_na": False, "encoding": "utf-8", "chunksize": PART_ROWS,
    }  # fmt: skip
    with (
        table_errors(path),
        pd.read_csv(path, usecols=list(wanted), dtype=dict(wanted), **options) as parts,
    ):
        yield from parts


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table whose texts are changed: :func:`as_cell` before it is written, or back."""
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name].dtype):
            new = {text: change(text) for text in table[name].unique()}
            if any(old != text for old, text in new.items()):
                table = table.assign(**{name: table[name].map(new).astype(table[name].dtype)})
    return table


def formatter(dtype: str) -> Callable[[NDArray[np.float64]], list[str]]:
    """How the values of a column are written."""
    if dtype.startswith(("int", "uint")):
        return lambda values: [str(int(value)) for value in values.tolist()]
    if dtype == "bool":
        return lambda values: ["true" if value else "false" for value in values.tolist()]
    if dtype.startswith("float"):
        return lambda values: [_decimal(value) for value in values.tolist()]
    raise ValueError(f"expected a number or bool as dtype, got {dtype!r}")


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        return ""
    if value == 0 or abs(value) >= 0.1:
        return f"{value + 0.0:.4f}"
    return f"{value:.4g}"
