"""``summary.csv``: a row a slide and region, made anew from the result folders."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cellseg.errors import OutputError
from cellseg.result.files import output_errors, replacing
from cellseg.storage import Location
from cellseg.study.folder import Study
from cellseg.study.rows import PERCENT, Row
from cellseg.text import as_cell, from_cell, visible

SUMMARY = "summary.csv"

_FIRST = ("image", "result", "status", "region", "region_class", "object", "cells")
_LAST = (
    "well", "mpp", "mpp_source", "model", "protocol", "score", "seconds", "counted", "corrected",
    "doubts", "warnings", "path",
)  # fmt: skip

_LABELLED = (
    "positive_percent",
    "positive_percent_low",
    "positive_percent_high",
    "h_score",
    "allred",
)


def write_summary(study: Study) -> Location:
    """Write the table, if what it says has changed.

    Parameters
    ----------
    study : Study

    Returns
    -------
    Path or RemotePath
        Of the table, in the study's folder.

    Raises
    ------
    OutputError
        If it cannot be written, or there is a file of that name that cellseg did not make.
    """
    path = study.folder / SUMMARY
    text = _text(study.rows)
    with output_errors(path):
        if path.exists() and _header(path)[: len(_FIRST)] != list(_FIRST):
            raise OutputError(
                f"{study.shown(path)}: is no summary of cellseg; move it away and run it again"
            )
        if not path.exists() or path.read_bytes() != text.encode():
            with replacing(path) as temporary:
                temporary.write_bytes(text.encode())
            return study.left(path)
    return study.shown(path)


def with_failures(
    study: Study, failed: Sequence[Row] = (), *, attempted: Sequence[str] = ()
) -> Study:
    """A study with the images of which there is no result.

    Those that an earlier table calls failed stay, until they are counted or tried again.

    Parameters
    ----------
    study : Study
    failed : sequence of Row
        Images that could not be counted now.
    attempted : sequence of str
        Paths of all images that were tried now.
    """
    known = {*attempted, *(one.whole.path for one in study.counted)}
    try:
        with (study.folder / SUMMARY).open(encoding="utf-8", newline="") as file:
            rows = [
                {name: from_cell(text or "") for name, text in row.items() if name}
                for row in csv.DictReader(file)
                if row.get("status") == "failed"
            ]
    except (OSError, UnicodeError, csv.Error):
        rows = []
    earlier = [
        Row(
            image=row.get("image", ""),
            path=row.get("path", ""),
            status="failed",
            warnings=(row.get("warnings", ""),),
        )
        for row in rows
        if row.get("path", "") not in known
    ]
    return replace(study, failed=(*failed, *earlier))


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return file.readline().rstrip("\r\n").split(",")


def _text(rows: Sequence[Row]) -> str:
    classes = list(dict.fromkeys(name for row in rows for name in row.cells_per_class))
    markers = list(dict.fromkeys(name for row in rows for name in row.labelling))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *_FIRST,
            *(f"cells_{name}" for name in classes),
            "interval_low", "interval_high",
            *(f"{figure}_{name}" for name in markers for figure in _LABELLED),
            "tissue_mm2", "density_per_mm2",
            *(f"area_um2_p{percent:02}" for percent in PERCENT),
            *(f"area_px_p{percent:02}" for percent in PERCENT),
            *_LAST,
        ]
    )  # fmt: skip
    for row in rows:
        low, high = row.cells_interval or (None, None)
        values = [
            *(getattr(row, name) for name in _FIRST),
            *(row.cells_per_class.get(name) for name in classes),
            low, high,
            *(value for name in markers for value in _labelled(row, name)),
            row.tissue_mm2, row.density_per_mm2,
            *(row.areas_um2.get(percent) for percent in PERCENT),
            *(row.areas_px.get(percent) for percent in PERCENT),
            *(getattr(row, name) for name in _LAST),
        ]  # fmt: skip
        writer.writerow([_cell(value) for value in values])
    return out.getvalue()


def _labelled(row: Row, marker: str) -> Iterator[float | None]:
    """As :data:`_LABELLED` names them."""
    found = row.labelling.get(marker)
    if found is None:
        yield from (None,) * len(_LABELLED)
        return
    yield found.positive
    yield from found.interval or (None, None)
    yield from (found.h_score, found.allred)


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
