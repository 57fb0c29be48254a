"""A study's page: what to look at first, a table that can be sorted, pictures, sizes."""

from __future__ import annotations

import math
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.draw import SCALE_KEY, parts_of
from cellseg.draw.page import render_page
from cellseg.errors import CellsegError, OutputError, output_errors, writing
from cellseg.palette import as_hex
from cellseg.result import Result
from cellseg.result.files import own_file
from cellseg.result.publish import HISTOGRAM, OUTLINES, OVERVIEW, TABLE
from cellseg.storage import Location
from cellseg.study.arrays import core_maps, well_maps
from cellseg.study.folder import REPORT, Study
from cellseg.study.rows import QUALITY, SummaryRow
from cellseg.table.summary import counted
from cellseg.text import visible

PICTURES_BYTES = 4_400_000
"""All pictures together: with its tables a page of a hundred slides stays under 5 MB."""

_MOST_EACH, _LEAST_EACH = 200_000, 4_000
_LINKS = {OUTLINES: "outlines", OVERVIEW: "overview", HISTOGRAM: "histogram", TABLE: "table"}
_MARK = 'name="generator" content="cellseg '
BINS = 40
WIDTH, HEIGHT = 600, 30

_STEPS = (
    (480, 320, 78),
    (420, 280, 68),
    (360, 220, 58),
    (280, 160, 48),
    (200, 120, 40),
    (120, 80, 35),
)
"""Sides of the outlines and of the density maps, and the quality, from the best on."""

_WHOLE_PX = 600
"""Of a field that is larger the middle is shown, so that outlines stay visible."""

_MOST_MAPS = 6


def write_study(study: Study, path: Path | None = None) -> Location:
    """Write the page, ``report.html`` in the study's folder without ``path``; returns its place."""
    target = path or study.folder / REPORT
    with output_errors(target):
        if target.exists() and _MARK not in target.read_text("utf-8", "replace")[:4000]:
            raise OutputError(
                f"{study.shown(target)}: is no page of cellseg; move it away", hint="output"
            )
        name = study.folder.absolute().name or str(study.folder)
        text = render_page(
            Path(__file__).with_name("page.html"),
            title=f"{name}: cells counted",
            name=name,
            **_content(study, target),
        )
        with writing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return study.send(target)


def _content(study: Study, target: Path) -> dict[str, Any]:
    """What the template shows; of a slide its number, its row, and what belongs there."""
    rows = study.rows
    wholes = [of_one[0] for of_one in study.results.values()]
    numbers = {id(row): number for number, row in enumerate(wholes)}
    classes = list(dict.fromkeys(name for row in rows for name in row.get("classes", ())))
    models = list(dict.fromkeys(row["model"] for row in rows if row.get("model")))
    return {
        "totals": _totals(study, wholes) + (f", by {models[0]}" if len(models) == 1 else ""),
        "first": list(_look_first(study, wholes)),
        "rows": [(numbers.get(id(row)), row) for row in rows],
        "wells": list(well_maps(study)),
        "classes": classes if len(classes) > 1 else [],
        "markers": list(_markers(rows)),
        "quality": [
            (column, f"{column.removesuffix('_percent').replace('_', ' ').capitalize()}, %")
            for column in QUALITY
            if any((row.get(column) or 0) >= 0.1 for row in rows)
        ],
        "models": models,
        "courses": list(_courses(wholes)),
        "sizes": list(_sizes(study.results)),
        "width": WIDTH,
        "height": HEIGHT,
        "slides": list(_slides(study, target)),
    }


def _totals(study: Study, wholes: list[SummaryRow]) -> str:
    parts = [f"{len(wholes):,} slide{'s' * (len(wholes) != 1)} counted"]
    if study.failed:
        parts.append(f"{len(study.failed):,} not")
    for name in dict.fromkeys(row["object"] for row in wholes):
        cells = sum(row["cells"] for row in wholes if row["object"] == name)
        parts.append(counted(cells, name or "cell"))
    tissue = sum(row["tissue_mm2"] or 0 for row in wholes)
    if tissue:
        parts.append(f"{tissue:.3g} mm² of tissue")
    return ", ".join(parts)


def _look_first(
    study: Study, wholes: list[SummaryRow]
) -> Iterator[tuple[int | None, SummaryRow | None, str]]:
    """Everything that speaks against a count, or prevented one."""
    for row in study.failed:
        yield None, row, f"was not counted: {' '.join(row['warnings'])}"
    for line in study.unread:
        yield None, None, f"A result was left out: {line}"
    for number, row in enumerate(wholes):
        for doubt in _doubts(row):
            yield number, row, doubt


