"""Finished results out of cells that a test names, without a slide or a network."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from synthetic import PyramidLayout, draw_discs, write_pyramid
from synthetic.threshold import ThresholdDetector

from cellseg.api import Cells
from cellseg.counting.request import CountRequest
from cellseg.derive import Recipe, derive
from cellseg.errors import Notice
from cellseg.events import CountResult, TileDone
from cellseg.geometry import Frame
from cellseg.network.detector import Detections
from cellseg.protocol import load_protocol
from cellseg.result import ResultFolder, publish
from cellseg.result.folder import Findings
from cellseg.run import change, run
from cellseg.table import columns, measure

DISCS = load_protocol("he").changed(mpp=0.5, min_area_um2=0.0, tile_px=128, largest_cell_um=20.0)
"""Every disc that :func:`synthetic.draw_discs` draws is a cell of it."""


def left_by(folder, findings, *, overview=False):
    """Finish a folder to which the cells were added; what the record says of itself stays."""

    def complete(change):
        derive(change, Recipe())
        change.run["summary"] |= findings.record.get("summary", {})
        kept = ("doubts", "warnings", "seconds")
        change.run |= {name: findings.record[name] for name in kept if name in findings.record}
        if overview:
            Image.new("RGB", (9, 9)).save(change.path("overview.png"))

    return folder.finish(findings, complete)


def frame_of(height, width, *, downsample=1.0, mpp=None):
    """A slide of level-0 pixels, and the lattice that covers it."""
    return Frame(
        height=height,
        width=width,
        lattice_height=int(np.ceil(height / downsample - 1e-6)),
        lattice_width=int(np.ceil(width / downsample - 1e-6)),
        downsample=downsample,
        mpp=mpp,
    )


def measured(
    path, instances, frame, classes, *, channels=(), tissue_mm2=None, is_complete=True, **record
):
    """A finished result of masks that are measured on black; ``record`` goes into run.json."""
    black = np.zeros((frame.lattice_height, frame.lattice_width, len(channels)), np.uint8)
    table = measure(instances, black, (0, 0), frame=frame, channels=channels, stain="he")
    findings = Findings(
        frame=frame,
        columns=columns(channels, stain="he", has_mpp=frame.mpp is not None),
        class_names=classes,
        object_name="nucleus",
        image_name=Path(record.get("image", {"path": ""})["path"]).name,
        facts={"tissue_mm2": tissue_mm2},
        record={"protocol": {"stain": "he"}, **record},
        is_complete=is_complete,
    )
    with ResultFolder.open(path, key=str(path)) as folder:
        if len(instances):
            lying = dict.fromkeys(("touches_border", "stitched"), np.zeros(len(instances), bool))
            folder.journal.add_cells(table | lying, instances)
        return left_by(folder, findings)


IHC = load_protocol("ihc").changed(mpp=1.0, min_area_um2=0.0, tile_px=128, largest_cell_um=40.0)


def brown_discs(path, shape=(700, 900), mpp=0.5):
    """A slide for :data:`IHC`: discs, every fifth of them brown."""
    drawn = draw_discs(shape, np.random.default_rng(7))
    image = drawn.image.copy()
    image[(drawn.labels > 0) & (drawn.labels % 5 == 0)] = (120, 80, 50)
    write_pyramid(path, image, layout=PyramidLayout(mpp=mpp, tile_px=128))
    return path


def copied(counted, home, name=None, *, slide=True):
    """A finished result and its slide in another folder, where both may be changed."""
    image = counted.with_suffix(".tif")
    if slide:
        shutil.copy(image, home)
    copy = shutil.copytree(counted, home / (name or counted.name))
    about = json.loads((copy / "run.json").read_text())["image"]
    edit(copy, image=about | {"path": image.name})
    return copy


def edit(folder, **changes):
    """Change a result's record."""
    record = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(record))


class BySize(ThresholdDetector):
    """Cells from an area on, lattice pixels, are of the first class, smaller ones of the second."""

    def __init__(self, area_px, classes):
        super().__init__()
        self.area_px = area_px
        self.info = replace(self.info, classes=classes)

    def detect(self, tile, *, fill, near=None):
        found = super().detect(tile, fill=fill).instances
        return Detections(replace(found, classes=(found.areas < self.area_px).astype(np.int64)))


def request_for(path, **settings):
    """A count of drawn discs, without a prefilter unless said otherwise."""
    return CountRequest(**{"image": path, "protocol": DISCS, "prefilter": False, **settings})


def counted(request, detector=None):
    """The end of a count, by threshold unless said otherwise, and all of its events."""
    events = list(run(request, detector=detector or ThresholdDetector()))
    assert isinstance(events[-1], CountResult)
    return events[-1], events


def begun(request, tiles):
    """The events that are left of a count by threshold, once so many tiles are done."""
    events = run(request, detector=ThresholdDetector())
    next(one for one in events if isinstance(one, TileDone) and one.done == tiles)
    return events


def told(events):
    """What a person was told while something was counted."""
    return [str(event) for event in events if isinstance(event, Notice)]


def counted_folder(path, protocol, detector=None, **settings):
    """The result of a count by threshold, without a prefilter; with fields of the recipe too."""
    recipe = Recipe(**{name: settings.pop(name) for name in Recipe.model_fields.keys() & settings})
    request = CountRequest(
        image=path, protocol=protocol, prefilter=False, recipe=recipe, **settings
    )
    return counted(request, detector)[0].folder


def changed_file(result):
    """The name of a file that is not as it was published; None where all are."""
    return publish.changed(result.path, result.run)


def changed(folder, **decisions):
    """A result that was derived anew, and what a person was told."""
    notes: list[Notice] = []
    return change(folder, on_notice=notes.append, **decisions), [*map(str, notes)]


def table_of(event):
    """The table that a count left, on a disk or behind a URL."""
    return Cells(event.summary, event.folder, event.uploaded).table
