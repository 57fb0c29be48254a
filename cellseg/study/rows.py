"""Rows of ``summary.csv``: one for each slide, one for each of its regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellseg.derive.derive import totals_in
from cellseg.derive.places import drawn_regions
from cellseg.errors import InputError, SettingsError
from cellseg.result import Result
from cellseg.slide.formats import well_of
from cellseg.table.doubts import FEWEST, MOST_UNKNOWN, Expected, SlideQuality, recorded
from cellseg.table.summary import RegionSummary, Summary
from cellseg.text import visible

SummaryRow = dict[str, Any]
"""Values by column. Five are not columns themselves: ``classes``, cells by class; ``taught``, by
class the columns of :data:`CORRECTED`; ``markers``, by marker the columns of :data:`SCORES`;
``drawn``, a region that was drawn on the result in a line; ``checks``, see :func:`checks`. What is
not known is None or missing. All texts are safe to print."""

_PERCENT = (
    "positive_percent", "positive_percent_low", "positive_percent_high",
    "positive_percent_at_080", "positive_percent_at_125",
)  # fmt: skip
SCORES = (*_PERCENT, "h_score", "allred")
"""Columns of a marker, before its name."""

NEVER_CHECKED = "the outlines of single cells"
CORRECTED = ("cells_expected", "cells_low", "cells_high")
"""Columns of a class that was taught, before its name."""

CHAMBER = ("cells_per_ml", "cells_per_ml_low", "cells_per_ml_high", "viability_percent")
"""Columns of a counting chamber."""

QUALITY = ("out_of_focus_percent", "folded_percent", "pen_percent", "bubbles_percent")
"""Columns of a slide's quality: shares of its tissue."""


def rows_of(result: Result, place: str) -> list[SummaryRow]:
    """The whole slide's row, then its regions'; ``place`` is the result as seen from the study."""
    try:
        return list(_rows(result, place))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{result.path}: is damaged: {error!r}") from error


def failed_row(image: str, path: str, why: str) -> SummaryRow:
    """The row of an image without a result."""
    texts = {"image": visible(image), "path": visible(path), "well": well_of(Path(path))}
    return {**texts, "status": "failed", "corrected": False, "warnings": (visible(why),)}


def checks(result: Result) -> tuple[list[str], list[str]]:
    """What was checked of a count, and what was not; what failed a check is among its doubts."""
    summary, expected = result.summary, recorded(Expected, result.run, "expected_sizes")
    sized = expected is not None and summary.cells >= FEWEST
    usual = expected is not None and expected.usual_px is not None
    in_um = expected is not None and expected.mpp is not None
    found = {
        "tiles that cannot be read": True,
        "area of the cells within the tissue": summary.area_um2 is not None
        and bool(summary.tissue_mm2),
        "median size": sized and (usual or (in_um and summary.object == "nucleus")),
        "sizes at the limits": sized,
        "most common size": sized and usual,
        "scores close to the threshold": summary.cells >= FEWEST,
        "outlines on bare background": True,
        "pixel size": True,
    }
    quality = recorded(SlideQuality, result.run, "quality")
    found["focus"] = quality is not None and quality.unknown_focus < MOST_UNKNOWN
    if result.stain != "fluorescence":
        found["folds, pen marks and air bubbles"] = quality is not None
    if result.stain == "ihc":
        found["stain around nuclei"] = True
    passed = [name for name, checked in found.items() if checked]
    return passed, [*(name for name, checked in found.items() if not checked), NEVER_CHECKED]


def _rows(result: Result, place: str) -> Iterator[SummaryRow]:
    run, summary = result.run, result.summary
    model, protocol, size = (result.section(n) for n in ("model", "protocol", "pixel_size"))
    doubts, warnings = (tuple(map(visible, texts)) for texts in (result.doubts, result.warnings))
    drawn: list[Summary] = []
    try:  # counted now: the record does not know them
        if (regions := drawn_regions(result)) is not None:
            drawn = [totals_in(result, regions)]
    except (InputError, SettingsError) as error:
        warnings = (*warnings, visible(str(error)))
    about = {
        "image": result.image_name,
        "well": result.well,
        "t": result.time_point,
        "path": _text(result.section("image").get("path")),
        "result": place,
        "status": "complete" if result.is_complete else "partial",
        "object": _text(run.get("object")),
        "mpp": _number(size.get("mpp")),
        "mpp_source": _text(size.get("source")),
        "model": _text(model.get("name")),
        "protocol": _text(protocol.get("name")),
        "score": _number(protocol.get("score")),
        "seconds": _number(result.section("seconds").get("total")),
        "counted": _text(run.get("made")),
        "corrected": isinstance(run.get("corrected_from"), dict),
        "doubts": doubts,
        "warnings": tuple(text for text in warnings if text not in doubts),
    }
    low, high = summary.cells_interval or (None, None)
    quality = recorded(SlideQuality, run, "quality")
    shares: tuple[float | None, ...] = (None,) * len(QUALITY)
    if quality is not None:
        shares = (quality.out_of_focus, quality.folded, quality.pen, quality.bubbles)
    yield {
        **about,
        **_figures(summary, summary.tissue_mm2),
        "taught": {
            visible(name): dict(zip(CORRECTED, numbers, strict=True))
            for name, numbers in summary.corrected_per_class.items()
        },
        "interval_low": low,
        "interval_high": high,
        **{n: None if s is None else 100 * s for n, s in zip(QUALITY, shares, strict=True)},
        **_chamber(result.section("chamber")),
        "markers": {_text(marker["name"]): _scores(marker) for marker in summary.labelling},
        "checks": checks(result),
    }
    for of, region in [(one, region) for one in (summary, *drawn) for region in one.regions]:
        yield {
            **about,
            **_figures(region, region.area_mm2),
            "region": visible(region.name),
            "drawn": visible(region.said(summary.object)) if of is not summary else "",
            "region_class": visible(region.kind),
            "markers": {
                _text(marker["name"]): _scores(marker["regions"][region.name])
                for marker in of.labelling
                if region.name in marker["regions"]  # else it holds no cell
            },
        }


def _figures(found: Summary | RegionSummary, area_mm2: float | None) -> SummaryRow:
    areas = {"area_um2": found.area_um2, "area_px": found.area_px}
    return {
        "cells": found.cells,
        "classes": {visible(name): count for name, count in found.cells_per_class.items()},
        "tissue_mm2": area_mm2,
        "density_per_mm2": found.density_per_mm2,
        **{
            f"{name}_p{percent:02}": area
            for name, statistics in areas.items()
            if statistics is not None
            for percent, area in statistics.quantiles.items()
        },
    }


def _scores(marker: Mapping[str, Any]) -> dict[str, float | None]:
    """Columns of a marker, by :data:`SCORES`; shares become per cent."""
    interval, nearby = (
        marker.get(name) or (None, None) for name in ("index_interval", "index_nearby")
    )
    shares = (marker["index"], *interval, *nearby)
    percent = (None if one is None else 100 * float(one) for one in shares)
    values = (*percent, _number(marker["h_score"]), _number(marker["allred"]))
    return dict(zip(SCORES, values, strict=True))


def _chamber(found: Mapping[str, Any]) -> SummaryRow:
    if not found:
        return {}
    viability = found["viability"]
    percent = None if viability is None else 100 * float(viability)
    values = (found["per_ml"], *found["per_ml_interval"])
    return dict(zip(CHAMBER, (*map(float, values), percent), strict=True))


def _number(value: Any) -> float | None:  # noqa: ANN401
    return None if value is None else float(value)


def _text(value: object) -> str:
    return "" if value is None else visible(str(value))
