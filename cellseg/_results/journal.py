"""The journal: tiles that are done, kept on disk while a run goes on."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellseg._results.files import output_errors, readable, remove
from cellseg.errors import OutputError
from cellseg.instances import Instances
from cellseg.location import Location, is_another

JOURNAL_NAME = "journal.sqlite"
BESIDE = ("-wal", "-shm", "-journal")
"""Endings of what sqlite keeps beside a database."""

TileStatus = Literal["done", "failed"]

_FORMAT = 2
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
        What :meth:`Journal.add` was given.
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
    path : Path
    key : str
        Names everything that determines the tiles; a journal with another key is discarded.
    image : Path or RemotePath, optional
        The slide. The journal of another one is no waste: it is refused, not discarded.

    Raises
    ------
    OutputError

    Attributes
    ----------
    resumed : bool
        Whether there were finished tiles.
    discarded_because : str or None
        Why an older journal was thrown away.
    """

    def __init__(self, path: Path, key: str, image: Location | None = None) -> None:
        self.path, self._image = path, image
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

    def _open(self, key: str) -> sqlite3.Connection:
        try:
            return self._connect(key)
        except (sqlite3.DatabaseError, _OtherJournalError) as error:
            if self._is_new or isinstance(error, sqlite3.OperationalError):
                raise
            self._refuse_other_slide(error)
            self._discard(error)
            return self._connect(key)

    def _refuse_other_slide(self, error: Exception) -> None:
        other = error.image if isinstance(error, _OtherJournalError) else None
        if other and self._image is not None and is_another(other, self._image):
            raise OutputError(
                f"{self.path.parent}: holds an unfinished count of {readable(other)}; "
                "finish that one first, or take another --output"
            ) from error

    def _discard(self, error: Exception) -> None:
        if isinstance(error, _OtherJournalError):
            self.discarded_because = str(error)
        else:
            self.discarded_because = f"its journal was damaged ({error})"
            _logger.warning("%s: damaged (%s), starting afresh", self.path, error)
        self.delete()
        self._is_new = True

    def _connect(self, key: str) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
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
        except BaseException:
            database.close()
            raise
        return database

    def add(
        self,
        row: int,
        column: int,
        instances: Instances,
        *,
        status: TileStatus = "done",
        info: Mapping[str, object] | None = None,
    ) -> None:
        """Keep a finished tile; a second time takes the first's place."""
        data = instances.to_bytes()
        with output_errors(self.path):
            self._database.execute(
                "INSERT OR REPLACE INTO tiles (row, column, status, info, checksum, instances)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (row, column, status, json.dumps(dict(info or {})), zlib.crc32(data), data),
            )

    def tiles(self) -> Iterator[FinishedTile]:
        """Every finished tile in the order of arrival, one in memory at a time.

        A tile whose data is damaged is dropped with a warning: it is computed again.
        """
        last = -1
        while True:
            with output_errors(self.path):
                found = self._database.execute(
                    "SELECT id, row, column, status, info, checksum, instances FROM tiles"
                    " WHERE id > ? ORDER BY id LIMIT 1",
                    (last,),
                ).fetchone()
            if found is None:
                return
            last = found[0]
            try:
                yield _unpack(*found[1:])
            except ValueError as error:
                _logger.warning(
                    "%s: tile (%d, %d) is damaged (%s), done again", self.path, *found[1:3], error
                )
                self._database.execute("DELETE FROM tiles WHERE id = ?", (last,))

    def places(self) -> set[tuple[int, int]]:
        """(row, column) of every kept tile."""
        return set(self._database.execute("SELECT row, column FROM tiles"))

    def count(self) -> int:
        """How many tiles are kept."""
        (count,) = self._database.execute("SELECT count(*) FROM tiles").fetchone()
        return int(count)

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


def _create(database: sqlite3.Connection, key: str, image: Location | None) -> None:
    database.execute("BEGIN")
    database.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={_FORMAT}")
    database.execute("CREATE TABLE run (key TEXT NOT NULL, image BLOB)")
    # As bytes: a name need not be text.
    place = None if image is None else os.fsencode(str(image.absolute()))
    database.execute("INSERT INTO run VALUES (?, ?)", (key, place))
    database.execute(
        "CREATE TABLE tiles (id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL,"
        " column INTEGER NOT NULL, status TEXT NOT NULL, info TEXT NOT NULL,"
        " checksum INTEGER NOT NULL, instances BLOB NOT NULL, UNIQUE (row, column))"
    )
    database.execute("COMMIT")


def _check(database: sqlite3.Connection, key: str) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != _FORMAT:
        raise _OtherJournalError("another version of cellseg wrote its journal")
    found, image = database.execute("SELECT key, image FROM run").fetchone()
    if found != key:
        other = None if image is None else os.fsdecode(image)
        raise _OtherJournalError("the unfinished run had another slide, settings or weights", other)


def _unpack(
    row: int, column: int, status: TileStatus, info: str, checksum: int, data: bytes
) -> FinishedTile:
    if zlib.crc32(data) != checksum:
        raise ValueError("checksum differs")
    return FinishedTile(row, column, status, json.loads(info), Instances.from_bytes(data))
