"""Shares of a slide's tissue that are out of focus, folded or inked, and what a person is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter

from cellseg.errors import Notice
from cellseg.stain.quality import NAMES

_MEANS = {
    "out of focus": "cells may be missing there",
    "folded": "cells in several layers cannot be told apart",
    "marked by a pen": "cells under the ink may be missing",
}

WORTH_SAYING = 0.01
"""Share of the tissue from which a fault is a doubt."""

MOST_UNKNOWN = 0.5
"""Share of the tissue without contrast from which focus was not checked."""

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class SlideQuality:
    """Shares of a slide's tissue, 0 … 1, as ``quality`` of ``run.json`` holds them.

    Attributes
    ----------
    out_of_focus, folded, pen : float or None
        None where nobody looked: there are no folds and no pen in fluorescence.
    unknown_focus : float
        Tissue with too little contrast to show whether it is in focus.
    left_out : bool
        Tissue with a fault was left out of the count and of its area.
    """

    out_of_focus: _Share | None
    folded: _Share | None
    pen: _Share | None
    unknown_focus: _Share
    left_out: bool = False

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self | None:
        """Of a finished run; None where its record does not say it, or is damaged."""
        try:
            return TypeAdapter(cls).validate_python(run["quality"])
        except (LookupError, ValueError):
            return None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @property
    def faults(self) -> dict[str, float]:
        """What is wrong with a part of the tissue, and its share."""
        shares = (self.out_of_focus, self.folded, self.pen)
        return {name: share for name, share in zip(NAMES.values(), shares, strict=True) if share}

    def doubts(self) -> list[Notice]:
        """Why the count may be wrong, one sentence a fault; none where it was left out."""
        worth = {n: s for n, s in self.faults.items() if s >= WORTH_SAYING and not self.left_out}
        return [
            Notice(f"{100 * share:.2g} % of the tissue is {name}: {_MEANS[name]}", hint="skip_bad")
            for name, share in worth.items()
        ]

    def said_of_left_out(self) -> Notice:
        """How much of the tissue was left out, and why."""
        every = sum(self.faults.values())
        each = ", ".join(f"{100 * share:.2g} % {name}" for name, share in self.faults.items())
        why = f" ({each}); its cells and its area do not count" if every else ""
        return Notice(f"{100 * every:.2g} % of the tissue was left out{why}")
