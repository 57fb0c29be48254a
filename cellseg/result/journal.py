"""The journal: tiles that are done and cells that are final, on disk while a run goes on."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Json, NonNegativeInt

from cellseg.errors import OutputError
from cellseg.instances import Instances
from cellseg.result.cellstore import TABLES, CellStore
from cellseg.result.files import output_errors, readable, remove
from cellseg.storage import Location, is_another

JOURNAL_NAME = "journal.sqlite"
BESIDE = ("-wal", "-shm", "-journal")
"""Endings of what sqlite keeps beside a database."""

TileStatus = Literal["done", "failed"]

_FORMAT = 3
_APPLICATION_ID = 0x43454C4C
_HEADER_BYTES = 72
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FinishedTile:
    """A tile as the journal knows it.

    Attributes
    ----------
    row, column : int
        Place in the grid.
    status : {'done', 'failed'}
    info : dict
        Whatever the run wants back, ready for JSON.
    instances : Instances
        On the slide's lattice.
    """

    row: int
    column: int
    status: TileStatus
    info: dict[str, Any]
    instances: Instances


class Journal:
    """Tiles on disk, each whole or absent, whenever the process or the machine stops.

    Each tile is committed as it comes. A killed process loses nothing that was committed;
    a power cut may lose the last moments (WAL, ``synchronous=NORMAL``), never the rest.

    Parameters
    ----------
    key : str
        Names everything that determines the tiles; a journal with another key is discarded.
    image : Path or RemotePath, optional
        The slide. The journal of another one is no waste: it is refused, not discarded.
    sound : callable, optional
        Raises ValueError for a tile that cannot be this run's: the journal was tampered with.

    Raises
    ------
    OutputError

    Attributes
    ----------
    resumed : bool
        Whether there were finished tiles.
    discarded_because : str or None
        Why an older journal was thrown away.
    cells : CellStore
        Cells that became final, with what was measured of them.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        image: Location | None = None,
        sound: Callable[[FinishedTile], None] | None = None,
    ) -> None:
        self.path, self._image, self._sound = path, image, sound
        self.discarded_because: str | None = None
        self._closed = False
        if path.is_symlink() or (path.exists() and not path.is_file()):
            remove(path)
        self._is_new = not path.exists()
        if self._is_new:
            self.delete()  # whatever lies beside it belonged to another
        try:
            self._database = self._open(key)
        except BaseException:
            if self._is_new:
                self.delete()  # it holds nothing, and nobody would know whose it is
            raise
        self.resumed = self.count() > 0
        self.cells = CellStore(self._database)

    def _open(self, key: str) -> sqlite3.Connection:
        try:
            return self._connect(key)
        except (sqlite3.DatabaseError, ValueError, RecursionError, _OtherJournalError) as error:
            if self._is_new or _is_outage(error):
                raise
            self._refuse_other_slide(error)
            self._discard(error)
            return self._connect(key)

    def _refuse_other_slide(self, error: Exception) -> None:
        other = error.image if isinstance(error, _OtherJournalError) else None
        if other and self._image is not None and is_another(other, self._image):
            raise OutputError(
                f"{self.path.parent}: holds an unfinished count of {readable(other)}; "
                "finish that one first, or take another folder",
                hint="output",
            ) from error

    def _discard(self, error: Exception) -> None:
        if isinstance(error, _OtherJournalError):
            self.discarded_because = str(error)
        else:
            self.discarded_because = "the journal is damaged"
            _logger.warning("%s: damaged (%s), starting afresh", self.path, error)
        self.delete()
        self._is_new = True

    def _connect(self, key: str) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema=OFF")
            # Exclusive first: WAL then needs no shared memory and works on network drives.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            (health,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if health != "ok":
                raise sqlite3.DatabaseError(health.splitlines()[-1])
            if database.execute("PRAGMA user_version").fetchone() == (0,):
                _create(database, key, self._image)
            # Not before it is made: the file's own header then says from the start whose it is.
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            _check(database, key)
            self._look_through(database)
        except BaseException:
            database.close()
            raise
        return database

    def _look_through(self, database: sqlite3.Connection) -> None:
        """Every tile before any is believed; those that rotted on the disk are done again.

        Raises
        ------
        ValueError, sqlite3.DatabaseError
            If somebody else wrote in the file.
        """
        for number, tile in _rows(database):
            if isinstance(tile, FinishedTile):
                if self._sound is not None:
                    self._sound(tile)
                continue
            _logger.warning("%s: tile %s is damaged, done again", self.path, tile)
            database.execute("DELETE FROM tiles WHERE id = ?", (number,))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added meanwhile is kept as one, or not at all."""
        with output_errors(self.path), self._database:
            self._database.execute("BEGIN")
            yield

    def add(self, tile: FinishedTile) -> None:
        """Keep a finished tile, in :meth:`together`; a second time takes the first's place."""
        data = tile.instances.to_bytes()
        self._database.execute(
            "INSERT OR REPLACE INTO tiles (row, column, status, info, checksum, instances)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (tile.row, tile.column, tile.status, json.dumps(tile.info), zlib.crc32(data), data),
        )

    def tiles(self) -> Iterator[FinishedTile]:
        """Every finished tile in the order of arrival, one in memory at a time."""
        with output_errors(self.path):
            yield from (tile for _, tile in _rows(self._database) if isinstance(tile, FinishedTile))

    def count(self) -> int:
        """How many tiles are kept."""
        (count,) = self._database.execute("SELECT count(*) FROM tiles").fetchone()
        return int(count)

    def forget(self) -> None:
        """Keep no tile and no cell."""
        with self.together():
            self._database.execute("DELETE FROM tiles")
            self._database.execute("DELETE FROM cells")

    def close(self, *, keep: bool = True) -> None:
        """Close the file, and delete it if nothing in it is worth keeping.

        A second time does nothing.
        """
        if self._closed:
            return
        try:
            keep = keep and self.count() > 0
        finally:
            self.abandon()
        if not keep:
            self.delete()

    def abandon(self) -> None:
        """Close the file and touch nothing that now stands under its name."""
        self._closed = True
        self._database.close()

    def delete(self) -> None:
        """Remove the file and what sqlite keeps beside it."""
        for suffix in ("", *BESIDE):
            remove(self.path.with_name(self.path.name + suffix))


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of this library, going by its header."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return False
    return header[68:] == _APPLICATION_ID.to_bytes(4, "big")


