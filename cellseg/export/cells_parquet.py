"""``cells.parquet``: ``cells.csv`` for pandas, polars, R and databases; of one result or of many.

Unit and meaning of a column stand in its metadata; texts are dictionary-encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellseg.export._cells import described
from cellseg.result.result import Result, load_result

_TYPES = {"str": pa.dictionary(pa.int32(), pa.string()), "bool": pa.bool_()}
_IMAGE = pa.field("image", _TYPES["str"])

MADE_BY = {"made_by": "cellseg"}
"""Stands in the metadata of every table."""


def write(result: Result, path: Path) -> None:
    """Write the table of a result, row group by row group."""
    schema = pa.schema(_fields(result), metadata={**MADE_BY, "result": result.path.name})
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in result.table.batches():
            writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))


def write_together(folders: Mapping[str, Path], path: Path) -> None:
    """Write the tables of several results into one.

    It has the columns of all of them, empty where a result lacks one, and before them ``result``:
    the result's name. ``image`` is filled in for results that were counted before there was such
    a column.

    Parameters
    ----------
    folders : mapping of str to Path
        Result folders by their names, in the order of the rows.
    path : Path
        Overwritten.

    Raises
    ------
    InputError
        If one of them cannot be read.
    """
    fields: dict[str, pa.Field] = {}
    for folder in folders.values():
        for one in _fields(load_result(folder)):
            fields[one.name] = _common(fields.get(one.name, one), one)
    fields = {"result": pa.field("result", _TYPES["str"]), "image": _IMAGE, **fields}
    schema = pa.schema(list(fields.values()), metadata=MADE_BY)
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for name, folder in folders.items():
            result = load_result(folder)
            for table in result.table.batches():
                given = {"image": result.image_name, **table, "result": name}
                columns = [_column(given.get(one.name), one.type, len(table)) for one in schema]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _fields(result: Result) -> list[pa.Field]:
    return [
        pa.field(
            column.name,
            _TYPES[column.dtype] if column.dtype in _TYPES else pa.type_for_alias(column.dtype),
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in described(result)
    ]


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    """A column that holds what two results have under one name."""
    if one.type == other.type:
        return one
    texts = _TYPES["str"] in (one.type, other.type)
    return one.with_type(_TYPES["str"] if texts else pa.float64())


def _column(values: Any, kind: pa.DataType, rows: int) -> pa.Array:  # noqa: ANN401
    """A whole column: of a table, or the same text in all rows, or nothing."""
    if values is None:
        return pa.nulls(rows, kind)
    if isinstance(values, str):
        return pa.array([values] * rows).cast(kind)
    return pa.array(values, from_pandas=True).cast(kind)