def _doubts(row: SummaryRow) -> list[str]:
    is_partial = row["status"] == "partial"
    return [*row["doubts"], *["some tiles could not be read; the count is too low"] * is_partial]


def _nearby(scores: Mapping[str, float | None]) -> str:
    """How much the share of positive cells hangs on the threshold; empty where nobody knows."""
    low, high = (scores.get(f"positive_percent_at_{times}") for times in ("080", "125"))
    if low is None or high is None:
        return ""
    return f" ({low:.1f} and {high:.1f} % at 0.8 and 1.25 times the threshold)"


_KINDS = {"positive_percent": "% positive (95 %)", "h_score": "H-score", "allred": "Allred"}


def _markers(rows: list[SummaryRow]) -> Iterator[tuple[str, str, str]]:
    """Columns of the markers that are not empty: title, marker, and which figure of it."""
    for name in dict.fromkeys(name for row in rows for name in row.get("markers", ())):
        found = [row["markers"][name] for row in rows if name in row.get("markers", ())]
        for kind, title in _KINDS.items():
            if any(one[kind] is not None for one in found):
                yield f"{name}, {title}", name, kind


def _courses(wholes: list[SummaryRow]) -> Iterator[dict[str, Any]]:
    """Cells over time, of each image that was counted at several time points."""
    by_path: dict[str, list[SummaryRow]] = {}
    for row in wholes:
        if row["t"] is not None:
            by_path.setdefault(row["path"], []).append(row)
    for rows in by_path.values():
        if len(rows) < 2:
            continue
        rows.sort(key=lambda row: int(row["t"]))
        times, cells = ([row[name] for row in rows] for name in ("t", "cells"))
        span, most = times[-1] - times[0] or 1, max(cells) or 1
        yield {
            "name": rows[0]["image"].rpartition(", t ")[0],
            "times": times,
            "cells": cells,
            "line": " ".join(
                f"{WIDTH * (t - times[0]) / span:.1f},{HEIGHT * (1 - count / most):.1f}"
                for t, count in zip(times, cells, strict=True)
            ),
        }


def _sizes(results: Mapping[Result, list[SummaryRow]]) -> Iterator[dict[str, Any]]:
    """Histograms of the slides with a pixel size, then of those without."""
    left = [(number, result, rows[0]) for number, (result, rows) in enumerate(results.items())]
    for unit, column in (("µm²", "area_um2"), ("px²", "area_px")):
        some = [one for one in left if f"{column}_p50" in one[2]]
        left = [one for one in left if one not in some]
        if not some:
            continue
        axis = Axis.over([row for *_, row in some], unit=unit, column=column)
        # Those of the most classes first: where several stand side by side, colours are the
        # pictures'.
        counts = sorted((row["classes"] for *_, row in some), key=len, reverse=True)
        classes = list(dict.fromkeys(name for one in counts for name in one))
        palette = dict(zip(classes, map(as_hex, some[0][1].colours(classes)), strict=True))
        rows: list[tuple[object, ...]] = []
        for number, result, row in some:
            median = row[f"{column}_p50"]
            try:
                rows.append((number, row, median, axis.drawing(result, palette, median)))
            except CellsegError as error:
                rows.append((number, row, median, str(error)))
        yield {"axis": axis, "palette": palette, "rows": rows}


def _slides(study: Study, page: Path) -> Iterator[dict[str, Any]]:
    share = PICTURES_BYTES // max(1, len(study.results))
    most_bytes = min(max(share, _LEAST_EACH), _MOST_EACH)
    # A page on the disk does not lead to results behind a URL.
    is_linked = study.place is None or page.parent == study.folder
    for result, rows in study.results.items():
        row = rows[0]
        said = [counted(row["cells"], row["object"] or "cell")]
        if row["density_per_mm2"] is not None:
            said.append(f"{row['density_per_mm2']:,.0f} per mm²")
        said += [
            f"{name} {found['positive_percent']:.1f} % positive" + _nearby(found)
            for name, found in row["markers"].items()
            if found["positive_percent"] is not None
        ]
        said += map(visible, result.summary.said_corrected())
        pictures = (result.path / name for name in (OUTLINES, OVERVIEW))
        yield {
            "row": row,
            "said": ", ".join(said),
            "doubts": _doubts(row),
            "found": [
                visible(str(text))
                for name in ("chamber", "hotspot")
                if (text := result.section(name).get("said"))
            ],
            "maps": list(core_maps(result, rows)),
            "links": list(_links(result.path, page)) if is_linked else [],
            "pictures": thumbnails(*pictures, most_bytes=most_bytes),
        }


