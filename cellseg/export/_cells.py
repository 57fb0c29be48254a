"""The table of a result for its exports: what its columns mean, and texts that a format takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pandas as pd

from cellseg.protocol import Stain
from cellseg.result.result import Result
from cellseg.table import Column, columns
from cellseg.table.around import around_columns
from cellseg.table.neighbours import Neighbours


def described(result: Result) -> list[Column]:
    """The table's columns, in order; unit and meaning are empty of those that nobody describes."""
    channels = result.section("settings").get("channels") or []
    stain = cast("Stain", result.stain)
    within = result.section("spatial").get("within")
    known = {
        column.name: column
        for column in (
            *columns(channels, stain=stain, has_mpp=True, has_regions=True, has_t=True),
            *around_columns(channels, stain=stain, has_mpp=True),
            *Neighbours(result.frame.mpp, within, tuple(result.class_names)).columns,
        )
    }
    return [replace(known.get(own.name, own), dtype=own.dtype) for own in result.columns]


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table whose texts are changed."""
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name].dtype):
            new = {text: change(text) for text in table[name].unique()}
            if any(old != text for old, text in new.items()):
                table = table.assign(**{name: table[name].map(new).astype(table[name].dtype)})
    return table
