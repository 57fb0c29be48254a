"""The tables of a study: ``summary.csv`` and ``cells.parquet``, made anew from the results."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cellseg.errors import OutputError, output_errors, writing
from cellseg.export import check_exports
from cellseg.storage import Location
from cellseg.study.folder import CELLS, SUMMARY, Study
from cellseg.study.rows import CHAMBER, CORRECTED, QUALITY, SCORES, SummaryRow, failed_row
from cellseg.table.regions import QUANTILES_PERCENT
from cellseg.text import as_cell, from_cell, visible

_FIRST = ("image", "result", "status", "region", "region_class", "object", "cells")
_LAST = (
    "well", "mpp", "mpp_source", "model", "protocol", "score", "seconds", "counted", "corrected",
    "doubts", "warnings", "path",
)  # fmt: skip


def write_summary(study: Study) -> Location:
    """Write ``summary.csv``, if what it says has changed; returns its place in the folder."""
    columns = list(_columns(study.rows))
    rows = [[_value(row, keys) for _, keys in columns] for row in study.rows]
    return write_table(study, SUMMARY, [title for title, _ in columns], rows)


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
