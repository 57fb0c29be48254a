"""Masks inside their own box: from COCO and back, from QuPath's outlines, from ImageJ's ROIs.

Files come from anywhere, so run lengths are decoded here, with every length checked, and
nothing is ever unpacked to the size of the image.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as rle

from cellseg.errors import InputError, input_errors, line_of
from cellseg.geometry import Box, box_of
from cellseg.text import visible

LEEWAY_PX = 5.0
"""A polygon's points may lie so far outside the image; they are drawn to its edge."""

FINER, FINER_PX = 4, 4_000_000
"""Outlines in boxes of up to so many pixels are drawn finer: small ones keep their areas."""

Outline = tuple[Box, NDArray[np.bool_]]
"""A tight box, and the mask in it."""

_SPECIAL = re.compile(r"\s*(region|ignore)\s*\*", re.IGNORECASE)
"""QuPath's classes ``Region*`` and ``Ignore*``; ImageJ numbers names that stand twice."""

_DAMAGED = (
    ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError,
    EOFError, struct.error, zlib.error, BadZipFile,
)  # fmt: skip
MOST_PX = 100_000_000
"""Of the box around one outline; pictures to learn from are no larger."""


def tight(corner: tuple[int, int], inside: NDArray[np.bool_]) -> Outline | None:
    """A mask that begins at ``corner`` without the background around it; None where it is empty."""
    box = box_of(inside)
    return None if box is None else (box.shifted(*corner), inside[box.pixels])


