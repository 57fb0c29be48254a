"""What corrections leave: a result beside the automatic one, and data to train on (COCO JSON)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely

from cellseg import __version__
from cellseg.annotations.coco import modality_of, write_coco, write_pixels
from cellseg.annotations.masks import annotation
from cellseg.derive.corrections.cells import instances_of
from cellseg.derive.corrections.session import Corrections
from cellseg.derive.derive import BY_HAND
from cellseg.errors import InputError, OutputError, SettingsError, writing
from cellseg.geometry import Box, box_of
from cellseg.result import Change, Result, ResultFolder, load_result
from cellseg.result.files import is_bare_name, is_writable, readable
from cellseg.result.folder import Findings
from cellseg.result.publish import CORRECTIONS, corrected_path
from cellseg.table import Column

_NOT_KEPT = ("expansion", "spatial", "classification", "doubts", "warnings", "seconds")
"""Of the automatic result's record: it is made anew, or does not hold any more."""

WINDOW_PX = 512
"""Side of a window, lattice pixels."""

WHOLE_PX = 1536
"""A field no longer than this goes out in one piece."""

SMALLEST_PX = 9
"""The remains of a cell at a window's edge, below this, are not outlined."""


def write_corrected(
    corrections: Corrections, folder: Path | None, complete: Callable[[Change], None]
) -> Result:
    """Write another ``measured.parquet`` and other masks; :func:`cellseg.run.save` says more.

    ``complete`` gets the change with the corrected cells, and adds what follows from them.
    """
    result = corrections.result
    path = Path(folder) if folder else corrected_path(result.path)
    result.check_current()
    _refuse_other(path, result)
    edits = [edit.summary() for edit in corrections.edits]
    key = {"corrected": result.token, "corrections": edits}
    classes: list[str] = [str(name) for name in result.section("found")["class_names"]]
    with corrections.saving(), ResultFolder.open(path, key=key) as out:
        if out.already_complete and not is_writable(path):
            said = "is read-only, and holds these corrections already"
            raise OutputError(f"{path}: {said}; allow writing, or take another folder")
        for table, cells in corrections.batches():
            classes += [name for name in table["class"].unique() if name not in classes]
            found = {str(name): values.to_numpy() for name, values in table.items()}
            numbers = [classes.index(name) for name in table["class"]]
            out.journal.add_cells(found, instances_of(cells, numbers))
        result.check_current()
        return out.finish(_findings(result, classes, edits), complete)


def _findings(result: Result, classes: list[str], edits: list[dict[str, object]]) -> Findings:
    """The automatic result's knowledge beside its cells, and who changed what."""
    facts = dict(result.section("found"))
    # The interval and what was counted beside the cells hold for the automatic count alone.
    facts |= {"types": facts["class_names"], "interval": None, "counted": {}}
    record = {name: value for name, value in result.run.items() if name not in _NOT_KEPT}
    origin = {"folder": readable(result.path.name), "result": result.token, "log": CORRECTIONS}
    record |= {
        "cellseg": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "corrected_from": origin,
        "corrections": edits,
    }
    tissue = result.tissue()
    return Findings(
        frame=result.frame,
        columns=[*result.columns_found, Column(BY_HAND, "", "bool", "A person gave the class.")],
        class_names=classes,
        object_name=result.object_name,
        image_name=result.file_name,
        facts=facts,
        record=record,
        tissue=None if tissue is None else shapely.geometry.mapping(tissue.shape),
        regions=result.regions(),
        quality=result.quality(),
        is_complete=result.is_complete,
    )


def _refuse_other(path: Path, result: Result) -> None:
    """Never write over an automatic result, nor over another slide's."""
    if path.resolve() == result.path.resolve():
        raise OutputError(f"{path}: is the automatic result; take another folder")
    try:
        there = load_result(path)
    except InputError:
        return
    image = there.section("image").get("path")
    is_corrected = bool(there.section("corrected_from"))
    if not is_corrected or image != result.section("image").get("path"):
        raise OutputError(f"{path}: holds another result; take another folder")


def export_training(
    corrections: Corrections, folder: str | Path, *, regions: Sequence[Box] | None = None
) -> Path:
    """Write corrected cells as COCO JSON with its images, to train on; returns the JSON's path.

    Every cell in a window goes out, corrected or not: what stands there is taken as right. So
    look at a whole window before you let it out, or name ``regions`` that you looked at, lattice
    pixels. Without these a small field goes out whole, and of a large slide the windows of 512 px
    that hold an edit. The folder is made where it is missing; it gets ``annotations.json`` and
    ``images/``.

    A SettingsError if there is nothing to write; an InputError if the slide is gone or does not
    decode there. An OutputError if it cannot be written, or the folder holds annotations already.
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
    shared: dict[str, object] = {"modality": modality_of(stain)}
    if result.frame.lattice_mpp is not None:
        shared["mpp"] = result.frame.lattice_mpp
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
            rows += [{"image_id": number, **one} for one in _annotations(corrections, window)]
        said = f"{result.path.name}, corrected by hand"
        classes = corrections.classes or ["cell"]
        write_coco(path, images, rows, classes, description=said, object=result.object_name)
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
