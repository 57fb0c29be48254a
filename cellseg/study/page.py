"""A study's page: what to look at first, a table that can be sorted, pictures, sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from cellseg.draw.page import Cell, document, safe, sortable
from cellseg.errors import CellsegError, OutputError
from cellseg.result.files import output_errors, replacing
from cellseg.result.publish import OUTLINES
from cellseg.storage import Location
from cellseg.study.folder import Counted, Study
from cellseg.study.pictures import Pictures, pictures
from cellseg.study.rows import Labelled, Row
from cellseg.study.sizes import Axis, drawn, hexes, histograms
from cellseg.table.regions import counted

REPORT, OVERVIEW = "report.html", "overview.png"

PICTURES_BYTES = 4_400_000
"""All pictures together: with its tables a page of a hundred slides stays under 5 MB."""

_SHOWN = (50, 5, 95)
"""Quantiles of areas, per cent."""

_MOST_EACH, _LEAST_EACH = 200_000, 4_000
_MARK = 'name="generator" content="cellseg '


def write_study(study: Study, path: Path | None = None) -> Location:
    """Write the page.

    Parameters
    ----------
    study : Study
    path : Path, optional
        ``report.html`` in the study's folder otherwise.

    Returns
    -------
    Path or RemotePath
        Of the page.

    Raises
    ------
    OutputError
        If it cannot be written, or there is a page of that name that cellseg did not make.
    """
    target = path or study.folder / REPORT
    with output_errors(target):
        if target.exists() and _MARK not in target.read_text("utf-8", "replace")[:4000]:
            raise OutputError(
                f"{study.shown(target)}: is no page of cellseg; move it away, or take another -o"
            )
        text = document(f"{_name(study)}: cells counted", list(_body(study, target)))
        with replacing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return study.left(target)


def _name(study: Study) -> str:
    return study.folder.absolute().name or str(study.folder)


def _body(study: Study, page: Path) -> Iterator[str]:
    yield f"<h1>{safe(_name(study))}</h1>"
    yield f"<p class='muted'>{_totals(study)}</p>"
    yield _look_first(study)
    yield "<h2>Counts</h2>"
    yield _counts(study)
    yield from _size_tables(study)
    yield "<h2>Slides</h2><p class='muted'>Left: outlines at the densest place of a slide, or of a "
    yield "field. Then: how dense the cells lie, pale where there are none, and of several classes "
    yield "how dense each does, on a scale of its own. The pictures "
    yield "in the result folders show more.</p><div class='slides'>"
    share = PICTURES_BYTES // max(1, len(study.counted))
    each = min(max(share, _LEAST_EACH), _MOST_EACH)
    # A page on the disk does not lead to results behind a URL.
    linked = study.place is None or page.parent == study.folder
    for number, one in enumerate(study.counted):
        yield _slide(number, one, page if linked else None, each)
    yield "</div>"


def _totals(study: Study) -> str:
    wholes = [one.whole for one in study.counted]
    parts = [f"{len(wholes):,} slide{'s' * (len(wholes) != 1)} counted"]
    if study.failed:
        parts.append(f"{len(study.failed):,} not")
    for name in dict.fromkeys(row.object for row in wholes):
        cells = sum(row.cells or 0 for row in wholes if row.object == name)
        parts.append(counted(cells, name or "cell"))
    tissue = sum(row.tissue_mm2 or 0 for row in wholes)
    if tissue:
        parts.append(f"{tissue:.3g} mm² of tissue")
    models = _models(study)
    by = f", by {models[0]}" if len(models) == 1 else ""
    return safe(", ".join(parts) + by)


def _models(study: Study) -> list[str]:
    """Their names; one for all slides stands above the table, several in a column of it."""
    return list(dict.fromkeys(row.model for row in study.rows if row.model))


def _look_first(study: Study) -> str:
    """Everything that speaks against a count."""
    lines = [
        f"<b>{safe(row.image)}</b> was not counted: {safe(' '.join(row.warnings))}"
        for row in study.failed
    ]
    lines += [f"A result was left out: {safe(line)}" for line in study.unread]
    for number, one in enumerate(study.counted):
        link = f"<a href='#slide-{number}'>{safe(one.whole.image)}</a>"
        lines += [f"{link}: {safe(doubt)}" for doubt in one.whole.doubts]
        if one.whole.status == "partial":
            lines.append(f"{link}: some tiles could not be read; the count is too low")
    if not lines:
        return "<p>Nothing was found that speaks against these counts.</p>"
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f"<section class='warnings'><h2>To look at first</h2><ul>{items}</ul></section>"


def _counts(study: Study) -> str:
    rows = study.rows
    classes = list(dict.fromkeys(name for row in rows for name in row.cells_per_class))
    several = classes if len(classes) > 1 else []
    models = _models(study)
    has_regions = any(row.region or row.region_class for row in rows)
    markers = list(_scored(rows))
    wells = any(row.well for row in rows)
    in_um = any(row.areas_um2 for row in rows)
    # Slides without a pixel size have their sizes in pixels alone.
    in_px = any(row.areas_px and not row.areas_um2 for row in rows)
    numbers = {id(one.whole): number for number, one in enumerate(study.counted)}
    head = [
        ("Image", False),
        *([("Well", False)] if wells else []),
        *([("Region", False)] if has_regions else []),
        ("Cells", True),
        *((name, True) for name in several),
        *((title, True) for title, _, _ in markers),
        ("per mm²", True),
        ("Tissue, mm²", True),
        *_area_heads("µm²", in_um),
        *_area_heads("px²", in_px)[:1],
        ("µm/px", True),
        ("Protocol", False),
        *([("Model", False)] if len(models) > 1 else []),
        ("Seconds", True),
        ("State", False),
    ]
    table = []
    for row in rows:
        at = numbers.get(id(row))
        name = safe(row.image)
        table.append(
            [
                Cell(name if at is None else f"<a href='#slide-{at}'>{name}</a>", row.image),
                *([_text(row.well)] if wells else []),
                *([_region(row)] if has_regions else []),
                _number(row.cells, ",.0f"),
                *(_number(row.cells_per_class.get(name), ",.0f") for name in several),
                *(_score(row.labelling.get(name), kind) for _, name, kind in markers),
                _number(row.density_per_mm2, ",.0f"),
                _number(row.tissue_mm2, ".3g"),
                *(_number(row.areas_um2.get(percent), ",.1f") for percent in _SHOWN if in_um),
                *([_number(row.areas_px.get(50), ",.0f")] if in_px else []),
                _number(row.mpp, ".4g"),
                _text(row.protocol),
                *([_text(row.model)] if len(models) > 1 else []),
                _number(row.seconds, ",.0f"),
                _text("doubtful" if row.doubts else row.status),
            ]
        )
    return sortable("A row an image; a head's button sorts by its column.", head, table)


def _area_heads(unit: str, wanted: bool) -> list[tuple[str, bool]]:
    names = ("Median area", "5\u00a0%", "95\u00a0%")
    return [(f"{name}, {unit}", True) for name in names if wanted]


def _region(row: Row) -> Cell:
    text = " · ".join(part for part in (row.region, row.region_class) if part)
    return Cell(safe(text), text or None)


_KINDS = {"positive": "{}, % positive (95 %)", "h_score": "{}, H-score", "allred": "{}, Allred"}


def _scored(rows: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Columns of the markers: title, marker, and which figure of it; none that is always empty."""
    for name in dict.fromkeys(name for row in rows for name in row.labelling):
        found = [row.labelling[name] for row in rows if name in row.labelling]
        for kind, title in _KINDS.items():
            if any(getattr(one, kind) is not None for one in found):
                yield title.format(name), name, kind


