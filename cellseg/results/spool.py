"""The spool: final cells on disk, found again by position and by chunk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.instances import Instances
from cellseg.results.files import output_errors

CHUNK_PX = 1024
"""Side of the label image's chunks, lattice pixels."""

BATCH = 2048

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
        The tables that :meth:`Spool.add` was given.
    """

    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    centroids: NDArray[np.float64]
    measured: NDArray[np.float64]


class Spool:
    """Final cells of a run, out of memory.

    A scratch file that nobody resumes from: it is not synced and dies with the run.

    Parameters
    ----------
    path : Path
        Must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: tuple[str, ...] | None = None
        self.count = 0
        with output_errors(path):
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=OFF", "synchronous=OFF"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.execute(
                "CREATE TABLE cells (id INTEGER PRIMARY KEY, cy REAL, cx REAL, y0 INTEGER,"
                " x0 INTEGER, y1 INTEGER, x1 INTEGER, class INTEGER, score REAL, mask BLOB,"
                " measured BLOB)"
            )
            self._database.execute("CREATE INDEX by_position ON cells (cy, cx)")
            self._database.execute(
                "CREATE TABLE chunks (row INTEGER, column INTEGER, id INTEGER,"
                " PRIMARY KEY (row, column, id)) WITHOUT ROWID"
            )
            self._database.execute("CREATE TABLE labels (id INTEGER PRIMARY KEY, label INTEGER)")

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
        names = tuple(str(name) for name in table.columns)
        if self.columns is None:
            self.columns = names
        elif names != self.columns:
            raise ValueError(f"expected columns {self.columns}, got {names}")
        measured = table.to_numpy(np.float64)
        with output_errors(self.path):
            self._database.execute("BEGIN")
            for index, mask in enumerate(instances.masks):
                self._add_one(instances, index, mask, measured[index].tobytes())
            self._database.execute("COMMIT")

    def _add_one(
        self, instances: Instances, index: int, mask: NDArray[np.bool_], measured: bytes
    ) -> None:
        y0, x0, y1, x1 = instances.boxes[index].tolist()
        rows, columns = np.nonzero(mask)
        if len(rows) == 0:
            raise ValueError(f"the mask of box {(y0, x0, y1, x1)} is empty")
        self.count += 1
        self._database.execute(
            "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.count,
                y0 + int(rows.sum()) / len(rows),
                x0 + int(columns.sum()) / len(rows),
                *(y0, x0, y1, x1),
                int(instances.classes[index]),
                float(instances.scores[index]),
                np.packbits(mask).tobytes(),
                measured,
            ),
        )
        self._database.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?)",
            [
                (row, column, self.count)
                for row in range(y0 // CHUNK_PX, (y1 - 1) // CHUNK_PX + 1)
                for column in range(x0 // CHUNK_PX, (x1 - 1) // CHUNK_PX + 1)
            ],
        )

    def batches(self) -> Iterator[Batch]:
        """All cells, labelled 1 … N by centroid (y, then x); call once, before :meth:`paint`."""
        cells = self._database.execute(
            f"SELECT id, class, score, cy, cx, measured FROM cells ORDER BY {_ORDER}"
        )
        first = 1
        while found := cells.fetchmany(BATCH):
            labels = np.arange(first, first + len(found), dtype=np.int64)
            first += len(found)
            ids, classes, scores, cy, cx, measured = zip(*found, strict=True)
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO labels VALUES (?, ?)", zip(ids, labels.tolist(), strict=True)
            )
            self._database.execute("COMMIT")
            yield Batch(
                labels,
                np.array(classes, dtype=np.int64),
                np.array(scores, dtype=np.float64),
                np.stack([cy, cx], axis=1).astype(np.float64),
                np.frombuffer(b"".join(measured), np.float64).reshape(
                    len(found), len(self.columns or ())
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
            "SELECT label, y0, x0, y1, x1, mask FROM chunks"
            " JOIN cells ON cells.id = chunks.id JOIN labels ON labels.id = chunks.id"
            " WHERE chunks.row = ? AND chunks.column = ? ORDER BY label DESC",
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
            "SELECT DISTINCT row, column FROM chunks ORDER BY row, column"
        )

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._database.close()
