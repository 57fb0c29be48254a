"""Drawn shapes as outlines in the world."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Shapes

_ELLIPSE_POINTS = 64


def world_outlines(shapes: Shapes) -> list[NDArray[np.float64]]:
    """The shapes that have an area, each (N, 2) world (y, x)."""
    return [outline for _, outline in named_outlines(shapes)]


def named_outlines(shapes: Shapes) -> list[tuple[str, NDArray[np.float64]]]:
    """The same with their names: from the column ``name`` of the layer's features, else its own.

    Shapes of one layer may have one name; whoever needs to tell them apart numbers them.
    """
    given = shapes.features.get("name")
    found = []
    for number, (corners, kind) in enumerate(zip(shapes.data, shapes.shape_type, strict=True)):
        points = np.asarray(corners, np.float64)[:, -2:]
        if kind == "ellipse":
            middle = points.mean(axis=0)
            first, second = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
            turn = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
            points = middle + np.cos(turn) * first + np.sin(turn) * second
        elif kind not in ("polygon", "rectangle"):
            continue
        own = "" if given is None else str(given.iloc[number]).strip()
        name = own if own and own != "nan" else shapes.name
        outline = np.array([shapes.data_to_world(tuple(point))[-2:] for point in points])
        found.append((name, outline))
    return found
