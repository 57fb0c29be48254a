"""Corrected cells as training data: windows of the slide, and COCO JSON that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from cellseg.annotations.coco import write_pixels
from cellseg.annotations.masks import annotation
from cellseg.derive.corrections.session import Corrections
from cellseg.errors import OutputError, SettingsError, writing
from cellseg.geometry import Box, box_of
from cellseg.result.files import is_bare_name

WINDOW_PX = 512
"""Side of a window, lattice pixels."""

WHOLE_PX = 1536
"""A field no longer than this goes out in one piece."""

SMALLEST_PX = 9
"""The remains of a cell at a window's edge, below this, are not outlined."""


def export_training(
    corrections: Corrections, folder: str | Path, *, regions: Sequence[Box] | None = None
) -> Path:
    """Write corrected cells as COCO JSON with its images, to train on; returns the JSON's path.

    Every cell in a window goes out, corrected or not: what stands there is taken as right. So
    look at a whole window before you let it out, or name the regions that you looked at.

    Parameters
    ----------
    folder : path
        Made where it is missing; gets ``annotations.json`` and ``images/``.
    regions : sequence of Box, optional
        Lattice pixels that a person has looked at. Otherwise a small field goes out whole, and
        of a large slide the windows of 512 px that hold an edit.


    Raises
    ------
    SettingsError
        If there is nothing to write.
    InputError
        If the slide is gone or does not decode there.
    OutputError
        If it cannot be written, or the folder holds annotations already.
    """
    windows = _windows(corrections, regions)
    if not windows:
        raise SettingsError("nothing was corrected yet, and no region is named: nothing to export")
    result, home = corrections.result, Path(folder)
    result.check_current()
    path = home / "annotations.json"
    if path.exists():
        raise OutputError(f"{path}: is there already; take another folder, train with both files")
    stain = str(result.section("protocol").get("stain", "unknown"))
    shared: dict[str, object] = {
        "modality": {"he": "histology", "ihc": "histology ihc"}.get(stain, stain)
    }
    if result.frame.mpp is not None:
        shared["mpp"] = result.frame.mpp * result.frame.downsample
    images: list[dict[str, object]] = []
    rows: list[dict[str, object]] = []
    with result.slide() as slide:
        stem = slide.name if is_bare_name(slide.name) else "slide"
        for number, window in enumerate(windows, start=1):
            name = f"{stem}-y{window.y0}-x{window.x0}-{window.height}x{window.width}.tif"
            # What the network saw: one channel, or red, green and blue.
            channels = result.ground(slide).channels[:3]
            pixels = slide.read(window, downsample=result.frame.downsample, channels=channels)
            with writing(home / "images" / name) as temporary:
                write_pixels(temporary, pixels)
            size = {"height": window.height, "width": window.width}
            images.append({"id": number, "file_name": name, **size, **shared})
            for one in _annotations(corrections, window):
                rows.append({"id": len(rows) + 1, "image_id": number, **one})
        names = enumerate(corrections.classes or ["cell"], start=1)
        data = {
            "info": {
                "description": f"{result.path.name}, corrected by hand",
                "object": result.object_name,
            },
            "images": images,
            "annotations": rows,
            "categories": [{"id": place, "name": name} for place, name in names],
        }
        with writing(path) as temporary:
            temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


def _windows(corrections: Corrections, regions: Sequence[Box] | None) -> list[Box]:
    extent = corrections.pyramid.extent
    if regions is not None:
        inside = [region.intersection(extent) for region in regions]
        return list(dict.fromkeys(part for region in inside for part in _tiled(region)))
    if not corrections.edits:
        return []
    if max(extent.shape) <= WHOLE_PX:
        return [extent]
    changes = [change for edit in corrections.edits for change in edit.changes]
    places = {place for change in changes for place in change.box.chunks(WINDOW_PX, WINDOW_PX)}
    window = Box(0, 0, WINDOW_PX, WINDOW_PX)
    return [
        window.shifted(y * WINDOW_PX, x * WINDOW_PX).intersection(extent) for y, x in sorted(places)
    ]


def _tiled(region: Box) -> list[Box]:
    """A region in equal pieces of at most :data:`WHOLE_PX`."""
    if not region.area:
        return []
    rows, columns = (
        np.linspace(first, last, -(-(last - first) // WHOLE_PX) + 1).astype(int).tolist()
        for first, last in ((region.y0, region.y1), (region.x0, region.x1))
    )
    return [Box(y0, x0, y1, x1) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]


def _annotations(corrections: Corrections, window: Box) -> Iterator[dict[str, object]]:
    labels = corrections.pyramid.levels[0].read(window)
    for label in np.unique(labels[labels > 0]).tolist():
        mask = labels == label
        box = box_of(mask)
        if box is not None and np.count_nonzero(mask) >= SMALLEST_PX:
            place = corrections.classes.index(corrections.cell(label).name) + 1
            yield {"category_id": place, **annotation(box, mask[box.pixels], window.shape)}
