"""One edit: which cells it changes into what, who made it and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cellseg.evaluation.run_lengths import encoded
from cellseg.geometry import Box
from cellseg.training.outlines import outline_of

Kind = Literal["delete", "add", "redraw", "split", "merge", "class"]

AREA_LIMIT_PX = 2**24
"""No cell's box is larger; a log that says so is damaged."""


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
        ys, xs = np.nonzero(mask)
        if not ys.size:
            raise ValueError("a cell without pixels")
        y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        box = Box(
            int(y0) + origin[0], int(x0) + origin[1], int(y1) + origin[0], int(x1) + origin[1]
        )
        return cls(box, np.array(mask[y0:y1, x0:x1], np.bool_), name, score)

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON; the mask as COCO's compressed run lengths."""
        code = encoded((0, 0, *self.mask.shape), self.mask, self.mask.shape)["counts"]
        return {
            "box": [self.box.y0, self.box.x0, self.box.y1, self.box.x1],
            "mask": code.decode("ascii") if isinstance(code, bytes) else code,
            "class": self.name,
            "score": round(self.score, 6),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> EditedCell:
        """Back from :meth:`as_dict`.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is damaged.
        """
        y0, x0, y1, x1 = (int(v) for v in found["box"])
        box = Box(y0, x0, y1, x1)
        if min(box.shape) < 1 or box.area > AREA_LIMIT_PX or min(y0, x0) < 0:
            raise ValueError(f"a box of {found['box']}")
        code = {"size": list(box.shape), "counts": str(found["mask"])}
        _, mask = outline_of(code, box.shape)
        score = float(found["score"])
        if not 0 <= score <= 1:
            raise ValueError(f"a score of {score}")
        return cls(box, mask, str(found["class"]), score)


@dataclass(frozen=True, eq=False)
class Change:
    """One cell before and after; None: not there."""

    label: int
    before: EditedCell | None
    after: EditedCell | None

    @property
    def box(self) -> Box:
        """Around both."""
        boxes = [cell.box for cell in (self.before, self.after) if cell is not None]
        return Box(
            min(box.y0 for box in boxes),
            min(box.x0 for box in boxes),
            max(box.y1 for box in boxes),
            max(box.x1 for box in boxes),
        )


@dataclass(frozen=True, eq=False)
class Edit:
    """What one gesture changed.

    Attributes
    ----------
    kind : {'delete', 'add', 'redraw', 'split', 'merge', 'class'}
    changes : tuple of Change
    who : str
        Login name.
    when : str
        ISO 8601, UTC.
    """

    kind: Kind
    changes: tuple[Change, ...]
    who: str
    when: str

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the cells that it touches, in order."""
        return tuple(change.label for change in self.changes)

    @property
    def box(self) -> Box:
        """Around everything that changes."""
        boxes = [change.box for change in self.changes]
        return Box(
            min(box.y0 for box in boxes),
            min(box.x0 for box in boxes),
            max(box.y1 for box in boxes),
            max(box.x1 for box in boxes),
        )

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
                    "box": [change.box.y0, change.box.x0, change.box.y1, change.box.x1],
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

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Edit:
        """Back from :meth:`as_dict`.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is damaged.
        """
        if found["kind"] not in get_args(Kind):
            raise ValueError(f"an edit of kind {found['kind']!r}")
        changes = tuple(
            Change(int(change["label"]), _cell(change["before"]), _cell(change["after"]))
            for change in found["changes"]
        )
        if not changes or any(c.before is None and c.after is None for c in changes):
            raise ValueError("an edit that changes nothing")
        return cls(found["kind"], changes, str(found["who"]), str(found["when"]))


def _cell(found: Mapping[str, Any] | None) -> EditedCell | None:
    return None if found is None else EditedCell.from_dict(found)
