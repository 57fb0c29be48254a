"""What the columns of a result's table mean, and their units."""

from __future__ import annotations

from typing import cast

from cellseg.protocol import Stain
from cellseg.result.result import Result
from cellseg.table import Column, columns
from cellseg.table.around import around_columns
from cellseg.table.neighbours import Neighbours


def described(result: Result) -> list[Column]:
    """The columns of ``cells.csv``, in order; unit and meaning are empty where measure knows none.

    The dtype is the table's.
    """
    settings, protocol = (result.run.get(name) or {} for name in ("settings", "protocol"))
    channels = settings.get("channels") or []
    stain = cast("Stain", protocol.get("stain", "fluorescence"))
    within = result.section("spatial").get("within")
    near = Neighbours(result.frame.mpp, within, tuple(result.class_names))
    known = {
        column.name: column
        for column in (
            *columns(channels, stain=stain, has_mpp=True, has_regions=True),
            *around_columns(channels, stain=stain, has_mpp=True),
            *near.columns,
        )
    }
    found = []
    for name, dtype in ((str(c["name"]), str(c["dtype"])) for c in result.run["columns"]):
        column = known.get(name, Column(name, "", dtype, ""))
        found.append(Column(name, column.unit, dtype, column.meaning))
    return found
