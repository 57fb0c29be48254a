"""Objects that were outlined in another program, QuPath or ImageJ, and the files of ImageJ."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.annotations.masks import LEEWAY_PX, Outline, enclosed_pixels
from cellseg.errors import InputError, input_errors, line_of
from cellseg.text import visible

_SPECIAL = re.compile(r"\s*(region|ignore)\s*\*", re.IGNORECASE)
"""QuPath's classes ``Region*`` and ``Ignore*``; ImageJ numbers names that stand twice."""

_DAMAGED = (
    ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError,
    EOFError, struct.error, zlib.error, BadZipFile,
)  # fmt: skip

MOST_PX = 100_000_000
"""Of the box around one outline; pictures to learn from are no larger."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One outlined object.

    Attributes
    ----------
    rings : tuple of ndarray, float64, (N, 2)
        All rings of all parts, (x, y) in level-0 pixels, 0 at the corner of the first pixel: what
        lies in an odd number of them is inside.
    kind, said : str
        Its class, empty where it has none; which one it is, for messages.
    is_found : bool
        A program found it, in place of a person.
    """

    rings: tuple[NDArray[np.float64], ...]
    kind: str
    said: str
    is_found: bool = False

    def mask(self, extent: tuple[int, int]) -> Outline | None:
        """The pixels of which most lies inside, cut at the image's edge; None where there are none.

        ValueError if it leaves the image, of (H, W) ``extent``, by more than :data:`LEEWAY_PX`, or
        spans too much of it.
        """
        points = np.concatenate(self.rings)
        low, high = points.min(axis=0), points.max(axis=0)
        beyond = float(max(-low.min(), (high - extent[::-1]).max()))
        if beyond > LEEWAY_PX:
            raise ValueError(
                f"leaves the image of {extent[0]} × {extent[1]} px (height × width) by "
                f"{beyond:,.0f} px: is it another image, or are these no pixels of the whole image?"
            )
        x0, y0 = np.clip(np.floor(low), 0, extent[::-1]).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(high), 0, extent[::-1]).astype(int).tolist()
        if (y1 - y0) * (x1 - x0) > MOST_PX:
            raise ValueError(
                f"spans {y1 - y0:,} × {x1 - x0:,} px, more than {MOST_PX / 1e6:,.0f} million: "
                "outline smaller parts"
            )
        return enclosed_pixels(self.rings, (y0, x0), (y1 - y0, x1 - x0))


@dataclass(eq=False)
class Drawing:
    """All that one file holds.

    Attributes
    ----------
    regions : list of Drawn
        Of class ``Region*``: here everything was outlined, and nowhere else.
    ignored : list of Drawn
        Of class ``Ignore*``: nothing is known of what lies here.
    left_out : Counter of str
        What is no outline of an object, and how often.
    faults : list of str
        What is wrong with the file, one line each.
    """

    objects: list[Drawn] = field(default_factory=list)
    regions: list[Drawn] = field(default_factory=list)
    ignored: list[Drawn] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(
        self, rings: Iterable[ArrayLike], *, kind: str, name: str, said: str, is_found: bool = False
    ) -> None:
        """Take one outline; its class, or else its name, may say that it is no object."""
        try:
            checked = tuple(_checked(ring) for ring in rings)
        except (ValueError, TypeError, OverflowError) as error:
            self.faults.append(f"{said}: {line_of(error)}")
            return
        if not checked:
            self.left_out["outlines without points"] += 1
            return
        found = Drawn(checked, visible(kind).strip(), said, is_found)
        special = _SPECIAL.match(kind or name)
        if special is None:
            self.objects.append(found)
        else:
            (self.regions if special[1].lower() == "region" else self.ignored).append(found)


def _checked(ring: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(ring, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 3:
        raise ValueError("an outline needs at least three points x, y")
    if not np.isfinite(points).all():
        raise ValueError("an outline has points that are no numbers")
    return points[:, :2]


def read_rois(path: Path) -> Drawing:
    """Areas: polygons, freehand and traced outlines, rectangles, ovals, composites.

    An object's class is its property ``class``, which cellseg's own ``rois.zip`` has, or else
    ``group N`` where it was put into one of ImageJ's groups.

    InputError if the file cannot be read, or its objects lie on several planes of a stack.
    """
    from roifile import ROI_TYPE, roiread

    areas = {ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.OVAL}
    found = Drawing()
    planes = set()
    with input_errors(path, *_DAMAGED, what="no ROIs of ImageJ"):
        read = roiread(path)
        for number, roi in enumerate(read if isinstance(read, list) else [read], start=1):
            planes.add((roi.position, roi.c_position, roi.z_position, roi.t_position))
            if roi.roitype not in areas:
                found.left_out["points and lines"] += 1
                continue
            kind = (roi.properties or {}).get("class") or (f"group {roi.group}" * bool(roi.group))
            said = f"ROI {number}" + (f" ({roi.name})" if roi.name else "")
            found.add(roi.coordinates(multi=True), kind=str(kind), name=roi.name, said=said)
    planes = {plane for plane in planes if any(plane)}
    if len(planes) > 1:
        raise InputError(
            f"{path}: its ROIs lie on {len(planes)} planes of a stack; save those of one plane"
        )
    return found
