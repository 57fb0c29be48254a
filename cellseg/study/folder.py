"""The results below a folder, on a disk or behind a URL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path, PurePath

from cellseg.errors import CellsegError, InputError
from cellseg.result import Result, load_result
from cellseg.result.publish import DERIVED, HISTOGRAM, MEASURED, OUTLINES, OVERVIEW
from cellseg.result.upload import fetch_record, send
from cellseg.storage import Location, RemotePath
from cellseg.study.images import RESULT
from cellseg.study.rows import SummaryRow, rows_of
from cellseg.text import visible

SUMMARY, REPORT, CELLS, WELLS = "summary.csv", "report.html", "cells.parquet", "wells.csv"

_FOR_CELLS = (MEASURED, DERIVED)
_FOR_PAGE = (*_FOR_CELLS, OUTLINES, OVERVIEW, HISTOGRAM)


@dataclass(frozen=True)
class Study:
    """All results below a folder.

    Attributes
    ----------
    results : mapping of Result to list of SummaryRow
        In the order of their places, each with its rows: the whole slide, then its regions.
    unread : tuple of str
        Why a result folder could not be read, a line each.
    failed : tuple of SummaryRow
        Images without a result.
    place : RemotePath or None
        The folder that ``folder`` is a copy of; what is written goes there.
    """

    folder: Path
    results: Mapping[Result, list[SummaryRow]]
    unread: tuple[str, ...] = ()
    failed: tuple[SummaryRow, ...] = ()
    place: RemotePath | None = None

    @property
    def rows(self) -> list[SummaryRow]:
        """Each slide and its regions, then the images without a result."""
        return [*(row for rows in self.results.values() for row in rows), *self.failed]

    def shown(self, path: Path) -> Location:
        """Where a file is for a person."""
        is_copy = self.place is not None and path.parent == self.folder
        return self.place.child(path.name) if self.place is not None and is_copy else path

    def send(self, path: Path) -> Location:
        """Put a file that was written where it belongs; the place as a person knows it."""
        shown = self.shown(path)
        if isinstance(shown, RemotePath):
            send(path, shown)
        return shown


def load_study(folder: Path, *, place: RemotePath | None = None) -> Study:
    """Read the records of all results below a folder.

    Of a count and its corrected result the corrected one is taken; of one count that stands in
    two folders (an image of the same stem came later) the newer. An InputError if there is no such
    folder, or no result in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    newest: dict[tuple[str, str], tuple[Result, list[SummaryRow]]] = {}
    replaced: set[Path] = set()
    unread: list[str] = []
    for names in _result_folders(folder, os.walk(folder)):
        path, inside = folder.joinpath(*names), "/".join(names) or folder.name
        try:
            result = load_result(path)
            rows = rows_of(result, visible(inside))
        except CellsegError as error:
            unread.append(str(error))
            continue
        automatic = result.section("corrected_from").get("folder")
        if isinstance(automatic, str) and automatic:
            replaced.add(path.with_name(automatic))
        key = (rows[0]["path"], str(result.run.get("key")))
        if key not in newest or newest[key][1][0]["counted"] <= rows[0]["counted"]:
            newest[key] = (result, rows)
    found = [(result, rows) for result, rows in newest.values() if result.path not in replaced]
    if not found and not unread:
        raise InputError(f"{place or folder}: holds no results of cellseg")
    found.sort(key=lambda one: str(one[1][0]["result"]))
    if place is not None:
        unread = [line.replace(str(folder), str(place).rstrip("/")) for line in unread]
    return Study(folder, dict(found), tuple(unread), place=place)


def _result_folders(
    folder: Location, walk: Iterable[tuple[str, list[str], object]]
) -> Iterator[tuple[str, ...]]:
    """Names that lead to the results below a folder; none leads to the folder itself.

    ``walk`` is over the folder, as :func:`os.walk` is. Hidden folders are left out.
    """
    if folder.suffix.lower() == RESULT:
        yield ()
        return
    top: PurePath | None = None
    for home, names, _ in walk:
        here = PurePath(home)
        top = top or here
        below = here.relative_to(top).parts
        yield from ((*below, name) for name in names if name.lower().endswith(RESULT))
        names[:] = [
            name
            for name in names
            if not name.startswith(".") and not name.lower().endswith((RESULT, ".zarr"))
        ]


@contextmanager
def study_at(place: Location, *, report: bool = False, parquet: bool = False) -> Iterator[Study]:
    """The study of a folder.

    Of results behind a URL the records are fetched, and what the page or the table of all cells
    is made of, if these will be; the copies are gone after the block.
    """
    if isinstance(place, Path):
        yield load_study(place)
        return
    more = _FOR_PAGE if report else _FOR_CELLS if parquet else ()
    with tempfile.TemporaryDirectory(prefix="cellseg-study-") as scratch:
        copy = Path(scratch, place.name or "study")
        copy.mkdir()
        for file in map(place.child, (SUMMARY, REPORT, WELLS)):
            if file.exists():
                (copy / file.name).write_bytes(file.read_bytes())
        with place.reached("cannot be listed") as (fs, path):
            fs.invalidate_cache()
            results = [*_result_folders(place, fs.walk(path, on_error="raise"))]
        for names in results:
            url = reduce(RemotePath.child, names, place)
            fetch_record(url, copy.joinpath(*names), more)
        yield load_study(copy, place=place)
