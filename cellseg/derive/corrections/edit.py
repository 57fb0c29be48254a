"""One edit: which cells it changes into what, who made it and when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
)

from cellseg.annotations.masks import encoded, outline_of
from cellseg.geometry import Box, box_of

Kind = Literal["delete", "add", "redraw", "split", "merge", "class"]

AREA_LIMIT_PX = 2**24
"""No cell's box is larger; a log that says so is damaged."""

_LARGEST_LABEL = 2**32 - 2**24
"""Masks hold labels of 32 bits: some are left for cells that are drawn later."""


def _printable(name: str) -> str:
    if not name or not name.isprintable():
        raise ValueError("no name that can be shown")
    return name


def _box(corners: object) -> Box:
    if not isinstance(corners, list) or [type(side) for side in corners] != [int] * 4:
        raise ValueError("expected y0, x0, y1, x1")
    box = Box(*corners)
    if min(corners) < 0 or not 0 < box.area <= AREA_LIMIT_PX:
        raise ValueError(f"a box of {corners}")
    return box


def _mask(counts: object, found: ValidationInfo) -> NDArray[np.bool_]:
    if "box" not in found.data:
        raise ValueError("a mask without a box")
    shape = found.data["box"].shape
    return outline_of({"size": list(shape), "counts": counts}, shape)[1]


def _counts(mask: NDArray[np.bool_]) -> str:
    code = encoded(Box(0, 0, *mask.shape), mask, mask.shape)["counts"]
    return code.decode("ascii") if isinstance(code, bytes) else str(code)


ClassName = Annotated[str, AfterValidator(_printable)]
_Corners = Annotated[
    Box, PlainValidator(_box), PlainSerializer(lambda box: list(box.corners), list[int])
]
_RunLengths = Annotated[NDArray[np.bool_], PlainValidator(_mask), PlainSerializer(_counts, str)]
_Score = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False),
    PlainSerializer(lambda score: round(score, 6), float),
]


@dataclass(frozen=True, eq=False)
class EditedCell:
    """A cell as a person left it.

    Attributes
    ----------
    box : Box
        Lattice pixels, tight around the mask.
    mask : ndarray, bool, of the box's shape
        COCO's compressed run lengths in JSON.
    name : str
        Its class.
    score : float
        The detector's for a cell that it outlined; 1 for one that a person drew.
    """

    box: _Corners
    mask: _RunLengths
    name: Annotated[ClassName, Field(alias="class")]
    score: _Score = 1.0

    @classmethod
    def cut(
        cls, whole: Box, mask: NDArray[np.bool_], name: str, *, score: float = 1.0
    ) -> EditedCell:
        """A cell from a mask that fills a box, with room around the cell."""
        if (box := box_of(mask)) is None:
            raise ValueError("a cell without pixels")
        place = box.shifted(whole.y0, whole.x0)
        return cls(place, np.array(mask[box.pixels], np.bool_), name, score)


@dataclass(frozen=True, eq=False)
class CellChange:
    """One cell before and after; None: not there."""

    label: Annotated[int, Field(ge=1, lt=_LARGEST_LABEL)]
    before: EditedCell | None
    after: EditedCell | None

    def __post_init__(self) -> None:
        if self.before is None and self.after is None:
            raise ValueError("a change of nothing")

    @property
    def box(self) -> Box:
        """Around both."""
        return Box.around(cell.box for cell in (self.before, self.after) if cell is not None)

    @cached_property
    def is_redrawn(self) -> bool:
        """Whether the outline differs; another class alone leaves it."""
        one, other = self.before, self.after
        if one is None or other is None or one.box != other.box:
            return True
        return not np.array_equal(one.mask, other.mask)


@dataclass(frozen=True, eq=False)
class Edit:
    """All that one gesture changed.

    Attributes
    ----------
    kind : {'delete', 'add', 'redraw', 'split', 'merge', 'class'}
    changes : tuple of CellChange
        At least one; no cell twice.
    who : str
        Login name.
    when : str
        ISO 8601, UTC.
    """

    kind: Kind
    changes: Annotated[tuple[CellChange, ...], Field(min_length=1)]
    who: str
    when: str

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("an edit that changes a cell twice")

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the cells that it touches, in order."""
        return tuple(change.label for change in self.changes)

    @property
    def undone(self) -> Edit:
        """The edit that takes this one back."""
        back = tuple(CellChange(c.label, c.after, c.before) for c in self.changes)
        return Edit(self.kind, back, self.who, self.when)

    def __str__(self) -> str:
        """For a person: ``delete 12`` or ``split 7 into 7, 301``."""
        before = [str(change.label) for change in self.changes if change.before is not None]
        after = [str(change.label) for change in self.changes if change.after is not None]
        if self.kind in ("split", "merge"):
            return f"{self.kind} {', '.join(before)} into {', '.join(after)}"
        names = {change.after.name for change in self.changes if change.after is not None}
        said = f"{self.kind} {', '.join(dict.fromkeys(before + after))}"
        return f"{said} to {', '.join(sorted(names))}" if self.kind == "class" else said

    def summary(self) -> dict[str, object]:
        """Who changed what, without the masks, for ``run.json``."""
        cells = [
            {
                "label": change.label,
                "box": list(change.box.corners),
                "before": None if change.before is None else change.before.name,
                "after": None if change.after is None else change.after.name,
            }
            for change in self.changes
        ]
        return {"kind": self.kind, "who": self.who, "when": self.when, "cells": cells}

    @cached_property
    def text(self) -> str:
        """One line of JSON, with the masks; made once, for a log is written after each edit."""
        return _EDIT.dump_json(self, by_alias=True).decode()


_EDIT = TypeAdapter(Edit)
