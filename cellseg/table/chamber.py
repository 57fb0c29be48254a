"""Counting chambers: from cells on a picture to cells per millilitre.

The volume is the picture's area times the chamber's depth. Of cells that the picture's edge cuts,
those at its upper and left edge count and those at the lower and right edge do not, so that
neighbouring squares share no cell (the two-sides rule).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import gammaincinv
from shapely import MultiPolygon

from cellseg.geometry import Frame

DEPTHS_UM = {
    "neubauer": 100.0, "thoma": 100.0, "burker": 100.0, "makler": 10.0, "malassez": 200.0,
    "fuchs-rosenthal": 200.0, "nageotte": 500.0, "sedgewick-rafter": 1000.0,
}  # fmt: skip
"""Depths of usual chambers, as their makers give them."""

LIVING, DEAD = "living cell", "dead cell"
"""Classes of the model ``cells``."""

_ML_PER_MM3 = 1e-3


class Chamber(BaseModel):
    """The chamber under the picture, and the sample in it.

    ``dilution``: parts that one part of the sample was made up to; 2 for equal parts of sample and
    stain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth_um: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    dilution: float = Field(default=1.0, ge=1, le=1e9, allow_inf_nan=False)

    def counted(
        self, table: pd.DataFrame, frame: Frame, *, counted_in: MultiPolygon | None = None
    ) -> dict[str, Any]:
        """``chamber`` of ``run.json``: cells per mL with their interval, and the viability.

        The table has ``class``, ``type`` (which says what lives) and the box of each cell, level-0
        pixels; the frame has a pixel size. Where cells were counted in regions alone,
        ``counted_in``, level-0 pixels, they are told by centroid, so none is left out.
        """
        is_out = (table["bbox_y1_px"] >= frame.height) | (table["bbox_x1_px"] >= frame.width)
        is_out &= counted_in is None
        classes = table["class"][~is_out]
        area_px = frame.height * frame.width if counted_in is None else float(counted_in.area)
        area_mm2 = area_px * ((frame.mpp or np.nan) / 1000) ** 2
        # In mL, of the sample as it was before the dilution.
        volume = area_mm2 * self.depth_um / 1000 * _ML_PER_MM3 / self.dilution
        found: dict[str, Any] = {
            **self.model_dump(),
            "area_mm2": area_mm2,
            "left_out": int(is_out.sum()),
            "cells": len(classes),
            "per_ml": len(classes) / volume,
            "per_ml_interval": [count / volume for count in poisson_interval(len(classes))],
            "per_ml_per_class": {
                str(name): count / volume for name, count in classes.value_counts().items()
            },
            "viability": None,
        }
        types = table["type"][~is_out]
        living, dead = (int((types == name).sum()) for name in (LIVING, DEAD))
        if living + dead:
            found["viability"] = living / (living + dead)
        return {**found, "said": _told(found, living / volume)}


def poisson_interval(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean (Garwood, Biometrika 28, 1936)."""
    low = float(gammaincinv(count, 0.025)) if count else 0.0
    return low, float(gammaincinv(count + 1, 0.975))


def _told(found: dict[str, Any], living: float) -> str:
    """One line for a lab book."""
    low, high = found["per_ml_interval"]
    said = f"counting chamber: {_power(found['per_ml'])} cells per mL"
    said += f" (95 %: {_power(low)} … {_power(high)})"
    if living:
        said += f", {_power(living)} of them living"
    if (viability := found["viability"]) is not None:
        said += f", viability {100 * viability:.1f} %"
    said += f": {found['cells']:,} cells in {found['area_mm2']:.4g} mm² × {found['depth_um']:g} µm"
    if found["dilution"] != 1:
        said += f", diluted {found['dilution']:g} times"
    if found["left_out"]:
        said += f"; {found['left_out']:,} at the lower and right edge not counted"
    return f"{said}. The interval is of counting alone, not of filling or mixing"


def _power(value: float) -> str:
    """Three digits and a power of ten: ``1.23 × 10⁶``."""
    if not value:
        return "0"
    power = int(np.floor(np.log10(value)))
    digits = f"{value / 10.0**power:.2f}"
    if digits == "10.00":
        digits, power = "1.00", power + 1
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"
