"""Outlines of COCO annotations to masks inside their own box, and back.

Files come from anywhere, so run lengths are decoded here, with every length checked, and
nothing is ever unpacked to the size of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from cellseg.geometry import box_of

LEEWAY_PX = 5.0
"""A polygon's points may lie so far outside the image; they are drawn to its edge."""

Outline = tuple[tuple[int, int, int, int], NDArray[np.bool_]]
"""Tight box (y0, x0, y1, x1), half-open, and the mask in it."""


def outline_of(segmentation: object, extent: tuple[int, int]) -> Outline:
    """Decode one annotation's ``segmentation``.

    Parameters
    ----------
    segmentation : object
        A list of polygons (x, y, x, y, …), or a dict of run lengths: ``size`` and
        ``counts``, a list or COCO's compressed string.
    extent : (int, int)
        Height and width of the image, pixels.

    Returns
    -------
    box : (int, int, int, int)
    mask : ndarray, bool

    Raises
    ------
    ValueError
        With what is wrong, for a person.
    """
    if isinstance(segmentation, dict):
        counts = _counts_of(segmentation, extent)
    elif isinstance(segmentation, list) and segmentation:
        counts = _drawn(segmentation, extent)
    else:
        raise ValueError("has no outline: masks or polygons are needed")
    return _unpacked(counts, extent)


def filled(bbox: object, extent: tuple[int, int]) -> Outline:
    """The mask that fills a COCO ``bbox`` (x, y, width, height), cut at the image's edge.

    Raises
    ------
    ValueError
        With what is wrong, for a person.
    """
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(type(v) in (int, float) and abs(v) < 2**40 for v in bbox)
    ):
        raise ValueError("has neither an outline nor a box of four numbers x, y, width, height")
    x, y, width, height = (float(v) for v in bbox)
    top, bottom = (round(min(max(v, 0), extent[0])) for v in (y, y + height))
    left, right = (round(min(max(v, 0), extent[1])) for v in (x, x + width))
    if bottom <= top or right <= left:
        raise ValueError("has a box without pixels in the image")
    return (top, left, bottom, right), np.ones((bottom - top, right - left), dtype=bool)


def _counts_of(segmentation: dict[str, object], extent: tuple[int, int]) -> NDArray[np.int64]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(extent):
        raise ValueError(f"has run lengths for size {size}, the image has {list(extent)}")
    if isinstance(counts, str | bytes):
        raw = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
        return _decompressed(raw)
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


def _drawn(polygons: list[object], extent: tuple[int, int]) -> NDArray[np.int64]:
    height, width = extent
    parts = []
    for polygon in polygons:
        if (
            not isinstance(polygon, list)
            or len(polygon) < 6
            or len(polygon) % 2
            or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in polygon)
        ):
            raise ValueError("has a polygon that is not at least three points x, y, x, y, …")
        try:
            points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
        except OverflowError as error:
            raise ValueError("has a polygon with points that lie on no image") from error
        if not np.isfinite(points).all():
            raise ValueError("has a polygon with points that are no numbers")
        beyond = float(max(-points.min(), (points - [width, height]).max()))
        if beyond > LEEWAY_PX:
            raise ValueError(f"has a polygon that leaves the image by {beyond:.0f} px")
        parts.append(np.clip(points, 0, [width, height]).ravel().tolist())
    code = rle.merge(rle.frPyObjects(parts, height, width))
    return _decompressed(code["counts"])


def _unpacked(counts: NDArray[np.int64], extent: tuple[int, int]) -> Outline:
    """Runs of 0, 1, 0, … down the columns, to a tight box and its mask."""
    height, width = extent
    if (counts < 0).any() or int(counts.sum()) != height * width:
        raise ValueError(f"has run lengths that do not add up to {height} × {width} px")
    ends = np.cumsum(counts)
    starts = ends - counts
    ones = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    if not ones.any():
        raise ValueError("has an empty mask")
    first, last = int(starts[ones][0]) // height, int(ends[ones][-1] - 1) // height
    edge = np.zeros((last - first + 1) * height + 1, dtype=np.int8)
    np.add.at(edge, starts[ones] - first * height, 1)
    np.add.at(edge, ends[ones] - first * height, -1)
    strip = np.cumsum(edge[:-1], dtype=np.int8).astype(bool).reshape(-1, height).T
    box = box_of(strip)
    assert box is not None
    return box.shifted(0, first).corners, np.ascontiguousarray(strip[box.pixels])
