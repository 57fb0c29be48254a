"""Outlines from ImageJ: a ``.roi``, or a ``.zip`` of the ROI manager."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from zipfile import BadZipFile

from cellseg.annotations.drawn import Drawing
from cellseg.errors import InputError, line_of

_DAMAGED = (
    ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError,
    EOFError, struct.error, zlib.error, BadZipFile,
)  # fmt: skip


def read_rois(path: Path) -> Drawing:
    """Areas: polygons, freehand and traced outlines, rectangles, ovals, composites.

    An object's class is its property ``class``, which cellseg's own ``rois.zip`` has, or else
    ``group N`` where it was put into one of ImageJ's groups.

    Raises
    ------
    InputError
        If the file cannot be read, or its objects lie on several planes of a stack.
    """
    from roifile import ROI_TYPE, roiread

    areas = {ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.OVAL}
    found = Drawing()
    planes = set()
    try:
        read = roiread(path)
        for number, roi in enumerate(read if isinstance(read, list) else [read], start=1):
            planes.add((roi.position, roi.c_position, roi.z_position, roi.t_position))
            if roi.roitype not in areas:
                found.left_out["points and lines"] += 1
                continue
            kind = (roi.properties or {}).get("class") or (f"group {roi.group}" * bool(roi.group))
            said = f"ROI {number}" + (f" ({roi.name})" if roi.name else "")
            found.add(roi.coordinates(multi=True), kind=str(kind), name=roi.name, said=said)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: no ROIs of ImageJ: {line_of(error)}") from error
    planes = {plane for plane in planes if any(plane)}
    if len(planes) > 1:
        raise InputError(
            f"{path}: its ROIs lie on {len(planes)} planes of a stack; save those of one plane"
        )
    return found
