"""Drawn shapes as outlines in the world."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellseg_napari._opened import ROLE

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

_ELLIPSE_POINTS = 64

_UNNAMED = re.compile(r"Shapes( \[\d+\])?")
"""What napari calls a layer that nobody named."""


class DrawnShape(NamedTuple):
    """A shape that has an area: its outline, world (y, x), (N, 2).

    Name and kind are from the columns ``name`` and ``class`` of the layer's features; without a
    name the layer's, if a person gave it one. Shapes may share a name.
    """

    outline: NDArray[np.float64]
    name: str
    kind: str


def drawn_layers(viewer: ViewerModel) -> list[Shapes]:
    """The shapes layers that a person drew."""
    from napari.layers import Shapes

    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Shapes) and not layer.metadata.get(ROLE)
    ]


def drawn_in(shapes: Shapes) -> list[DrawnShape]:
    """Polygons, rectangles and ellipses of a layer."""
    layer = "" if _UNNAMED.fullmatch(shapes.name) else shapes.name
    found = []
    for number, (corners, shape) in enumerate(zip(shapes.data, shapes.shape_type, strict=True)):
        points = np.asarray(corners, np.float64)[:, -2:]
        if shape == "ellipse":
            middle = points.mean(axis=0)
            first, second = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
            turn = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
            points = middle + np.cos(turn) * first + np.sin(turn) * second
        elif shape not in ("polygon", "rectangle"):
            continue
        outline = np.array([shapes.data_to_world(tuple(point))[-2:] for point in points])
        name, kind = (_feature(shapes, column, number) for column in ("name", "class"))
        found.append(DrawnShape(outline, name or layer, kind))
    return found


def lines_in(shapes: Shapes) -> list[NDArray[np.float64]]:
    """Lines and paths of a layer, world (y, x), the newest first."""
    return [
        np.array([shapes.data_to_world(tuple(point))[-2:] for point in corners])
        for corners, shape in zip(shapes.data, shapes.shape_type, strict=True)
        if shape in ("line", "path")
    ][::-1]


def _feature(shapes: Shapes, column: str, number: int) -> str:
    """A text of the features; empty where there is none, which napari may have as a text."""
    text = str(shapes.features[column].iloc[number]).strip() if column in shapes.features else ""
    return "" if text in ("nan", "None", "<NA>") else text