def _score(found: Labelled | None, kind: str) -> Cell:
    value = None if found is None else getattr(found, kind)
    if found is None or value is None:
        return Cell("–", None)
    if kind != "positive":
        return _number(value, ".0f")
    between = "" if found.interval is None else " ({:.1f} … {:.1f})".format(*found.interval)
    return Cell(f"{value:.1f}{between}", value)


def _number(value: float | None, spec: str) -> Cell:
    return Cell("–", None) if value is None else Cell(format(value, spec), value)


def _text(text: str) -> Cell:
    return Cell(safe(text), text or None)


def _size_tables(study: Study) -> Iterator[str]:
    """Histograms of the slides with a pixel size, then of those without."""
    kinds = (("µm²", "area_um2", "areas_um2"), ("px²", "area_px", "areas_px"))
    left = list(enumerate(study.counted))
    for unit, column, name in kinds:
        some = [(number, one) for number, one in left if getattr(one.whole, name)]
        left = [pair for pair in left if pair not in some]
        if some:
            quantiles = [getattr(one.whole, name) for _, one in some]
            yield _sizes(some, Axis.over(quantiles, unit=unit, column=column), quantiles)


def _sizes(some: list[tuple[int, Counted]], axis: Axis, quantiles: list[dict[int, float]]) -> str:
    # Those of the most classes first: where several stand side by side, colours are the pictures'.
    counts = sorted((one.whole.cells_per_class for _, one in some), key=len, reverse=True)
    classes = list(dict.fromkeys(chain.from_iterable(counts)))
    ticks = "".join(
        f"<span style='left:{100 * axis.place(area):.1f}%'>{area:,g}</span>"
        for area in axis.ticks()
    )
    key = "".join(
        f"<span><i style='background:{colour}'></i>{safe(name)}</span>"
        for name, colour in zip(classes, hexes(len(classes)), strict=True)
    )
    lines = []
    for (number, one), areas in zip(some, quantiles, strict=True):
        try:
            picture = drawn(histograms(one.folder, axis), classes, axis, areas[50])
        except CellsegError as error:
            picture = safe(str(error))
        link = f"<a href='#slide-{number}'>{safe(one.whole.image)}</a>"
        lines.append(f"<tr><th scope='row'>{link}</th><td>{picture}</td></tr>")
    return (
        f"<h2>Sizes, {axis.unit}</h2><p class='key'>{key}</p>"
        "<p class='muted'>Each row is scaled to its own highest bar; the line is the slide's "
        "median. Areas stand on a scale of ratios, what lies beyond it in its end bars.</p>"
        f"<table class='sizes'><thead><tr><th scope='col'>Image</th><td>{ticks}</td></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _slide(number: int, one: Counted, page: Path | None, most_bytes: int) -> str:
    row = one.whole
    seen = pictures(one.folder / OUTLINES, one.folder / OVERVIEW, most_bytes=most_bytes)
    said = [counted(row.cells or 0, row.object or "cell")]
    if row.density_per_mm2 is not None:
        said.append(f"{row.density_per_mm2:,.0f} per mm²")
    for name, found in row.labelling.items():
        if found.positive is not None:
            said.append(f"{name} {found.positive:.1f} % positive")
    links = [_links(one.folder, page)] if page is not None else []
    notes = "".join(f"<li>{safe(text)}</li>" for text in row.warnings)
    return (
        f"<article class='slide' id='slide-{number}'><h3>{safe(row.image)}</h3>"
        f"<p class='muted'>{' · '.join([safe(', '.join(said)), *links])}</p>"
        + "".join(f"<p class='doubt'>{safe(doubt)}</p>" for doubt in row.doubts)
        + _figures(row, seen)
        + (f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else "")
        + "</article>"
    )


def _links(folder: Path, page: Path) -> str:
    """To the whole pictures and the table, where they lie beside the page."""
    try:
        home = Path(os.path.relpath(folder.absolute(), page.absolute().parent)).as_posix()
    except ValueError:  # on another drive
        home = folder.absolute().as_posix()
    names = {
        OUTLINES: "outlines",
        OVERVIEW: "overview",
        "histogram.png": "histogram",
        "cells.csv": "table",
    }
    return ", ".join(
        f"<a href='{quote(f'./{home}/{name}')}'>{text}</a>"
        for name, text in names.items()
        if (folder / name).is_file()
    )


def _figures(row: Row, seen: Pictures) -> str:
    scale = f", brightest: {safe(seen.scale)}" if seen.scale else ""
    found = [
        _figure(seen.outlines, f"{row.image}: masks outlined", "Outlines"),
        _figure(seen.density, f"{row.image}: density of the cells", f"Density{scale}"),
        *(
            _figure(data, f"{row.image}: density, {said}", f"Density of {safe(said)}")
            for data, said in seen.by_class
        ),
    ]
    if not any(found):
        return "<p class='muted'>No pictures in the result folder.</p>"
    return f"<div class='pictures'>{''.join(found)}</div>"


def _figure(data: str | None, alt: str, caption: str) -> str:
    if data is None:
        return ""
    return (
        f"<figure><img src='{data}' alt='{safe(alt)}'><figcaption>{caption}</figcaption></figure>"
    )
