"""``cells.parquet``: ``cells.csv`` for pandas, polars, R and databases; of one result or of many.

Unit and meaning of a column stand in its metadata; texts are dictionary-encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellseg.errors import InputError
from cellseg.export._cells import described
from cellseg.result.files import readable
from cellseg.result.result import Result

_TEXT = pa.dictionary(pa.int32(), pa.string())
_RESULT = pa.field("result", _TEXT)

MADE_BY = {"made_by": "cellseg"}  # Stands in the metadata of every table.


def write(result: Result, path: Path) -> None:
    """Write the table of a result, row group by row group."""
    schema = _schema(result).with_metadata({**MADE_BY, "result": readable(result.path.name)})
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in result.table.batches():
            writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))


def write_together(results: Mapping[str, Result], path: Path) -> None:
    """Write the tables of several results, by their names, into one.

    It has the columns of all of them, empty where a result lacks one, and before them ``result``:
    the result's name. An InputError if one of them cannot be read, or two have different kinds of
    values under one name.
    """
    own = {name: pa.schema([_RESULT, *_schema(result)]) for name, result in results.items()}
    try:
        schema = pa.unify_schemas([pa.schema([_RESULT]), *own.values()],
                                  promote_options="permissive").with_metadata(MADE_BY)  # fmt: skip
    except pa.ArrowTypeError as error:
        raise InputError(f"the results' columns do not fit together: {error}") from error
    empty = schema.empty_table()  # it has the columns that a result lacks
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for name, result in results.items():
            for table in result.table.batches():
                rows = table.assign(result=name)
                mine = pa.Table.from_pandas(rows, schema=own[name], preserve_index=False)
                whole = pa.concat_tables([empty, mine], promote_options="permissive")
                writer.write_table(whole.cast(schema))


def _schema(result: Result) -> pa.Schema:
    return pa.schema(
        pa.field(
            column.name,
            _TEXT if column.dtype == "str" else pa.type_for_alias(column.dtype),
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in described(result)
    )
