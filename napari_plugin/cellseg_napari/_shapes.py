"""Drawn shapes as regions of a slide, and as lines in the world."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Region
from cellseg.errors import SettingsError
from cellseg_napari._opened import ROLE, camera_of, canvas_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Shapes

Numbers = float | NDArray[np.float64]

_ELLIPSE_POINTS = 64

_UNNAMED = re.compile(r"Shapes( \[\d+\])?")
"""What napari calls a layer that nobody named."""


def drawn_layers(viewer: ViewerModel) -> list[Shapes]:
    """The shapes layers that a person drew."""
    from napari.layers import Shapes

    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Shapes) and not layer.metadata.get(ROLE)
    ]


def drawn_in(shapes: Shapes | None, pixel: Numbers = 1.0, origin: Numbers = 0.0) -> list[Region]:
    """What polygons, rectangles and ellipses of a layer enclose, level-0 pixels.

    A pixel is ``pixel`` wide in the world, the centre of the first one at ``origin``. Name and
    class are from the columns ``name`` and ``class`` of the layer's features; without a name the
    layer's, if a person gave it one. Regions may share a name; what encloses nothing is left out.
    """
    if shapes is None:
        return []
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
        outline = (_in_world(shapes, points) - origin) / pixel
        name, kind = (_feature(shapes, column, number) for column in ("name", "class"))
        with suppress(SettingsError):
            found.append(Region.of([outline], name=name or layer, kind=kind))
    return found


def in_sight(viewer: ViewerModel, layer: Layer, pixel: Numbers, origin: Numbers) -> Region:
    """What of a layer the canvas shows, level-0 pixels; ``pixel`` and ``origin`` as above."""
    centre, half = camera_of(viewer).center[-2:], canvas_of(viewer) / camera_of(viewer).zoom / 2
    low, high = np.clip([centre - half, centre + half], *layer.extent.world[:, -2:])
    if (high <= low).any():
        raise SettingsError("the image is out of sight: move it into view first")
    return Region.box(*((low - origin) / pixel), *((high - origin) / pixel), name="view")


def lines_in(shapes: Shapes | None) -> list[NDArray[np.float64]]:
    """Lines and paths of a layer, world (y, x), the newest first."""
    if shapes is None:
        return []
    each = zip(shapes.data, shapes.shape_type, strict=True)
    return [_in_world(shapes, data) for data, shape in each if shape in ("line", "path")][::-1]


def _in_world(shapes: Shapes, points: Any) -> NDArray[np.float64]:  # noqa: ANN401 - as napari has it
    return np.array([shapes.data_to_world(tuple(point))[-2:] for point in points])


def _feature(shapes: Shapes, column: str, number: int) -> str:
    """A text of the features; empty where there is none, which napari may have as a text."""
    text = str(shapes.features[column].iloc[number]).strip() if column in shapes.features else ""
    return "" if text in ("nan", "None", "<NA>") else text