def _links(folder: Path, page: Path) -> Iterator[tuple[str, str]]:
    """Text and address of the whole pictures and the table, where they lie beside the page."""
    try:
        home = Path(os.path.relpath(folder.absolute(), page.absolute().parent)).as_posix()
    except ValueError:  # on another drive
        home = folder.absolute().as_posix()
    for name, text in _LINKS.items():
        if (folder / name).is_file():
            yield text, quote(os.fsencode(f"./{home}/{name}"))


@dataclass(frozen=True, eq=False)
class Axis:
    """Areas of a column of the table, on a scale of ratios."""

    unit: str
    column: str
    low: float
    high: float

    @classmethod
    def over(cls, rows: Sequence[SummaryRow], *, unit: str, column: str) -> Axis:
        """One that holds nine of ten cells of each slide, with as much again on either side."""
        low = min(row[f"{column}_p05"] for row in rows) / 2
        high = max(row[f"{column}_p95"] for row in rows) * 2
        return cls(unit, column, max(low, high / 1e4), high)

    def place(self, area: float) -> float:
        """From 0 at the left to 1 at the right."""
        return math.log(area / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """1, 2 and 5 × 10ⁿ; of a long axis only 10ⁿ."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
        found = [step * 10.0**power for power in powers for step in steps]
        return [area for area in found if self.low * 1.05 <= area <= self.high / 1.05]

    def drawing(self, result: Result, palette: dict[str, str], median: float) -> dict[str, Any]:
        """``outlines``, a colour and an SVG's path a class; ``median``, the place of its line.

        Cells beyond the axis are in its end bins.
        """
        table = result.table.load(["class", self.column])
        areas = np.clip(table[self.column].to_numpy(np.float64), self.low, self.high)
        edges, names = np.geomspace(self.low, self.high, BINS + 1), table["class"]
        counts = {
            visible(str(name)): np.histogram(areas[(names == name).to_numpy()], edges)[0]
            for name in names.unique()
        }
        top = max(int(one.max()) for one in counts.values())
        return {
            "outlines": [
                (colour, _outline(counts[name], top))
                for name, colour in palette.items()
                if name in counts
            ],
            "median": WIDTH * min(max(self.place(median), 0), 1),
        }


def _outline(counts: NDArray[np.int64], top: int) -> str:
    step = WIDTH / BINS
    heights = HEIGHT - 1 - (HEIGHT - 2) * counts / top
    steps = "".join(
        f"V{height:.1f}H{step * (number + 1):.0f}" for number, height in enumerate(heights)
    )
    return f"M0 {HEIGHT - 1}{steps}V{HEIGHT - 1}Z"


class Thumbnail(NamedTuple):
    """A picture of a page: its ``data:`` address, what it shows, and the line below it."""

    data: str
    about: str
    caption: str


def thumbnails(outlines: Path, overview: Path, *, most_bytes: int) -> list[Thumbnail]:
    """The densest place (or the field) with its outlines, the density map, and those of classes.

    Pictures may be missing or damaged. What does not fit in ``most_bytes`` (of all together, base64
    included) at the smallest size is left out.
    """
    parts, _ = _parts(outlines)
    fields = [(_middle(part), "masks outlined", "Outlines") for part in parts[:1]]
    parts, scale = _parts(overview)
    first, *others = scale.splitlines() or [""]
    brightest = f"Density, brightest: {first}" if first else "Density"
    maps = [(part, "density of the cells", brightest) for part in parts[1:2]]
    maps += [
        (part, f"density, {said}", f"Density of {said}")
        for part, said in zip(parts[2:], others[:_MOST_MAPS], strict=False)
    ]
    for side, small, quality in _STEPS:
        found = [Thumbnail(_data(image, side, quality), *said) for image, *said in fields]
        found += [Thumbnail(_data(image, small, quality), *said) for image, *said in maps]
        if sum(len(one.data) for one in found) <= most_bytes:
            return found
    return []


def _parts(path: Path) -> tuple[list[Image.Image], str]:
    """The parts of a picture (twice the whole where it does not say them), and its scale."""
    # Decoders raise whatever they like.
    with suppress(Exception), Image.open(own_file(path.parent, path.name)) as image:
        image.load()
        boxes = parts_of(image) or [(0, 0, *image.size)] * 2
        whole = image.convert("RGB")
        return [whole.crop(box) for box in boxes], str(image.info.get(SCALE_KEY, ""))
    return [], ""


def _middle(image: Image.Image) -> Image.Image:
    width, height = (min(side, _WHOLE_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _data(image: Image.Image, side: int, quality: int) -> str:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.save(out, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{b64encode(out.getvalue()).decode()}"
