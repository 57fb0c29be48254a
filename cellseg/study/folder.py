"""The results below a folder, on a disk or behind a URL, and the tables that are made of them."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path, PurePath
from typing import Any

from cellseg.errors import CellsegError, InputError, OutputError, output_errors, writing
from cellseg.export import check_exports
from cellseg.result import Result, load_result
from cellseg.result.publish import DERIVED, HISTOGRAM, MEASURED, OUTLINES, OVERVIEW
from cellseg.result.upload import fetch_record, send
from cellseg.storage import Location, RemotePath
from cellseg.study.images import RESULT
from cellseg.study.rows import CHAMBER, CORRECTED, QUALITY, SCORES, SummaryRow, failed_row, rows_of
from cellseg.table.summary import QUANTILES_PERCENT
from cellseg.text import as_cell, from_cell, visible

SUMMARY, REPORT, CELLS, WELLS = "summary.csv", "report.html", "cells.parquet", "wells.csv"

_FOR_CELLS = (MEASURED, DERIVED)
_FOR_PAGE = (*_FOR_CELLS, OUTLINES, OVERVIEW, HISTOGRAM)

_FIRST = ("image", "result", "status", "region", "region_class", "object", "cells")
_LAST = (
    "well", "mpp", "mpp_source", "model", "protocol", "score", "seconds", "counted", "corrected",
    "doubts", "warnings", "path",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """All results below a folder.

    Results are in the order of their places, each with its rows: the whole slide, then its regions.
    """

    folder: Path
    results: Mapping[Result, list[SummaryRow]]
    unread: tuple[str, ...] = ()  # Why a result folder could not be read, a line each.
    failed: tuple[SummaryRow, ...] = ()  # Images without a result.
    place: RemotePath | None = None  # What the folder is a copy of; what is written goes there.

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

    Of a count and its corrected result the corrected one is taken, unless the slide was counted
    again since; of one count that stands in two folders (an image of the same stem came later) the
    newer. An InputError if there is no such folder, or no result in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    newest: dict[tuple[str, str], tuple[Result, list[SummaryRow]]] = {}
    corrections: dict[Path, tuple[object, Path]] = {}
    unread: list[str] = []
    for names in _result_folders(folder, os.walk(folder)):
        path, inside = folder.joinpath(*names), "/".join(names) or folder.name
        try:
            result = load_result(path)
            rows = rows_of(result, visible(inside))
        except CellsegError as error:
            unread.append(str(error))
            continue
        origin = result.section("corrected_from")
        if isinstance(automatic := origin.get("folder"), str) and automatic:
            corrections[path.with_name(automatic)] = origin.get("result"), path
        key = (rows[0]["path"], str(result.run.get("key")))
        if key not in newest or newest[key][1][0]["counted"] <= rows[0]["counted"]:
            newest[key] = (result, rows)
    tokens, left_out = {one.path: one.token for one, _ in newest.values()}, set()
    for count, (token, path) in corrections.items():
        is_current = tokens.get(count, token) == token
        left_out.add(count if is_current else path)
        said = f"{path}: holds corrections of an earlier count, and is left out"
        unread += [] if is_current else [said]
    found = [(result, rows) for result, rows in newest.values() if result.path not in left_out]
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


def write_summary(study: Study) -> Location:
    """Write ``summary.csv``, if what it says has changed; returns its place in the folder."""
    columns = list(_columns(study.rows))
    rows = [[_value(row, keys) for _, keys in columns] for row in study.rows]
    return write_table(study, SUMMARY, [title for title, _ in columns], rows)


def write_spreadsheet(study: Study, path: Path) -> None:
    """Write what ``summary.csv`` says for Excel, which takes its figures as numbers."""
    import pandas as pd

    table = pd.read_csv(study.folder / SUMMARY, keep_default_na=False, na_values=[""])
    with writing(path) as temporary, temporary.open("wb") as file:
        table.to_excel(file, sheet_name="summary", index=False, engine="xlsxwriter")


def write_table(
    study: Study, name: str, titles: Sequence[str], rows: Sequence[Sequence[object]]
) -> Location:
    """Write a table in the study's folder, if what it says has changed; returns its place.

    An OutputError if it cannot be written, or there is a file of that name that cellseg did not
    make: its first columns are others.
    """
    path = study.folder / name
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(map(_cell, row) for row in rows)
    text = out.getvalue().encode()
    with output_errors(path):
        there = path.read_bytes() if path.exists() else b""
        header = there.partition(b"\n")[0].decode(errors="replace").rstrip("\r").split(",")
        if path.exists() and header[:4] != list(titles[:4]):
            raise OutputError(
                f"{study.shown(path)}: is no summary of cellseg; move it away and run it again"
            )
        if there == text:
            return study.shown(path)
        with writing(path) as temporary:
            temporary.write_bytes(text)
    return study.send(path)


def write_cells(study: Study) -> Location:
    """Write ``cells.parquet``: the tables of all results in one, with result and image of each."""
    check_exports((CELLS,))
    from cellseg.export.cells_parquet import write_together

    path = study.folder / CELLS
    results = {rows[0]["result"]: result for result, rows in study.results.items()}
    with writing(path) as temporary:
        write_together(results, temporary)
    return study.send(path)


def with_failures(
    study: Study, failed: Sequence[SummaryRow] = (), *, attempted: Sequence[str] = ()
) -> Study:
    """A study with the images of which there is no result.

    Those that an earlier table calls failed stay, until they are counted or tried again;
    ``attempted`` are the paths of all images that were tried now.
    """
    known = {*attempted, *(rows[0]["path"] for rows in study.results.values())}
    try:
        with (study.folder / SUMMARY).open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("status") == "failed"]
    except (OSError, UnicodeError, csv.Error):
        rows = []
    earlier = [
        failed_row(*(from_cell(row.get(name) or "") for name in ("image", "path", "warnings")))
        for row in rows
    ]
    left = [row for row in earlier if row["path"] not in known]
    return replace(study, failed=(*failed, *left))


def _columns(rows: Sequence[SummaryRow]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The columns in order: a title, and the keys that lead to its value in a row."""
    classes = dict.fromkeys(name for row in rows for name in row.get("classes", ()))
    markers = dict.fromkeys(name for row in rows for name in row.get("markers", ()))
    yield from ((name, (name,)) for name in _FIRST)
    if any(row.get("t") is not None for row in rows):
        yield "t", ("t",)
    if any(row.get("cells_per_ml") is not None for row in rows):
        yield from ((name, (name,)) for name in CHAMBER)
    yield from ((f"cells_{name}", ("classes", name)) for name in classes)
    for name in dict.fromkeys(name for row in rows for name in row.get("taught", ())):
        yield from ((f"{figure}_{name}", ("taught", name, figure)) for figure in CORRECTED)
    yield from ((name, (name,)) for name in ("interval_low", "interval_high"))
    for name in markers:
        yield from ((f"{score}_{name}", ("markers", name, score)) for score in SCORES)
    yield from ((name, (name,)) for name in ("tissue_mm2", "density_per_mm2", *QUALITY))
    for kind in ("area_um2", "area_px"):
        yield from ((f"{kind}_p{p:02}", (f"{kind}_p{p:02}",)) for p in QUANTILES_PERCENT)
    yield from ((name, (name,)) for name in _LAST)


def _value(row: SummaryRow, keys: Sequence[str]) -> object:
    found: Any = row
    for key in keys:
        found = None if found is None else found.get(key)
    return found


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}" if math.isfinite(value) else ""
        case tuple():
            return as_cell(visible("; ".join(map(str, value))))
        case str():
            return as_cell(visible(value))
    return str(value)