class _OtherJournalError(Exception):
    """A good journal, but of another run. Never leaves this module."""

    def __init__(self, text: str, image: str | None = None) -> None:
        super().__init__(text)
        self.image = image


_TABLES = (
    "CREATE TABLE run (key TEXT NOT NULL, image BLOB)",
    "CREATE TABLE tiles (id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL,"
    " column INTEGER NOT NULL, status TEXT NOT NULL, info TEXT NOT NULL,"
    " checksum INTEGER NOT NULL, instances BLOB NOT NULL, UNIQUE (row, column))",
    *TABLES,
)


def _create(database: sqlite3.Connection, key: str, image: Location | None) -> None:
    database.execute("BEGIN")
    database.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={_FORMAT}")
    for table in _TABLES:
        database.execute(table)
    # As bytes: a name need not be text.
    place = None if image is None else os.fsencode(str(image.absolute()))
    database.execute("INSERT INTO run VALUES (?, ?)", (key, place))
    database.execute("COMMIT")


def _check(database: sqlite3.Connection, key: str) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != _FORMAT:
        raise _OtherJournalError("another version of cellseg wrote its journal")
    tables = database.execute(
        "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    if sorted(sql or "" for (sql,) in tables) != sorted(_TABLES):
        raise ValueError("its tables are not those of a journal")
    rows = database.execute("SELECT key, image FROM run").fetchall()
    if len(rows) != 1:
        raise ValueError("it does not say whose it is")
    run = _Run(key=rows[0][0], image=rows[0][1])
    if run.key != key:
        other = None if run.image is None else os.fsdecode(run.image)
        raise _OtherJournalError("the unfinished run had another slide, settings or weights", other)


def _is_outage(error: Exception) -> bool:
    """Whether the disk, or another process, is to blame, and not what stands in the file."""
    if not isinstance(error, sqlite3.OperationalError):
        return False
    # Python itself raises the error about text that is no UTF-8, without a code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF != sqlite3.SQLITE_ERROR


def _rows(database: sqlite3.Connection) -> Iterator[tuple[int, FinishedTile | _RottenError]]:
    """Each tile and its number; where the bytes are not those that were written, the error.

    Raises
    ------
    ValueError
        If a row is none that this module wrote.
    """
    last = 0
    while found := database.execute(
        "SELECT id, row, column, status, info, checksum, instances FROM tiles"
        " WHERE id > ? ORDER BY id LIMIT 1",
        (last,),
    ).fetchone():
        last = found[0]
        tile = _Tile.model_validate(dict(zip(_Tile.model_fields, found, strict=True)))
        if zlib.crc32(tile.instances) != tile.checksum:
            yield last, _RottenError(f"({tile.row}, {tile.column})")
        else:
            instances = Instances.from_bytes(tile.instances)
            yield last, FinishedTile(tile.row, tile.column, tile.status, tile.info, instances)


class _Row(BaseModel):
    """What stands in the database, whoever wrote it. pydantic's errors are ValueErrors."""

    model_config = ConfigDict(strict=True)


class _Run(_Row):
    key: str
    image: bytes | None


class _Tile(_Row):
    id: int
    row: NonNegativeInt
    column: NonNegativeInt
    status: TileStatus
    info: Json[dict[str, Any]]
    checksum: int
    instances: bytes


class _RottenError(Exception):
    """A tile whose bytes are not those that were written. Never leaves this module."""
