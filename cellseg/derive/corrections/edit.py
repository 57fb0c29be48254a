"""Edits of cells, who made each and when; kept in ``corrections.json`` as they are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from cellseg.annotations.masks import encoded, outline_of
from cellseg.errors import InputError, OutputError, output_errors, writing
from cellseg.geometry import Box, box_of
from cellseg.result import Result
from cellseg.result.files import fault_of, own_file, read_json, sha256_of
from cellseg.result.publish import CORRECTIONS

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
    """A cell as a person left it."""

    box: _Corners  # Lattice pixels, tight around the mask.
    mask: _RunLengths  # Of the box's shape; COCO's compressed run lengths in JSON.
    name: Annotated[ClassName, Field(alias="class")]
    score: _Score = 1.0  # The detector's for a cell that it outlined; 1 for one that was drawn.

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
    """All that one gesture changed."""

    kind: Kind
    changes: Annotated[tuple[CellChange, ...], Field(min_length=1)]  # No cell twice.
    who: str  # Login name.
    when: str  # ISO 8601, UTC.

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("an edit that changes a cell twice")

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the cells that it touches, in order."""
        return tuple(change.label for change in self.changes)

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


class _LogRecord(BaseModel):
    """``corrections.json``, whoever wrote it."""

    model_config = ConfigDict(strict=True)

    format: Literal["cellseg corrections"]
    result: str
    classes: list[ClassName]
    edits: list[Edit]


class LogFile:
    """The log of one result, read once and written by one hand."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._path = own_file(result.path, CORRECTIONS)
        self._seen = self._digest()
        self._of: str | None = None  # the earlier count whose edits are there

    def read(self) -> tuple[list[Edit], list[str]]:
        """The edits made so far, and class names that a person added; none without a log.

        A damaged log is left as it is.
        """
        if not self._path.exists():
            return [], []
        earlier = read_json(self._path).get("result")
        if isinstance(earlier, str) and earlier != self._result.token:
            self._of = earlier
            return [], []
        try:
            record = _LogRecord.model_validate_json(self._path.read_bytes())
            self._check(record.edits, record.classes)
        except ValueError as error:
            why = fault_of(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(
                f"{self._path}: is damaged: {why}; mend it, or move it away to start anew"
            ) from error
        return record.edits, record.classes

    def _check(self, edits: Sequence[Edit], added: Sequence[str]) -> None:
        """Check that edits fit the slide; they may be older than its classes by measurement."""
        frame, result = self._result.frame, self._result
        extent = Box(0, 0, frame.lattice_height, frame.lattice_width)
        classes = {*result.class_names, *map(str, result.section("found")["class_names"]), *added}
        changes = [change for edit in edits for change in edit.changes]
        for cell in (c for change in changes for c in (change.before, change.after) if c):
            if cell.box.intersection(extent) != cell.box:
                raise ValueError(f"a cell outside of the slide: {cell.box}")
            if cell.name not in classes:
                raise ValueError(f"a cell of an unknown class {cell.name!r}")

    def write(self, edits: Sequence[Edit], classes: Sequence[str]) -> None:
        """Write all edits in one step; edits of an earlier count are kept under another name.

        An OutputError if the disk refuses, if the slide was counted again meanwhile, or if
        somebody else corrected it: then theirs stay on the disk.
        """
        self._result.check_current()
        path = self._path
        about = {
            "format": "cellseg corrections",
            "result": self._result.token,
            "classes": list(classes),
        }
        lines = ",\n".join(edit.text for edit in edits)
        content = f'{json.dumps(about)[:-1]}, "edits": [\n{lines}\n]}}\n'.encode()
        with output_errors(path):
            if self._digest() != self._seen:
                raise OutputError(
                    f"{path}: was changed elsewhere, in another window or by somebody else; "
                    "open the result again to go on"
                )
            if self._of is not None:
                safe = "".join(letter for letter in self._of[:8] if letter.isalnum()) or "earlier"
                path.rename(path.with_name(f"corrections-{safe}.json"))
                self._of, self._seen = None, None
            with writing(path) as temporary:
                temporary.write_bytes(content)
            self._seen = sha256(content).hexdigest()

    def _digest(self) -> str | None:
        try:
            return sha256_of(self._path)
        except OSError:
            return None