def contours(box: Box, mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around a mask in its box, midway between its pixels and those beyond.

    (N, 2) of (x, y) in pixels, 0 at the corner of the image's first.
    """
    from skimage.measure import find_contours  # late: it is loaded for outlines alone

    found = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    return [line[:, ::-1] + (box.x0 - 0.5, box.y0 - 0.5) for line in found]


def outline_of(segmentation: object, extent: tuple[int, int]) -> Outline:
    """Decode one annotation's ``segmentation``, on an image of (height, width) ``extent``, pixels.

    It is a list of polygons (x, y, x, y, …), or a dict of run lengths: ``size`` and ``counts``, a
    list or COCO's compressed string. ValueError with what is wrong, for a person.
    """
    if isinstance(segmentation, dict):
        return _unpacked(_counts_of(segmentation, extent), extent)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has no outline: masks or polygons are needed")
    parts = [_polygon(points, extent) for points in segmentation]
    code = rle.merge(rle.frPyObjects(parts, *extent))
    return _unpacked(_decompressed(code["counts"]), extent)


def box_outline(bbox: object, extent: tuple[int, int]) -> Outline:
    """The mask that fills a COCO ``bbox`` (x, y, width, height), cut at the image's edge.

    ValueError with what is wrong, for a person.
    """
    if not _are_numbers(bbox) or len(bbox) != 4 or not (np.abs(bbox) < 2.0**40).all():
        raise ValueError("has neither an outline nor a box of four numbers x, y, width, height")
    x, y, width, height = map(float, bbox)
    top, bottom = (round(min(max(v, 0), extent[0])) for v in (y, y + height))
    left, right = (round(min(max(v, 0), extent[1])) for v in (x, x + width))
    if bottom <= top or right <= left:
        raise ValueError("has a box without pixels in the image")
    box = Box(top, left, bottom, right)
    return box, np.ones(box.shape, dtype=bool)


def enclosed_pixels(
    rings: Iterable[NDArray[np.float64]], corner: tuple[int, int], extent: tuple[int, int]
) -> Outline | None:
    """The pixels of which most lies in an odd number of rings; None where none do.

    They are as many as the outline's area. Pixels whose centres lie inside would be more, of
    outlines that were drawn around coarser pixels. Rings, (N, 2), are (x, y) in pixels, 0 at the
    corner of the image's first. What lies beyond ``extent``, (height, width) from ``corner``,
    (y, x), on, is cut off.
    """
    fine = FINER if extent[0] * extent[1] <= FINER_PX else 1
    height, width = extent[0] * fine, extent[1] * fine
    if not height * width:
        return None
    parts = [((ring - corner[::-1]) * fine).ravel().tolist() for ring in rings]
    codes = rle.frPyObjects(parts, height, width)
    # Where an even number of rings turns from outside to inside or back, nothing turns.
    turns, times = np.unique(
        np.concatenate([np.cumsum(_decompressed(code["counts"])) for code in codes]),
        return_counts=True,
    )
    turns = turns[(times % 2 == 1) & (turns < height * width)]
    if not turns.size:
        return None
    box, inside = _unpacked(np.diff(turns, prepend=0, append=height * width), (height, width))
    if fine == 1:
        return box.shifted(*corner), inside
    drawn = np.zeros((height, width), bool)
    drawn[box.pixels] = inside
    parts_inside = drawn.reshape(extent[0], fine, extent[1], fine).sum((1, 3), dtype=np.uint8)
    area = round(float(parts_inside.sum()) / fine**2)
    most = np.argsort(-parts_inside.astype(np.int16), axis=None, kind="stable")[:area]
    mask = np.zeros(extent, bool)
    mask.flat[most] = True
    return tight(corner, mask)


def encoded(box: Box, mask: NDArray[np.bool_], extent: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask inside its box.

    Only the columns that the box spans are written out, so this does not grow with the image.
    """
    height, width = extent
    strip = np.zeros((box.width, height), dtype=bool)
    strip[:, box.y0 : box.y1] = mask.T
    flat = np.concatenate([[False], strip.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + box.x0 * height
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    runs = {"size": [height, width], "counts": counts.tolist()}
    code: dict[str, Any] = rle.frPyObjects(runs, height, width)
    return code


def annotation(box: Box, mask: NDArray[np.bool_], extent: tuple[int, int]) -> dict[str, object]:
    """A mask in its box as a COCO annotation, ready for JSON; no crowd."""
    counts: bytes = encoded(box, mask, extent)["counts"]
    return {
        "segmentation": {"size": list(extent), "counts": counts.decode("ascii")},
        "bbox": [box.x0, box.y0, box.width, box.height],
        "area": int(np.count_nonzero(mask)),
        "iscrowd": 0,
    }


def _are_numbers(given: object) -> TypeGuard[list[float]]:
    return isinstance(given, list) and all(type(value) in (int, float) for value in given)


def _polygon(given: object, extent: tuple[int, int]) -> list[float]:
    """A polygon's points, drawn to the image's edge."""
    if not _are_numbers(given) or len(given) < 6 or len(given) % 2:
        raise ValueError("has a polygon that is not at least three points x, y, x, y, …")
    try:
        points = np.array(given, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise ValueError("has a polygon with points that lie on no image") from error
    if not np.isfinite(points).all():
        raise ValueError("has a polygon with points that are no numbers")
    size = np.array(extent[::-1], np.float64)
    beyond = float(max(-points.min(), (points - size).max()))
    if beyond > LEEWAY_PX:
        raise ValueError(f"has a polygon that leaves the image by {beyond:.0f} px")
    drawn: list[float] = np.clip(points, 0, size).ravel().tolist()
    return drawn


def _counts_of(segmentation: dict[str, object], extent: tuple[int, int]) -> NDArray[np.int64]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(extent):
        raise ValueError(f"has run lengths for size {size}, the image has {list(extent)}")
    if isinstance(counts, str):
        counts = counts.encode("latin-1", "replace")
    if isinstance(counts, bytes):
        return _decompressed(counts)
    if isinstance(counts, list) and all(type(c) is int and 0 <= c < 2**40 for c in counts):
        return np.array(counts, dtype=np.int64)
    raise ValueError("has run lengths that are neither a string nor a list of whole numbers")


def _decompressed(text: bytes) -> NDArray[np.int64]:
    """Run lengths from COCO's string: 5 bits a character, differences from the third on."""
    code = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(code) == 0 or code.min() < 0 or code.max() > 63 or code[-1] & 0x20:
        raise ValueError("has a damaged run-length string")
    last = np.flatnonzero((code & 0x20) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(code)) - np.repeat(first, last - first + 1)
    if place.max() > 7:
        raise ValueError("has a damaged run-length string")
    values = np.add.reduceat((code & 0x1F) << (5 * place), first)
    negative = (code[last] & 0x10) != 0
    values = values - np.where(negative, np.int64(1) << (5 * (last - first + 1)), 0)
    # Each length from the fourth on is stored as the difference to the one two before it.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _unpacked(counts: NDArray[np.int64], extent: tuple[int, int]) -> Outline:
    """Runs of 0, 1, 0, … down the columns, to a tight box and its mask."""
    height, width = extent
    if (counts < 0).any() or int(counts.sum()) != height * width:
        raise ValueError(f"has run lengths that do not add up to {height} × {width} px")
    ends = np.cumsum(counts)
    starts, ends = (ends - counts)[1::2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not starts.size:
        raise ValueError("has an empty mask")
    first, last = int(starts[0]) // height, int(ends[-1] - 1) // height
    edge = np.zeros((last - first + 1) * height + 1, dtype=np.int8)
    np.add.at(edge, starts - first * height, 1)
    np.add.at(edge, ends - first * height, -1)
    strip = np.cumsum(edge[:-1], dtype=np.int8).astype(bool).reshape(-1, height).T
    box = box_of(strip)
    assert box is not None
    return box.shifted(0, first), np.ascontiguousarray(strip[box.pixels])


@dataclass(frozen=True, eq=False)
class Drawn:
    """One outlined object; what lies in an odd number of its rings is inside.

    Rings are those of all parts, (N, 2) each, (x, y) in level-0 pixels, 0 at the corner of the
    first pixel.
    """

    rings: tuple[NDArray[np.float64], ...]
    kind: str  # Its class, empty where it has none.
    said: str  # Which one it is, for messages.
    is_found: bool = False  # By a program, in place of a person.

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

    In ``regions``, of class ``Region*``, everything was outlined, and nowhere else; of what lies in
    ``ignored``, of class ``Ignore*``, nothing is known.
    """

    objects: list[Drawn] = field(default_factory=list)
    regions: list[Drawn] = field(default_factory=list)
    ignored: list[Drawn] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # What is no outline of an object.
    faults: list[str] = field(default_factory=list)  # What is wrong with it, one line each.

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
