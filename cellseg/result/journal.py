"""The journal of a run: finished tiles and final cells in one SQLite file, until they are a result.

A run whose journal is damaged, or belongs to other settings, starts afresh.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import OutputError, output_errors
from cellseg.geometry import Box, Frame
from cellseg.instances import Instances
from cellseg.result.files import readable, remove
from cellseg.result.labels import CHUNK_PX
from cellseg.result.table import GROUP_ROWS
from cellseg.storage import Location, is_another

Columns = Mapping[str, NDArray[Any]]
"""Columns of a table by name, (N,) each."""

JOURNAL_NAME = "journal.sqlite"
JOURNAL_FILES = tuple(JOURNAL_NAME + suffix for suffix in ("", "-wal", "-shm", "-journal"))
"""The journal, and what SQLite keeps beside it."""

_TABLES = (
    "CREATE TABLE run (key TEXT NOT NULL, image BLOB)",
    "CREATE TABLE tiles (id INTEGER PRIMARY KEY, row INTEGER, column INTEGER, info TEXT,"
    " instances BLOB, checksum INTEGER, UNIQUE (row, column))",
    "CREATE TABLE cells (id INTEGER PRIMARY KEY, cy REAL, cx REAL, y0 INTEGER, x0 INTEGER,"
    " y1 INTEGER, x1 INTEGER, class INTEGER, score REAL, mask BLOB, measured BLOB,"
    " checksum INTEGER)",
    "CREATE INDEX by_position ON cells (cy, cx)",
)
# Known to this run only: the earlier run's cells that came again, and which cells lie where.
_OF_THIS_RUN = (
    "CREATE TEMP TABLE recalled (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE places (row INTEGER, column INTEGER, label INTEGER, id INTEGER,"
    " PRIMARY KEY (row, column, label)) WITHOUT ROWID",
)
_logger = logging.getLogger(__name__)


class Journal:
    """Tiles and cells on the disk, each whole or absent, whenever the process or machine stops.

    A killed process loses nothing that was committed; a power cut may lose the last moments (WAL,
    ``synchronous=NORMAL``), never the rest. The key names everything that determines the tiles: a
    journal with another key is discarded, but that of another slide is refused. ``guard`` gives a
    context in which each write happens; it words what the disk says.

    ``resumed``: there were finished tiles; ``is_written``: this run added some;
    ``discarded_because`` says why an older journal was thrown away, None where none was.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        image: Location | None,
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.path, self._image, self._guard = path, image, guard
        self.discarded_because: str | None = None
        self.is_written = False
        self.columns: tuple[str, ...] = ()
        self._closed = False
        if path.is_symlink() or not path.is_file():
            self.delete()
        is_new = not path.exists()
        try:
            self._database = (None if is_new else self._earlier_run(key)) or self._begun(key)
        except BaseException:
            if is_new:
                self.delete()  # it holds nothing, and nobody would know whose it is
            raise
        for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", *_OF_THIS_RUN):
            self._database.execute(line)
        self.resumed = self._has_tiles()
        (self._earlier,) = self._database.execute(
            "SELECT coalesce(max(id), 0) FROM cells"
        ).fetchone()

    def _earlier_run(self, key: str) -> sqlite3.Connection | None:
        """The journal that is there; one of another run, or a damaged one, is deleted."""
        try:
            with closing(_connected(self.path)) as database:
                self.discarded_because = self._refusal(database, key)
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            # Python itself raises the error about text that is no UTF-8, without a code.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                raise  # the disk, or another process, is to blame, and not what stands in the file
            self.discarded_because = "the journal is damaged"
            _logger.warning("%s: damaged (%s), starting afresh", self.path, error)
        if self.discarded_because is None:
            return _connected(self.path)
        self.delete()
        return None

    def _refusal(self, database: sqlite3.Connection, key: str) -> str | None:
        """Why a journal is not this run's; None where it is, and is as it was written.

        An OutputError if it is of another slide; any other error means that it is damaged.
        """
        (health,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if health != "ok":
            raise sqlite3.DatabaseError(health.splitlines()[-1])
        ((found, image),) = database.execute("SELECT key, image FROM run").fetchall()
        other = None if image is None else os.fsdecode(image)
        if found != key:
            if other and self._image is not None and is_another(other, self._image):
                raise OutputError(
                    f"{self.path.parent}: holds an unfinished count of {readable(other)}; "
                    "finish that one first, or take another folder",
                    hint="output",
                )
            return "the unfinished run had another slide, settings or weights"
        tiles = database.execute("SELECT row, column, info, instances, checksum FROM tiles")
        cells = database.execute("SELECT measured, checksum FROM cells")
        if any(_checksum(*row) != checksum for *row, checksum in tiles) or any(
            zlib.crc32(row) != checksum for row, checksum in cells
        ):
            raise ValueError("a checksum is wrong")
        return None

    def _begun(self, key: str) -> sqlite3.Connection:
        database = _connected(self.path)
        try:
            # Nothing is in it yet that a power cut could take.
            database.execute("PRAGMA synchronous=OFF")
            database.execute("BEGIN")
            for table in _TABLES:
                database.execute(table)
            # As bytes: a name need not be text.
            image = None if self._image is None else os.fsencode(str(self._image.absolute()))
            database.execute("INSERT INTO run VALUES (?, ?)", (key, image))
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is added meanwhile is kept as one, or not at all."""
        with self._guard(), output_errors(self.path, sqlite3.Error), self._database:
            self._database.execute("BEGIN")
            yield

    def tile_done(
        self,
        row: int,
        column: int,
        instances: Instances,
        *,
        info: Mapping[str, object] | None = None,
        cells: Iterable[tuple[Columns, Instances]] = (),
    ) -> None:
        """Keep a finished tile, so that a later run need not compute it.

        Its instances lie on the slide's lattice; a second tile of a row and column takes the
        first's place. ``info`` is whatever the caller wants back, JSON-ready. ``cells`` are those
        that became final with it, as :meth:`add_cells` takes them: all of it is kept, or nothing.
        """
        self.is_written = True
        tile = (row, column, json.dumps(dict(info or {})), instances.to_bytes())
        with self._together():
            self._database.execute(
                "INSERT OR REPLACE INTO tiles VALUES (NULL, ?, ?, ?, ?, ?)",
                (*tile, _checksum(*tile)),
            )
            for table, final in cells:
                self._insert(table, final)

    def tiles(self) -> Iterator[tuple[int, int, dict[str, Any], Instances]]:
        """Every finished tile in the order of arrival, one in memory at a time.

        Row, column, info and instances, as :meth:`tile_done` kept them.
        """
        last = 0
        with output_errors(self.path, sqlite3.Error):
            # Not one long query: tiles are added meanwhile.
            while found := self._database.execute(
                "SELECT id, row, column, info, instances FROM tiles"
                " WHERE id > ? ORDER BY id LIMIT 1",
                (last,),
            ).fetchone():
                last, row, column, info, data = found
                yield row, column, json.loads(info), Instances.from_bytes(data)

    def add_cells(self, table: Columns, instances: Instances) -> None:
        """Keep cells that are final, in any order; instances lie on the slide's lattice.

        The table has the same columns, (N,) each, every time. Numbers and booleans are kept, as
        float64; ``label`` and text are not taken from here.
        """
        with self._together():
            self._insert(table, instances)

    def _insert(self, table: Columns, instances: Instances) -> None:
        self.columns = tuple(n for n in table if table[n].dtype.kind in "iufb" and n != "label")
        numbers = np.stack([table[name].astype(np.float64) for name in self.columns], axis=1)
        rows = [row.tobytes() for row in numbers]
        self._database.executemany(
            "INSERT INTO cells VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((*_identity(instances, i), row, zlib.crc32(row)) for i, row in enumerate(rows)),
        )

    def recall(
        self, instances: Instances, columns: Sequence[str]
    ) -> dict[int, NDArray[np.float64]]:
        """What was measured of cells that an earlier run kept; others of it are not in the result.

        The row, float64, (columns,), of each instance that is known, pixel by pixel, by its index.
        """
        self.columns = tuple(columns)
        found = {}
        with self._together():
            for index in range(len(instances)):
                kept = self._database.execute(
                    "SELECT id, measured FROM cells WHERE cy = ? AND cx = ? AND y0 = ? AND x0 = ?"
                    " AND y1 = ? AND x1 = ? AND class = ? AND score = ? AND mask = ?",
                    _identity(instances, index),
                ).fetchone()
                if kept is not None:
                    self._database.execute("INSERT OR IGNORE INTO recalled VALUES (?)", kept[:1])
                    found[index] = np.frombuffer(kept[1], np.float64, len(columns))
        return found

    def leave_out(self, places: NDArray[np.bool_], side_px: int) -> int:
        """Drop final cells whose centroid lies in a place to be left out; how many.

        ``places``, bool, (R, C), are squares of ``side_px`` lattice pixels all over the slide.
        """

        def is_out(y: float, x: float) -> bool:
            return bool(places[int(y) // side_px, int(x) // side_px])

        self._database.create_function("is_out", 2, is_out)
        with self._together():
            return self._database.execute("DELETE FROM cells WHERE is_out(cy, cx)").rowcount

    def batches(self) -> Iterator[tuple[list[int], dict[str, NDArray[np.generic]]]]:
        """All cells, labelled 1 … N by centroid (y, then x); call once, before :meth:`blocks`.

        Indices of their classes, and ``label``, ``score`` and what was measured, (N,) each: as many
        cells at once as a row group holds. What an earlier run kept and nobody recalled is dropped:
        a tile that was tried again settled it otherwise.
        """
        self._database.execute(
            "DELETE FROM cells WHERE id <= ? AND id NOT IN (SELECT id FROM recalled)",
            (self._earlier,),
        )
        cells = self._database.execute(
            # By all that tells two cells apart: labels never depend on who came first.
            "SELECT id, class, score, measured, y0, x0, y1, x1 FROM cells ORDER BY"
            " cy, cx, y0, x0, y1, x1, class, score, mask, measured"
        )
        first = 1
        while found := cells.fetchmany(GROUP_ROWS):
            labels = range(first, first := first + len(found))
            ids, classes, scores, measured, *corners = zip(*found, strict=True)
            places = (
                (*chunk, label, number)
                for label, number, *box in zip(labels, ids, *corners, strict=True)
                for chunk in Box(*box).chunks(CHUNK_PX, CHUNK_PX)
            )
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany("INSERT INTO places VALUES (?, ?, ?, ?)", places)
            rows = np.frombuffer(b"".join(measured), np.float64).reshape(len(found), -1)
            values = dict(zip(self.columns, rows.T, strict=True))
            yield [*classes], {**values, "label": np.array(labels), "score": np.array(scores)}

    def blocks(self, frame: Frame) -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        """The label image, one chunk that holds cells after the other, row by row.

        Where masks overlap the smaller label stays.
        """
        extent = Box(0, 0, frame.lattice_height, frame.lattice_width)
        chunks = self._database.execute(
            "SELECT DISTINCT row, column FROM places ORDER BY row, column"
        )
        for row, column in chunks:
            whole = Box(0, 0, CHUNK_PX, CHUNK_PX).shifted(row * CHUNK_PX, column * CHUNK_PX)
            if not whole.intersects(extent):
                at = whole.y0, whole.x0
                raise ValueError(f"a cell at {at} lies outside the lattice of {extent.shape}")
            box = whole.intersection(extent)
            yield box, self._painted(row, column, box)

    def _painted(self, row: int, column: int, box: Box) -> NDArray[np.uint32]:
        """The cells of a chunk, as far as they lie in its ``box`` on the slide."""
        chunk = np.zeros(box.shape, np.uint32)
        cells = self._database.execute(
            "SELECT label, y0, x0, y1, x1, mask FROM places JOIN cells USING (id)"
            " WHERE row = ? AND column = ? ORDER BY label DESC",
            (row, column),
        )
        for label, *corners, packed in cells:
            cell = Box(*corners)
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=cell.area)
            mask, part = bits.astype(bool).reshape(cell.shape), cell.intersection(box)
            chunk[part.inside(box)][mask[part.inside(cell)]] = label
        return chunk

    def _has_tiles(self) -> bool:
        return bool(self._database.execute("SELECT count(*) FROM tiles").fetchone()[0])

    def close(self, *, keep: bool = True) -> None:
        """Close the file, and delete it if it holds no tile or is not kept; once is enough."""
        if self._closed:
            return
        try:
            keep = keep and self._has_tiles()
            if not keep:
                self._database.execute("PRAGMA synchronous=OFF")
        finally:
            self.abandon()
        if not keep:
            self.delete()

    def abandon(self) -> None:
        """Close the file and touch nothing that now stands under its name."""
        self._closed = True
        self._database.close()

    def delete(self) -> None:
        """Remove the file and what SQLite keeps beside it."""
        for name in JOURNAL_FILES:
            remove(self.path.with_name(name))


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Exclusive first: WAL then needs no shared memory and works on network drives.
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    return database


def _checksum(row: int, column: int, info: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(f"{row} {column} {info}".encode()))


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
