"""``cells.csv`` row by row: any cell's row at once, columns when they are asked for.

A table of a million cells takes ten seconds and half a gigabyte to read whole. What a viewer
needs first is one row, or a few columns; where each row begins is found in a fraction of that.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.result.table import csv_options, read_table, table_errors, with_texts
from cellseg.text import from_cell

_NEWLINE = ord("\n")
_BLOCK_BYTES = 16 * 2**20


class Rows:
    """The rows of one ``cells.csv``; row ``i`` (from 0) is the cell with label ``i + 1``.

    Parameters
    ----------
    columns : sequence of (str, str)
        Name and dtype, the contract.

    Raises
    ------
    InputError
        If the file cannot be read or its header is another.
    """

    def __init__(self, path: Path, columns: list[tuple[str, str]]) -> None:
        self._path = path
        self.columns = columns
        self._stat = _stat(path)
        self._loaded: dict[str, pd.Series[Any]] = {}
        with table_errors(path), path.open("rb") as file:
            self._header = file.readline()
            starts = _row_starts(file, len(self._header))
            found = list(pd.read_csv(BytesIO(self._header), nrows=0).columns)
        names = [name for name, _ in columns]
        if found != names:
            raise InputError(f"{path}: expected the columns {names}")
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def take(self, indices: NDArray[np.int64] | range) -> pd.DataFrame:
        """Whole rows, with the contract's types; those that follow each other are read at once.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        self._refuse_changed()
        wanted = np.asarray(indices, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"{self._path}: {len(self)} rows, got {wanted.min()} … {wanted.max()}")
        text = BytesIO()
        text.write(self._header)
        with self._path.open("rb") as file:
            for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
                if run.size:
                    file.seek(int(self._starts[run[0]]))
                    text.write(file.read(int(self._starts[run[-1] + 1] - self._starts[run[0]])))
        text.seek(0)
        return read_table(self._path, self.columns, text=text)

    def column(self, name: str) -> pd.Series[Any]:
        """One column of all rows; kept once it was read.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        return self.load([name])[name]

    def _refuse_changed(self) -> None:
        """The places of the rows hold for the file that was opened.

        Raises
        ------
        InputError
        """
        if _stat(self._path) != self._stat:
            raise InputError(f"{self._path}: changed since it was opened; open the result again")

    def has(self, names: list[str]) -> bool:
        """Whether columns were read already."""
        return all(name in self._loaded for name in names)

    def load(self, names: list[str]) -> pd.DataFrame:
        """Some columns of all rows, read together."""
        self._refuse_changed()
        dtypes = dict(self.columns)
        missing = {name: dtypes[name] for name in names if name not in self._loaded}
        if missing:
            with table_errors(self._path):
                found = pd.read_csv(self._path, usecols=list(missing), **csv_options(missing))
            found = with_texts(found, from_cell)
            self._loaded |= {name: found[name] for name in missing}
        return pd.DataFrame({name: self._loaded[name] for name in names})


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _row_starts(file: object, start: int) -> NDArray[np.int64]:
    """Where each row begins, and where the last one ends."""
    found = [np.array([start], np.int64)]
    place = start
    while block := file.read(_BLOCK_BYTES):  # type: ignore[attr-defined]
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE)
        found.append(ends + (place + 1))
        place += len(block)
    starts = np.concatenate(found)
    return starts if starts[-1] == place else np.append(starts, place)
