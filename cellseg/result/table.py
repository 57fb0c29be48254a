r"""The table of a result: Parquet on the disk, read by column and by row; ``cells.csv`` beside it.

Numbers are rounded once, when they are written: to 4 decimals, or to 4 significant digits below
0.1. Parquet and CSV then hold the same values. ``cells.csv`` is UTF-8 with commas, ``\n`` and one
header row; a missing number is empty, booleans are ``true`` and ``false``, and text that a
spreadsheet would take for a formula begins with an apostrophe (:func:`cellseg.text.as_cell`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from cellseg.annotations.masks import Outline
from cellseg.errors import InputError, input_errors
from cellseg.geometry import Box, Frame, LazyArray
from cellseg.result.labels import CHUNK_PX
from cellseg.table import Column
from cellseg.text import as_cell

GROUP_ROWS = 16_384
"""Rows of a row group: what one cell's row costs to read."""

GROUPS_KEPT = 8
"""Row groups that stay decoded: about 6 MB each."""

MOST_BYTES = 2**30
"""A row group that takes more than this when it is decoded is refused."""

LARGEST_CELL_PX = 4096
"""Longer cells are damage, not cells; lattice pixels."""

_BOX = ["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px"]

_QUOTED = {*',"\r\n'}
"""Characters for which texts stand in quotation marks."""

_DAMAGED = (pa.ArrowException, ValueError, TypeError, KeyError)
"""What pyarrow says of a file that is no table of cells."""


@contextmanager
def table_writer(
    path: Path, columns: Sequence[Column]
) -> Iterator[Callable[[Mapping[str, ArrayLike]], None]]:
    """Write a Parquet file, a part of its rows at a time.

    What it gives adds rows: all that are left, or a multiple of :data:`GROUP_ROWS`. It takes at
    least the table's columns, (N,) each; NaN and infinities become missing.
    """
    schema = pa.schema([(column.name, pa.type_for_alias(column.dtype)) for column in columns])
    floats = [column.name for column in columns if column.dtype.startswith("float")]
    settings = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [column.name for column in columns if column.dtype == "str"],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    }
    # A file and no name: Arrow takes some names for addresses.
    with path.open("wb") as out, pq.ParquetWriter(out, schema, **settings) as file:

        def add(values: Mapping[str, ArrayLike]) -> None:
            arrays = [_array(values[column.name], column.dtype) for column in columns]
            if (table := pa.Table.from_arrays(arrays, schema=schema)).num_rows:
                file.write_table(table, row_group_size=GROUP_ROWS)

        yield add


