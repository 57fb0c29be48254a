"""The recipe: what people decided about a result. It is small, and everything else follows."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from cellseg.errors import InputError, SettingsError
from cellseg.geometry import Frame
from cellseg.protocol import MOST_MARKERS, Marker
from cellseg.result import Result
from cellseg.result.files import read_json, validated
from cellseg.result.publish import AGAIN, RECIPE
from cellseg.table.chamber import Chamber
from cellseg.table.hotspot import HotSpot
from cellseg.table.neighbours import NEAR_UM
from cellseg.table.taught import TaughtClasses

MOST_UM, MOST_PX = 50.0, 200.0
"""Largest distance by which nuclei grow: µm, or pixels of an image without a pixel size."""

MOST_NEAR = {"µm": 500, "px": 5000}
"""Largest distance within which neighbours are counted."""

_MOST_LATTICE_PX = 512


class Recipe(BaseModel):
    """What people decided about a result, as ``recipe.json`` holds it.

    Distances are in µm, or in px of an image without pixel size. Thresholds or clicked cells give
    the classes, never both; without either the model's classes stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    expand: float | None = None  # Nuclei grow into cells by this; None: they do not.
    cells_from: str | None = None  # Over this channel, to the cell's edge, by `expand` at most.
    spatial: bool = False  # Neighbours, density and distance to the border are measured.
    within: int | None = None  # Neighbours are counted within it; None: the usual distance.
    # Thresholds that give the classes.
    markers: tuple[Marker, ...] = Field(default=(), max_length=MOST_MARKERS)
    methods: tuple[str, ...] = ()  # How the thresholds came about, a marker each.
    hotspot: HotSpot | None = None  # Where most cells of a kind lie together is looked for.
    chamber: Chamber | None = None  # The picture is of a counting chamber: cells per mL are told.
    taught: TaughtClasses | None = None  # Clicked cells that give the classes.

    @classmethod
    def of(cls, result: Result) -> Self:
        """The recipe that a result was derived by."""
        path = result.file(RECIPE)
        try:
            return validated(cls, read_json(path), path)
        except InputError as error:
            raise InputError(f"{error}; {AGAIN}", hint="overwrite") from error

    def checked(self, frame: Frame) -> Self:
        """The recipe, once its distances were found to fit a slide; else a SettingsError."""
        if self.expand is not None:
            lattice_distance(self.expand, frame)
        if self.spatial:
            near_within(self.within, frame.mpp)
        self.refuse_without(frame.mpp)
        return self

    def refuse_without(self, mpp: float | None) -> None:
        """Raise a SettingsError if there is no pixel size, and something cannot do without."""
        if self.hotspot is not None and self.hotspot.cells is None and mpp is None:
            raise SettingsError(
                "without a pixel size a hot spot is a number of cells, as 30cells, not mm²",
                hint="hotspot,mpp",
            )
        if self.chamber is not None and mpp is None:
            raise SettingsError("cells per mL need the picture's pixel size", hint="mpp")


def lattice_distance(by: float, frame: Frame) -> float:
    """The distance by which nuclei grow, from µm (px without a pixel size) to lattice pixels.

    A SettingsError if it is not above 0, less than a pixel of the masks, or too large.
    """
    unit, most = ("px", MOST_PX) if frame.mpp is None else ("µm", MOST_UM)
    if not (math.isfinite(by) and 0 < by <= most):
        raise SettingsError(f"cells can grow by more than 0 and up to {most:g} {unit}, got {by:g}")
    pixel = frame.downsample * (frame.mpp or 1)
    if not 1 <= by / pixel <= _MOST_LATTICE_PX:
        raise SettingsError(
            f"{by:g} {unit} is {by / pixel:,.3g} pixels of the masks, expected 1 to "
            f"{_MOST_LATTICE_PX}; is the pixel size right?"
        )
    return by / pixel


def near_within(within: int | None, mpp: float | None) -> int | None:
    """The distance within which neighbours are counted, µm (px); None: they are not.

    ``within`` is None for the usual distance, which only µm have. A SettingsError if it is not
    above 0, or too large.
    """
    unit = "px" if mpp is None else "µm"
    if within is None:
        return None if mpp is None else NEAR_UM
    if not 0 < within <= MOST_NEAR[unit]:
        raise SettingsError(
            f"neighbours are counted within 1 to {MOST_NEAR[unit]} {unit}, got {within}"
        )
    return within
