"""Maps of a microarray's results: a field for each core, coloured by its value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cellseg.annotations.cores import name_of
from cellseg.draw.overview import nice_ceiling, viridis
from cellseg.palette import as_hex
from cellseg.result import Result
from cellseg.study.rows import SummaryRow

MOST_SIDE = 100
"""Rows or columns of an array; more are no array's."""


@dataclass(frozen=True)
class CoreField:
    """A place of the array: its name, its value for people, and its colours; None: no core."""

    name: str
    said: str = ""
    ground: str | None = None
    ink: str = "#000000"


@dataclass(frozen=True)
class CoreMap:
    """What is shown, what the brightest colour stands for, and the fields row by row."""

    title: str
    top: str
    fields: list[list[CoreField]]


def core_maps(result: Result, rows: Sequence[SummaryRow]) -> Iterator[CoreMap]:
    """Maps of density and of each marker's index; none where the slide is no microarray."""
    array = result.section("array")
    found = [array.get(name) for name in ("rows", "columns")]
    sides = [side for side in found if isinstance(side, int) and 0 < side <= MOST_SIDE]
    if len(sides) < 2:
        return
    cores = {row["region"]: row for row in rows if row.get("region")}
    unit = "cells per mm²"
    yield value_map(unit, "{:,.0f}", sides, {n: row["density_per_mm2"] for n, row in cores.items()})
    for marker in dict.fromkeys(name for row in cores.values() for name in row["markers"]):
        shares = {
            name: row["markers"].get(marker, {}).get("positive_percent")
            for name, row in cores.items()
        }
        yield value_map(f"{marker}, % positive", "{:.0f}", sides, shares)


def value_map(
    title: str, spec: str, sides: Sequence[int], values: dict[str, float | None]
) -> CoreMap:
    """A map of values by place, ``A1`` the first, on ``sides`` rows and columns."""
    top = nice_ceiling(max([value for value in values.values() if value] or [1.0]))

    def field(name: str) -> CoreField:
        value = values.get(name)
        if value is None:
            return CoreField(name, "–" if name in values else "")
        level = value / top
        red, green, blue = viridis(np.array([level]))[0].tolist()
        ink = "#000000" if level > 0.6 else "#ffffff"
        return CoreField(name, spec.format(value), as_hex((red, green, blue)), ink)

    fields = [
        [field(name_of(row, column)) for column in range(sides[1])] for row in range(sides[0])
    ]
    return CoreMap(title, spec.format(top), fields)