class Table:
    """The rows of a result, read from the disk when they are asked for.

    Row ``i`` (from 0) is the cell with label ``i + 1``. Of a column that several of the Parquet
    files hold, the last one's is taken. An InputError if a file cannot be read, a column is
    missing or of another type, or the files have other rows.
    """

    def __init__(self, columns: Sequence[Column], paths: Sequence[Path]) -> None:
        self.columns, self._folder = list(columns), paths[0].parent
        self._parts = [_Part(path) for path in paths]
        self._homes: dict[str, _Part] = {}
        for column in self.columns:
            homes = [part for part in self._parts if part.holds(column)]
            if not homes:
                raise InputError(f"{paths[0]}: has no column {column.name} of {column.dtype}")
            self._homes[column.name] = homes[-1]
        if any(not np.array_equal(part.starts, self._parts[0].starts) for part in self._parts):
            raise InputError(f"{paths[-1]}: has other rows than {paths[0].name}")
        self._kept: dict[str, pd.Series[Any]] = {}
        # A row group, all columns; the last ones stay decoded.
        self._group = lru_cache(GROUPS_KEPT)(lambda number: self._read(self.names, [number]))

    def __len__(self) -> int:
        return self._parts[0].rows

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def dtypes(self) -> dict[str, str]:
        """Names and what pandas calls the types."""
        return {column.name: column.dtype for column in self.columns}

    def load(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Some columns of all rows; all columns by default."""
        return self._frame(self._read(self.names if names is None else names))

    def column(self, name: str) -> pd.Series[Any]:
        """One column of all rows; kept once it was read."""
        if name not in self._kept:
            self._kept[name] = self.load([name])[name]
        return self._kept[name]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> pd.DataFrame:
        """Whole rows, in the order in which they are asked for."""
        wanted = np.asarray(indices, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"{len(self)} rows, got {wanted.min()} … {wanted.max()}")
        if not wanted.size:
            return self._frame(self._read(self.names, []))
        starts = self._parts[0].starts
        group = np.searchsorted(starts, wanted, side="right") - 1
        numbers, which = np.unique(group, return_inverse=True)
        parts = [self._group(number) for number in numbers.tolist()]
        firsts = np.cumsum([0, *(part.num_rows for part in parts[:-1])])
        places = wanted - starts[group] + firsts[which]
        return self._frame(pa.concat_tables(parts, unify_dictionaries=True).take(places))

    def batches(self) -> Iterator[pd.DataFrame]:
        """All columns, :data:`GROUP_ROWS` rows at a time."""
        for group in range(len(self._parts[0].starts) - 1):
            yield self._frame(self._read(self.names, [group]))

    def blocks(
        self, level: LazyArray, frame: Frame
    ) -> Iterator[tuple[pd.DataFrame, list[Outline]]]:
        """All cells, those of one part of the slide together: rows, and a mask for each.

        ``level`` is the label image's finest. A mask comes with its box, lattice px, and is not all
        background. An InputError if the image does not decode, or lacks a cell that the table has.
        """
        boxes = self._boxes(frame)
        places = boxes[:, 0] // CHUNK_PX * (level.shape[1] // CHUNK_PX + 1)
        places += boxes[:, 1] // CHUNK_PX
        order = np.argsort(places, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
            if some.size:
                rows = self.take(some)
                yield rows, self._masks(level, boxes[some], rows["label"].tolist())

    def _boxes(self, frame: Frame) -> NDArray[np.int32]:
        """(y0, x0, y1, x1) of all cells, lattice pixels, at most a pixel too wide on each side."""
        try:
            edges = self.load(_BOX).to_numpy() / frame.downsample
        except KeyError as error:
            raise InputError(f"{self._folder}: has no column {error}") from error
        # A hair of tolerance, as where they were measured.
        extent = (frame.lattice_height, frame.lattice_width)
        low = np.maximum(np.floor(edges[:, :2] + 1e-6), 0)
        high = np.ceil(edges[:, 2:] - 1e-6)
        wrong = ((low >= extent) | (high <= low) | (high - low > LARGEST_CELL_PX)).any(axis=1)
        if wrong.any():
            row = wrong.argmax() + 1
            raise InputError(
                f"{self._folder}: the box of the cell in row {row} is none on this slide"
            )
        return np.concatenate([low, np.minimum(high, extent)], axis=1).astype(np.int32)

    def _masks(
        self, level: LazyArray, corners: NDArray[np.int32], labels: list[int]
    ) -> list[Outline]:
        boxes = [Box(*box) for box in corners.tolist()]
        around = Box.around(boxes)
        seen = level[around.pixels]
        found = []
        for label, box in zip(labels, boxes, strict=True):
            pixels = seen[box.inside(around)] == label
            if not pixels.any():
                raise InputError(
                    f"{self._folder}: its masks lack cell {label}, which the table lists"
                )
            found.append((box, pixels))
        return found

    def write_csv(self, path: Path) -> None:
        """Write all of it as ``cells.csv``."""
        header = pa.table({name: pa.array([name]) for name in self.names})
        with path.open("wb") as file, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            file.write(_lines(header))
            groups = range(len(self._parts[0].starts) - 1)
            for lines in threads.map(lambda n: _lines(self._read(self.names, [n])), groups):
                file.write(lines)

    def _read(self, names: Sequence[str], groups: list[int] | None = None) -> pa.Table:
        """Columns of some row groups, side by side, in the order of ``names``."""
        found: dict[str, Any] = {}
        for part in self._parts:
            mine = [name for name in names if self._homes[name] is part]
            if mine:
                read = part.read(mine, groups)
                found |= {name: read[name] for name in mine}
        return pa.table({name: found[name] for name in names})

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        dtypes = self.dtypes
        found = {}
        for name in table.column_names:
            values = table[name]
            if dtypes[name] == "str":
                values = values.cast(pa.string())
            found[name] = values.to_pandas().astype(dtypes[name])
        return pd.DataFrame(found)


class _Part:
    """One Parquet file: its header is kept, its pages are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with input_errors(path, *_DAMAGED):
            self._stat = _stat(path)
            with path.open("rb") as opened, pq.ParquetFile(opened) as file:
                header, self._schema = file.metadata, file.schema_arrow
            self._header = header
            groups = [header.row_group(number) for number in range(header.num_row_groups)]
        if (widest := max((group.total_byte_size for group in groups), default=0)) > MOST_BYTES:
            raise InputError(f"{path}: a part of its rows takes {widest:,} bytes, too many")
        sizes = [group.num_rows for group in groups]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.rows = int(self.starts[-1])

    def holds(self, column: Column) -> bool:
        """Whether the file has a column of this name and type."""
        index = self._schema.get_field_index(column.name)
        return index >= 0 and bool(
            self._schema.field(index).type == pa.type_for_alias(column.dtype)
        )

    def read(self, names: list[str], groups: list[int] | None) -> pa.Table:
        """Columns, of some row groups or of all."""
        if _stat(self._path) != self._stat:
            raise InputError(f"{self._path}: changed since it was opened; open the result again")
        texts = [name for name in names if self._schema.field(name).type == pa.string()]
        with (
            input_errors(self._path, *_DAMAGED),
            self._path.open("rb") as opened,
            pq.ParquetFile(opened, metadata=self._header, read_dictionary=texts) as file,
        ):
            if groups is None:
                return file.read(names)
            return file.read_row_groups(groups, names)


def rounded(values: ArrayLike) -> NDArray[np.floating[Any]]:
    """Numbers as the table holds them: 4 decimals, or 4 significant digits below 0.1.

    >>> rounded([12.34567, 0.0123456]).tolist()
    [12.3457, 0.01235]
    """
    given = np.asarray(values)
    exact = np.where(np.isfinite(given), given, 0).astype(np.float64)
    with np.errstate(divide="ignore"):
        digits = 3 - np.floor(np.log10(np.abs(exact)))
    scale = 10.0 ** np.where(np.abs(exact) >= 0.1, 4.0, np.clip(digits, 4, 300))
    found = np.where(exact == 0, 0.0, np.round(exact * scale) / scale)
    kept = np.where(np.isfinite(given), found, np.nan)
    return kept.astype(given.dtype if given.dtype.kind == "f" else np.float64)


def _array(values: ArrayLike, dtype: str) -> pa.Array:
    if dtype == "str":
        return pa.array(values, pa.string())
    numbers = np.asarray(values)
    if dtype.startswith("float"):
        numbers = rounded(numbers.astype(dtype))
        return pa.array(numbers, from_pandas=True)
    missing = pd.isna(numbers)
    return pa.array(np.where(missing, 0, numbers).astype(dtype), mask=missing)


def _lines(table: pa.Table) -> pa.Buffer:
    """Rows as they stand in ``cells.csv``."""
    style = "none"
    for index, name in enumerate(table.column_names):
        if pa.types.is_dictionary(table[name].type):
            chunks = []
            for chunk in table[name].chunks:
                texts = [as_cell(text) for text in chunk.dictionary.to_pylist()]
                if any(set(text) & _QUOTED for text in texts):
                    style = "needed"
                chunks.append(pa.DictionaryArray.from_arrays(chunk.indices, texts))
            table = table.set_column(index, name, pa.chunked_array(chunks))
    out = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(include_header=False, quoting_style=style, batch_size=GROUP_ROWS)
    pa.csv.write_csv(table, out, options)
    return out.getvalue()


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def class_codes(classes: pd.Series[Any], names: Sequence[str]) -> NDArray[np.int64]:
    """Places of classes among the names that a result lists; an InputError for another class."""
    codes = classes.map({name: code for code, name in enumerate(names)})
    if codes.isna().any():
        raise InputError("the table holds classes that run.json does not list")
    return np.asarray(codes, np.int64)
