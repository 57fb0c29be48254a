"""What a study's table says of a result: a row for the whole slide, and one a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cellseg.errors import InputError
from cellseg.result.result import Result
from cellseg.text import visible

PERCENT = (5, 25, 50, 75, 95)
"""Quantiles of the cells' areas."""

Status = Literal["complete", "partial", "failed"]
"""``partial``: some tiles did not decode; ``failed``: there is no result."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """How many cells are positive for a marker, in per cent; what is not known is None.

    Attributes
    ----------
    positive : float or None
        The labelling index.
    interval : (float, float) or None
        95 % of it.
    h_score : float or None
    allred : int or None
    """

    positive: float | None
    interval: tuple[float, float] | None
    h_score: float | None
    allred: int | None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Labelled:
        """Of a marker's part of ``summary.labelling``, or a region's part of that."""
        index, interval, allred = (found[name] for name in ("index", "index_interval", "allred"))
        return cls(
            positive=None if index is None else 100 * float(index),
            interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
            h_score=_number(found["h_score"]),
            allred=None if allred is None else int(allred),
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A slide, or a region of it. What is not known is None.

    Attributes
    ----------
    image : str
        Name of its file.
    path : str
        Of the image, where it lay when it was counted.
    result : str
        The result folder, as seen from the study's; empty where there is none.
    status : {'complete', 'partial', 'failed'}
    region, region_class : str
        Empty for the whole slide.
    object : str
        ``nucleus`` or ``cell``.
    cells : int or None
    cells_per_class : dict of str to int
    labelling : dict of str to Labelled
        By marker, where cells have classes by measurement.
    well : str
        Of a plate's field; empty otherwise.
    cells_interval : (int, int) or None
        95 % interval of the true number.
    tissue_mm2 : float or None
        Tissue that was looked at; of a region, its area.
    density_per_mm2 : float or None
    areas_um2, areas_px : dict of int to float
        Percent to area, for :data:`PERCENT`; without cells, or without pixel size, empty.
    mpp : float or None
    mpp_source : str
    model, protocol : str
    score : float or None
    seconds : float or None
        That the count took.
    counted : str
        When, ISO 8601.
    corrected : bool
        Whether a person corrected it.
    doubts : tuple of str
        Why the count may be wrong.
    warnings : tuple of str
        What else a person should know.
    """

    image: str
    path: str = ""
    result: str = ""
    status: Status = "complete"
    region: str = ""
    region_class: str = ""
    object: str = ""
    cells: int | None = None
    cells_per_class: dict[str, int] = field(default_factory=dict)
    labelling: dict[str, Labelled] = field(default_factory=dict)
    well: str = ""
    cells_interval: tuple[int, int] | None = None
    tissue_mm2: float | None = None
    density_per_mm2: float | None = None
    areas_um2: dict[int, float] = field(default_factory=dict)
    areas_px: dict[int, float] = field(default_factory=dict)
    mpp: float | None = None
    mpp_source: str = ""
    model: str = ""
    protocol: str = ""
    score: float | None = None
    seconds: float | None = None
    counted: str = ""
    corrected: bool = False
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def rows_of(result: Result, place: str) -> list[Row]:
    """The whole slide's row, then its regions'.

    Parameters
    ----------
    result : Result
    place : str
        The result folder, as seen from the study's.

    Raises
    ------
    InputError
        If ``run.json`` does not say how many cells there are.
    """
    run = result.run
    try:
        common = _common(result, place)
        markers = run["summary"].get("labelling") or []
        whole = Row(
            **common,
            **_figures(run["summary"], area="tissue_mm2"),
            labelling={_text(one["name"]): Labelled.of(one) for one in markers},
        )
        regions = [
            Row(
                **common,
                **_figures(one, area="area_mm2"),
                region=_text(one.get("name")),
                region_class=_text(one.get("class")),
                labelling={
                    _text(marker["name"]): Labelled.of(marker["regions"][one["name"]])
                    for marker in markers
                    if one.get("name") in marker["regions"]  # else it holds no cell
                },
            )
            for one in run["summary"].get("regions") or []
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{result.path}: is damaged: {error!r}") from error
    return [whole, *regions]


def _common(result: Result, place: str) -> dict[str, Any]:
    run = result.run
    model, protocol, size = (_section(run, name) for name in ("model", "protocol", "pixel_size"))
    doubts = _texts(run.get("doubts"))
    return {
        "image": result.image_name,
        "well": result.well,
        "path": _text(_section(run, "image").get("path")),
        "result": place,
        "status": "complete" if result.is_complete else "partial",
        "object": _text(run.get("object")),
        "mpp": _number(size.get("mpp")),
        "mpp_source": _text(size.get("source")),
        "model": _text(model.get("name")),
        "protocol": _text(protocol.get("name")),
        "score": _number(protocol.get("score")),
        "seconds": _number(_section(run, "seconds").get("total")),
        "counted": _text(run.get("made")),
        "corrected": isinstance(run.get("corrected_from"), dict),
        "doubts": doubts,
        "warnings": tuple(text for text in _texts(run.get("warnings")) if text not in doubts),
    }


def _figures(summary: Mapping[str, Any], *, area: str) -> dict[str, Any]:
    """What :meth:`Summary.as_dict`, or a region's part of it, says."""
    interval = summary.get("cells_interval")
    return {
        "cells": int(summary["cells"]),
        "cells_per_class": {
            _text(name): int(count)
            for name, count in (summary.get("cells_per_class") or {}).items()
        },
        "cells_interval": None if interval is None else (int(interval[0]), int(interval[1])),
        "tissue_mm2": _number(summary.get(area)),
        "density_per_mm2": _number(summary.get("density_per_mm2")),
        "areas_um2": _quantiles(summary.get("area_um2")),
        "areas_px": _quantiles(summary.get("area_px")),
    }


def _quantiles(areas: Mapping[str, Any] | None) -> dict[int, float]:
    if areas is None:
        return {}
    quantiles = areas["quantiles"]
    return {percent: float(quantiles[str(percent)]) for percent in PERCENT}


def _section(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = run.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    return "" if value is None else visible(str(value))


def _texts(values: object) -> tuple[str, ...]:
    return tuple(_text(value) for value in values) if isinstance(values, list) else ()
