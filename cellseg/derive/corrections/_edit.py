"""One edit: which cells it changes into what, who made it and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from cellseg.annotations.masks import encoded, outline_of
from cellseg.geometry import Box, box_of

Kind = Literal["delete", "add", "redraw", "split", "merge", "class"]

AREA_LIMIT_PX = 2**24
"""No cell's box is larger; a log that says so is damaged."""


def _printable(name: str) -> str:
    if not name or not name.isprintable():
        raise ValueError("no name that can be shown")
    return name


ClassName = Annotated[str, AfterValidator(_printable)]


_LARGEST_LABEL = 2**32 - 2**24
"""Masks hold labels of 32 bits: some are left for cells that are drawn later."""


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class _CellRecord(_Record):
    box: list[NonNegativeInt] = Field(min_length=4, max_length=4)
    mask: str
    name: ClassName = Field(alias="class")
    score: float = Field(ge=0, le=1, allow_inf_nan=False)


class _ChangeRecord(_Record):
    label: int = Field(ge=1, lt=_LARGEST_LABEL)
    before: _CellRecord | None
    after: _CellRecord | None


class _EditRecord(_Record):
    kind: Kind
    who: str
    when: str
    changes: list[_ChangeRecord] = Field(min_length=1)


class LogRecord(_Record):
    """What ``corrections.json`` holds, whoever wrote it."""

    format: Literal["cellseg corrections"]
    result: str
    classes: list[ClassName]
    edits: list[_EditRecord]


@dataclass(frozen=True, eq=False)
class EditedCell:
    """A cell as a person left it.

    Attributes
    ----------
    box : Box
        Lattice pixels, tight around the mask.
    mask : ndarray, bool, of the box's shape
    name : str
        Its class.
    score : float
        The detector's for a cell that it outlined; 1 for one that a person drew.
    """

    box: Box
    mask: NDArray[np.bool_]
    name: str
    score: float = 1.0

    def __post_init__(self) -> None:
        if self.mask.shape != self.box.shape:
            raise ValueError(f"mask of shape {self.mask.shape} does not fit {self.box}")
        if not self.mask.any():
            raise ValueError("a cell without pixels")

    @classmethod
    def cut(
        cls, origin: tuple[int, int], mask: NDArray[np.bool_], name: str, *, score: float = 1.0
    ) -> EditedCell:
        """A cell from a mask with room around it; ``origin`` is its corner's lattice (y, x)."""
        if (box := box_of(mask)) is None:
            raise ValueError("a cell without pixels")
        return cls(box.shifted(*origin), np.array(mask[box.pixels], np.bool_), name, score)

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON; the mask as COCO's compressed run lengths."""
        code = encoded((0, 0, *self.mask.shape), self.mask, self.mask.shape)["counts"]
        return {
            "box": list(self.box.corners),
            "mask": code.decode("ascii") if isinstance(code, bytes) else code,
            "class": self.name,
            "score": round(self.score, 6),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> EditedCell:
        """Back from :meth:`as_dict`, as far as a :class:`LogRecord` allows.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        y0, x0, y1, x1 = found["box"]
        box = Box(y0, x0, y1, x1)
        if min(box.shape) < 1 or box.area > AREA_LIMIT_PX:
            raise ValueError(f"a box of {found['box']}")
        code = {"size": list(box.shape), "counts": found["mask"]}
        _, mask = outline_of(code, box.shape)
        return cls(box, mask, found["class"], float(found["score"]))


@dataclass(frozen=True, eq=False)
class CellChange:
    """One cell before and after; None: not there."""

    label: int
    before: EditedCell | None
    after: EditedCell | None

    @property
    def box(self) -> Box:
        """Around both."""
        return Box.around(cell.box for cell in (self.before, self.after) if cell is not None)


@dataclass(frozen=True, eq=False)
class Edit:
    """What one gesture changed.

    Attributes
    ----------
    kind : {'delete', 'add', 'redraw', 'split', 'merge', 'class'}
    who : str
        Login name.
    when : str
        ISO 8601, UTC.
    """

    kind: Kind
    changes: tuple[CellChange, ...]
    who: str
    when: str

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the cells that it touches, in order."""
        return tuple(change.label for change in self.changes)

    @property
    def box(self) -> Box:
        """Around everything that changes."""
        return Box.around(change.box for change in self.changes)

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
        """For ``run.json``: who changed what, without the masks."""
        return {
            "kind": self.kind,
            "who": self.who,
            "when": self.when,
            "cells": [
                {
                    "label": change.label,
                    "box": list(change.box.corners),
                    "before": None if change.before is None else change.before.name,
                    "after": None if change.after is None else change.after.name,
                }
                for change in self.changes
            ],
        }

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON, with the masks."""
        return {
            "kind": self.kind,
            "who": self.who,
            "when": self.when,
            "changes": [
                {
                    "label": change.label,
                    "before": None if change.before is None else change.before.as_dict(),
                    "after": None if change.after is None else change.after.as_dict(),
                }
                for change in self.changes
            ],
        }

    @cached_property
    def text(self) -> str:
        """:meth:`as_dict` as one line of JSON; made once, for a log is written after each edit."""
        return json.dumps(self.as_dict())

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Edit:
        """Back from :meth:`as_dict`, as far as a :class:`LogRecord` allows.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        changes = tuple(
            CellChange(change["label"], _cell(change["before"]), _cell(change["after"]))
            for change in found["changes"]
        )
        if any(c.before is None and c.after is None for c in changes):
            raise ValueError("an edit that changes nothing")
        edit = cls(found["kind"], changes, found["who"], found["when"])
        vars(edit)["text"] = json.dumps(found)
        return edit


def _cell(found: Mapping[str, Any] | None) -> EditedCell | None:
    return None if found is None else EditedCell.from_dict(found)
