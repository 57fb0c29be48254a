"""``rois.zip``: regions of interest for the ROI manager of ImageJ and Fiji.

One a cell, called ``LABEL-CLASS``, outlined in level-0 pixels, coloured and grouped by class; the
class, and the regions that hold it, stand in its properties. Those with holes or of several parts
are composite.
"""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import shapely
from numpy.typing import NDArray
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from cellseg.export._cells import outlined
from cellseg.result.result import Result
from cellseg.table import REGION
from cellseg.text import visible

_OUTSIDE_NAMES = re.compile(r"[^\w .+-]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
"""Two characters each in ImageJ's files, which count them as one."""

_LONGEST_NAME = 60
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0


def write(result: Result, path: Path) -> None:
    """Write the cells of a result."""
    names, palette = result.class_names, result.colours(result.class_names)
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=4) as archive:
        for _, cells in outlined(result):
            for label, code, region, outline in cells:
                shown = _ASTRAL.sub("_", visible(names[code]))
                roi = _roi(outline)
                roi.name = f"{label:07d}-{_OUTSIDE_NAMES.sub('_', shown)[:_LONGEST_NAME]}"
                roi.properties = {"class": shown}
                if region:
                    roi.properties[REGION] = _ASTRAL.sub("_", visible(region))
                roi.group = code % 255 + 1
                roi.stroke_color = bytes((255, *palette[code]))
                entry = ZipInfo(f"{roi.name}.roi")
                entry.compress_type = ZIP_DEFLATED
                archive.writestr(entry, roi.tobytes())


def _roi(outline: shapely.MultiPolygon) -> ImagejRoi:
    """A polygon, or a composite of all rings: ImageJ fills them by the even-odd rule."""
    parts = shapely.get_rings(shapely.get_parts(outline))
    rings = [shapely.get_coordinates(ring)[:-1] for ring in parts]
    roi = ImagejRoi.frompoints(rings[0].astype(np.float32))
    roi.roitype = ROI_TYPE.POLYGON
    if len(rings) == 1:
        return roi
    left, top, right, bottom = outline.bounds
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        options=roi.options & ~ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
        left=int(left),
        top=int(top),
        right=int(np.ceil(right)),
        bottom=int(np.ceil(bottom)),
        multi_coordinates=(path := _path(rings)),
        shape_roi_size=len(path),
    )


def _path(rings: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Steps of a pen: move, lines, close; for each ring."""
    steps: list[NDArray[np.float64]] = []
    for ring in rings:
        commands = np.insert(ring, 0, _LINE, axis=1)
        commands[0, 0] = _MOVE
        steps += [commands.ravel(), np.array([_CLOSE])]
    return np.concatenate(steps).astype(np.float32)
