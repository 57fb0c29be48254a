"""``cells.parquet``: ``cells.csv`` for pandas, polars, R and databases.

Unit and meaning of a column stand in its metadata; texts are dictionary-encoded.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellseg.export._cells import tables
from cellseg.export._columns import described
from cellseg.results import Result

_TYPES = {"str": pa.dictionary(pa.int32(), pa.string()), "bool": pa.bool_()}


def write(result: Result, path: Path) -> None:
    """Write the table of a result, a row group for each :data:`cellseg.export._cells.ROWS`.

    Parameters
    ----------
    result : Result
        Finished.
    path : Path
        Overwritten.
    """
    schema = pa.schema(
        [
            pa.field(
                column.name,
                _TYPES[column.dtype] if column.dtype in _TYPES else pa.type_for_alias(column.dtype),
                metadata={"unit": column.unit, "meaning": column.meaning},
            )
            for column in described(result)
        ],
        metadata={"made_by": "cellseg", "result": result.path.name},
    )
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables(result):
            writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))
