"""Final cells on disk, found again by position, by chunk, and by all that they are."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.instances import Instances

CHUNK_PX = 1024
"""Side of the label image's chunks, lattice pixels."""

BATCH = 2048

TABLES = (
    "CREATE TABLE cells (id INTEGER PRIMARY KEY, cy REAL, cx REAL, y0 INTEGER, x0 INTEGER,"
    " y1 INTEGER, x1 INTEGER, class INTEGER, score REAL, mask BLOB, measured BLOB,"
    " checksum INTEGER)",
    "CREATE INDEX by_position ON cells (cy, cx)",
)

# Everything that can tell two cells apart, so that labels never depend on who came first.
_ORDER = "cy, cx, y0, x0, y1, x1, class, score, mask, measured"


@dataclass(frozen=True, eq=False)
class Batch:
    """Cells in the order of their labels.

    Attributes
    ----------
    labels, classes : ndarray, int64, (N,)
    scores : ndarray, float64, (N,)
    centroids : ndarray, float64, (N, 2)
        (y, x) on the lattice, pixel centres at integers.
    measured : ndarray, float64, (N, columns)
        The tables that :meth:`CellStore.add` was given.
    """

    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    centroids: NDArray[np.float64]
    measured: NDArray[np.float64]


class CellStore:
    """Final cells of a run, out of memory, in the journal's file.

    Whoever calls :meth:`add` holds a transaction; an interrupted run that goes on asks for what
    was added with :meth:`recall`.

    Parameters
    ----------
    database : sqlite3.Connection
        With :data:`TABLES`.

    Attributes
    ----------
    columns : tuple of str or None
        Of the tables that were added or recalled; None while there were none.
    count : int
        Cells of the run, once :meth:`batches` has begun.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.columns: tuple[str, ...] | None = None
        self.count = 0
        (self._earlier,) = database.execute("SELECT coalesce(max(id), 0) FROM cells").fetchone()
        # What only this run knows: which of an earlier run's cells came again, what lies where.
        database.execute("CREATE TEMP TABLE recalled (id INTEGER PRIMARY KEY)")
        database.execute(
            "CREATE TEMP TABLE places (row INTEGER, column INTEGER, label INTEGER, id INTEGER,"
            " PRIMARY KEY (row, column, label)) WITHOUT ROWID"
        )

    def add(self, table: pd.DataFrame, instances: Instances) -> None:
        """Keep some cells.

        Parameters
        ----------
        table : DataFrame, (N, columns)
            Numbers and booleans only, kept as float64; the same columns every time.
        instances : Instances, N
            On the slide's lattice.
        """
        if len(table) != len(instances):
            raise ValueError(f"{len(table)} rows for {len(instances)} instances")
        self._expect(tuple(str(name) for name in table.columns))
        rows = [row.tobytes() for row in table.to_numpy(np.float64)]
        self._database.executemany(
            "INSERT INTO cells VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (*_identity(instances, index), row, zlib.crc32(row))
                for index, row in enumerate(rows)
            ),
        )

    def _expect(self, columns: tuple[str, ...]) -> None:
        self.columns = self.columns or columns
        if columns != self.columns:
            raise ValueError(f"expected columns {self.columns}, got {columns}")

    def recall(
        self, instances: Instances, columns: tuple[str, ...]
    ) -> dict[int, NDArray[np.float64]]:
        """What was measured of cells that an earlier run kept.

        Parameters
        ----------
        columns : tuple of str
            Of :meth:`add`.

        Returns
        -------
        dict of int to ndarray, float64, (columns,)
            The row of each instance that is known, pixel by pixel, by its index.
        """
        self._expect(columns)
        found = {}
        for index in range(len(instances)):
            kept = self._database.execute(
                "SELECT id, measured, checksum FROM cells WHERE cy = ? AND cx = ? AND y0 = ? AND"
                " x0 = ? AND y1 = ? AND x1 = ? AND class = ? AND score = ? AND mask = ?",
                _identity(instances, index),
            ).fetchone()
            match kept:
                # A row that rotted on the disk is measured again.
                case (number, bytes(row), checksum) if zlib.crc32(row) == checksum:
                    self._database.execute("INSERT OR IGNORE INTO recalled VALUES (?)", (number,))
                    found[index] = np.frombuffer(row, np.float64, len(columns))
        return found

    def batches(self) -> Iterator[Batch]:
        """All cells, labelled 1 … N by centroid (y, then x); call once, before :meth:`paint`.

        What an earlier run kept and nobody recalled is dropped: a tile that was tried again
        settled it otherwise.
        """
        self._database.execute(
            "DELETE FROM cells WHERE id <= ? AND id NOT IN (SELECT id FROM recalled)",
            (self._earlier,),
        )
        (self.count,) = self._database.execute("SELECT count(*) FROM cells").fetchone()
        cells = self._database.execute(
            "SELECT id, class, score, cy, cx, measured, y0, x0, y1, x1 FROM cells"
            f" ORDER BY {_ORDER}"
        )
        first = 1
        while found := cells.fetchmany(BATCH):
            labels = np.arange(first, first + len(found), dtype=np.int64)
            first += len(found)
            ids, classes, scores, cy, cx, measured, *corners = zip(*found, strict=True)
            self._place(labels.tolist(), ids, corners)
            yield Batch(
                labels,
                np.array(classes, dtype=np.int64),
                np.array(scores, dtype=np.float64),
                np.stack([cy, cx], axis=1).astype(np.float64),
                np.frombuffer(b"".join(measured), np.float64).reshape(
                    len(found), len(self.columns or ())
                ),
            )

    def _place(
        self, labels: list[int], ids: Sequence[int], corners: Sequence[Sequence[int]]
    ) -> None:
        """Note the chunks that cells lie in; ``corners`` are all y0, all x0, all y1, all x1."""
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO places VALUES (?, ?, ?, ?)",
                (
                    (row, column, label, number)
                    for label, number, y0, x0, y1, x1 in zip(labels, ids, *corners, strict=True)
                    for row in range(y0 // CHUNK_PX, (y1 - 1) // CHUNK_PX + 1)
                    for column in range(x0 // CHUNK_PX, (x1 - 1) // CHUNK_PX + 1)
                ),
            )

    def paint(self, row: int, column: int) -> NDArray[np.uint32]:
        """One chunk of the label image.

        Returns
        -------
        ndarray, uint32, (1024, 1024)
            0 is background. Where masks overlap the smaller label stays.
        """
        chunk = np.zeros((CHUNK_PX, CHUNK_PX), dtype=np.uint32)
        top, left = row * CHUNK_PX, column * CHUNK_PX
        cells = self._database.execute(
            "SELECT label, y0, x0, y1, x1, mask FROM places JOIN cells USING (id)"
            " WHERE row = ? AND column = ? ORDER BY label DESC",
            (row, column),
        )
        for label, y0, x0, y1, x1, packed in cells:
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=(y1 - y0) * (x1 - x0))
            mask = bits.astype(bool).reshape(y1 - y0, x1 - x0)
            a, b = max(y0, top), min(y1, top + CHUNK_PX)
            c, d = max(x0, left), min(x1, left + CHUNK_PX)
            chunk[a - top : b - top, c - left : d - left][
                mask[a - y0 : b - y0, c - x0 : d - x0]
            ] = label
        return chunk

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(row, column) of every chunk with cells, row by row."""
        yield from self._database.execute(
            "SELECT DISTINCT row, column FROM places ORDER BY row, column"
        )


def _identity(instances: Instances, index: int) -> tuple[object, ...]:
    """What tells a cell from every other one: centre, box, class, score, mask."""
    y0, x0, y1, x1 = instances.boxes[index].tolist()
    mask = instances.masks[index]
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        raise ValueError(f"the mask of box {(y0, x0, y1, x1)} is empty")
    return (
        y0 + int(rows.sum()) / len(rows),
        x0 + int(columns.sum()) / len(rows),
        *(y0, x0, y1, x1),
        int(instances.classes[index]),
        float(instances.scores[index]),
        np.packbits(mask).tobytes(),
    )
