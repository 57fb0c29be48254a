"""One result as the page shows it: its slide, its masks, its table, as corrected."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import shapely
import simplejpeg
from numpy.typing import NDArray

from cellseg.annotations.masks import contours
from cellseg.annotations.region import Region, Regions
from cellseg.derive.corrections import Corrections, PatchedPyramid
from cellseg.derive.corrections.cells import CorrectedCells
from cellseg.derive.derive import totals_in
from cellseg.derive.places import drawn_regions, keep_drawn, marked
from cellseg.errors import CellsegError, InputError, SettingsError
from cellseg.geometry import Box
from cellseg.palette import as_hex
from cellseg.result import Ground, class_codes, load_result
from cellseg.result.labels import FAULT_COLOURS
from cellseg.result.publish import CORRECTIONS, DRAWN, OVERVIEW, RUN
from cellseg.serve.tiles import enlarged, is_coarse, is_costly, mask_tile, whole_slide
from cellseg.slide import ChunkCache
from cellseg.stain.quality import NAMES, UNIT_PX
from cellseg.storage import Location
from cellseg.table.summary import told
from cellseg.text import visible

TILE_PX = 256
QUALITY = 88

FARTHEST_PX = 1024
"""The coarsest view: the slide's longer side has no more pixels."""

REACH_PX = 512
"""A cell's outline is looked for so far around the point that was asked about, lattice pixels."""

TILES_BYTES = 16_000_000  # Of finished tiles that are kept.

LINE_POINTS = 20_000
"""Of the borders of regions and tissue; drawn by the page, so simplified to about as many."""

_Made = TypeVar("_Made")


def version_of(folder: Path) -> str:
    """A text that changes when a result does, or its corrections do; only file dates are read."""
    found: list[object] = []
    for name in (RUN, CORRECTIONS):
        with suppress(OSError):
            stat = (folder / name).stat()
            found += [name, stat.st_mtime_ns, stat.st_size, stat.st_ino]
    return f"{abs(hash(tuple(found))):x}"


class OpenResult:
    """A finished result, open; an InputError if it is none.

    ``corrected`` are the cells, with corrections that were not saved as a result of their own.
    ``ground`` is the slide, None where it is gone. ``notes`` are faults for a person to know of.
    """

    def __init__(self, folder: Path, image: Location | None = None) -> None:
        self.version = version_of(folder)
        self.result = load_result(folder)
        self.tiles = ChunkCache(TILES_BYTES)
        self.notes: list[str] = []
        # The table takes seconds, and masks need not wait for it.
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._made: dict[str, Any] = {}
        self.corrected = self._corrected()
        self.names = self.corrected.classes
        self.colours = self.result.colours(self.names)
        self.ground = self._opened(image)
        if self.ground is not None:
            weakref.finalize(self, self.ground.slide.close)

    def _opened(self, image: Location | None) -> Ground | None:
        slide = None
        try:
            slide = self.result.slide(image)
            ground = self.result.ground(slide)
        except CellsegError as error:
            if slide is not None:
                slide.close()
            self.notes.append(f"{error}; the masks are shown without it")
            return None
        if is_coarse(slide):
            afar = "what overview.png has" if self.result.file(OVERVIEW).exists() else "nothing"
            self.notes.append(f"the slide has no pyramid: from afar {afar} is shown of it")
        return ground

    def _corrected(self) -> CorrectedCells:
        is_saved = "corrected_from" in self.result.run
        try:
            if (self.result.path / CORRECTIONS).is_file() and not is_saved:
                found = Corrections(self.result)
                if count := len(found.edits):
                    self.notes.append(f"shown with {count:,} corrections that were made by hand")
                    return found
        except CellsegError as error:
            self.notes.append(f"{error}; shown as counted")
        return CorrectedCells(self.result, self.result.class_names)

    def _once(self, name: str, make: Callable[[], _Made]) -> _Made:
        """What is made when it is first asked for, and waited for by whoever else asks."""
        with self._locks[name]:
            if name not in self._made:
                self._made[name] = make()
            return cast("_Made", self._made[name])

    @property
    def cells(self) -> pd.DataFrame:
        """All cells, by place; read once, which takes seconds for a million.

        ``y`` and ``x`` of the centroids (level-0 pixels, pixel centres at integers), ascending by
        ``y``; ``area`` in µm², or in px² without pixel size; ``class``, an index into ``names``;
        ``label``.
        """
        return self._once("cells", self._cells)

    def _cells(self) -> pd.DataFrame:
        area = "area_px" if self.result.frame.mpp is None else "area_um2"
        columns = {"centroid_y_px": "y", "centroid_x_px": "x", area: "area"}
        table = self.corrected.table(["label", "class", *columns]).rename(columns=columns)
        table["class"] = class_codes(table["class"], self.names)
        kinds = {"y": np.float64, "x": np.float64, "area": np.float32, "class": np.int32}
        return table.astype(kinds).sort_values("y", kind="stable", ignore_index=True)

    def of_label(self) -> NDArray[np.uint16] | None:
        """By label: 0 where there is no such cell, else its class's index plus 1.

        None of one class alone.
        """
        return self._once("of_label", self._class_of_label) if self._needs_cells else None

    def _class_of_label(self) -> NDArray[np.uint16]:
        cells = self.cells
        found = np.zeros(cells["label"].max() + 1 if len(cells) else 1, np.uint16)
        found[cells["label"]] = cells["class"] + 1
        return found

    @property
    def _needs_cells(self) -> bool:
        """Whether outlines have to wait for the table: their colours are of several classes."""
        return len(self.names) != 1 or bool(self.corrected.touched)

    def counts(self) -> dict[str, Any]:
        numbers = np.bincount(self.cells["class"], minlength=len(self.names))
        return {"cells": len(self.cells), "per_class": numbers.tolist()}

    def counts_in(self, wanted: Box) -> dict[str, Any]:
        """Cells whose centroid lies in a rectangle, level-0 pixels, which ends at the slide's edge.

        ``area`` is in mm², or in megapixels without pixel size; ``density`` and
        ``density_per_class`` are by it.
        """
        frame, cells = self.result.frame, self.cells
        box = wanted.intersection(Box(0, 0, frame.height, frame.width))
        first, last = np.searchsorted(cells["y"], (box.y0 - 0.5, box.y1 - 0.5))
        rows = cells[first:last]
        rows = rows[(rows["x"] >= box.x0 - 0.5) & (rows["x"] < box.x1 - 0.5)]
        counts = np.bincount(rows["class"], minlength=len(self.names)).tolist()
        area = box.area / 1e6 * (1.0 if frame.mpp is None else frame.mpp**2)
        return {
            "box": box.corners,
            "area": area,
            "cells": len(rows),
            "per_class": counts,
            "density": len(rows) / area if area else None,
            "density_per_class": [count / area if area else None for count in counts],
            "median_area": float(rows["area"].median()) if len(rows) else None,
        }

    def about(self) -> dict[str, Any]:
        """What the page says and needs before any tile."""
        result, frame = self.result, self.result.frame
        known = not self.corrected.touched
        counted: dict[str, int] = {}
        with suppress(InputError):
            counted = result.summary.cells_per_class if known else {}
        failed = [] if result.is_complete else ["the count is not complete: some tiles failed"]
        notes = [*self.notes, *failed, *result.doubts, *result.warnings]
        return {
            "version": self.version,
            "token": result.token,
            "name": visible(result.path.name),
            "image": result.image_name,
            "object": visible(result.object_name),
            "height": frame.height,
            "width": frame.width,
            "mpp": frame.mpp,
            "tile": TILE_PX,
            "halvings": self._halvings,
            "slide": self.ground is not None,
            "dark": self.ground is not None and self.ground.is_dark,
            "classes": [
                {"name": visible(name), "colour": as_hex(colour), "cells": counted.get(name)}
                for name, colour in zip(self.names, self.colours, strict=True)
            ],
            "grown": known and result.is_expanded,
            "outlined": "cells" in self._made or not self._needs_cells,
            "corrected": "corrected_from" in result.run or not known,
            "notes": list(dict.fromkeys(map(visible, notes))),
            "lines": self._lines(),
            "quality": self.quality,
        }

    @cached_property
    def quality(self) -> dict[str, Any] | None:
        """Size, level-0 px, of the picture of what is wrong with the slide, and its colours.

        None where nothing is wrong.
        """
        codes = self.result.quality()
        if codes is None or not (faults := sorted({*np.unique(codes).tolist()} & {*FAULT_COLOURS})):
            return None
        side = UNIT_PX * self.result.frame.downsample
        return {
            "height": codes.shape[0] * side,
            "width": codes.shape[1] * side,
            "faults": [
                {"name": NAMES[one], "colour": as_hex(FAULT_COLOURS[one])} for one in faults
            ],
        }

    def _lines(self) -> list[dict[str, Any]]:
        """Borders of the regions that were counted in, and of the tissue; (x, y), level-0 px."""
        found = [("region", region) for region in marked(self.result) or ()]
        if (tissue := self.result.tissue()) is not None:
            found.append(("tissue", tissue))
        return [
            {"kind": kind, "name": region.name, "rings": self._rings(region, len(found))}
            for kind, region in found[: LINE_POINTS // 4]
        ]

    def _rings(self, region: Region, among: int) -> list[list[list[float]]]:
        frame = self.result.frame
        whole = shapely.clip_by_rect(region.shape, 0, 0, frame.width, frame.height)
        shape, step = whole, max(frame.height, frame.width) / 8192
        while shapely.get_num_coordinates(shape) > LINE_POINTS // among and step < 1e9:
            shape, step = shapely.simplify(whole, step), 2 * step
        return [
            np.round(shapely.get_coordinates(ring), 1).tolist()
            for ring in shapely.get_rings(shapely.get_parts(shape))
            if not ring.is_empty
        ]

    def regions(self) -> dict[str, Any]:
        """Regions that people drew, as GeoJSON, and their totals, from the table as it is.

        ``tag`` names the file as it was read: whoever keeps others says which they saw.
        """
        with self._locks["regions"]:
            return self._told_regions(drawn_regions(self.result))

    def keep_regions(self, content: bytes, tag: str) -> dict[str, Any]:
        """Put regions in place of those that a page saw; refused where there are others by now."""
        with self._locks["regions"]:
            if tag != self._tag():
                raise SettingsError("the regions were changed by another page; load this one anew")
            return self._told_regions(keep_drawn(self.result, content))

    def _tag(self) -> str:
        path = self.result.file(DRAWN)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""

    def _told_regions(self, drawn: Regions | None) -> dict[str, Any]:
        if drawn is None:
            return {"tag": self._tag(), "geojson": {"features": []}, "totals": []}
        summary = totals_in(self.result, drawn)
        totals = [
            {
                "name": region.name,
                "said": region.said(summary.object),
                "cells": region.cells,
                "density": region.density_per_mm2,
                "index": {
                    marker["name"]: marker["regions"][region.name]["index"]
                    for marker in summary.labelling
                    if region.name in marker["regions"]
                },
            }
            for region in summary.regions
        ]
        return {"tag": self._tag(), "geojson": drawn.as_geojson(), "totals": totals}

    @property
    def _halvings(self) -> int:
        """How often the slide is halved until all of it is :data:`FARTHEST_PX` long."""
        frame = self.result.frame
        return max(0, math.ceil(math.log2(max(frame.height, frame.width) / FARTHEST_PX)))

    def box_of(self, halvings: int, row: int, column: int) -> Box | None:
        """Of a tile, on the lattice of 2**halvings; None where there is no such tile."""
        if halvings > self._halvings:
            return None
        step, frame = 2**halvings, self.result.frame
        extent = Box(0, 0, -(-frame.height // step), -(-frame.width // step))
        tile = Box(0, 0, TILE_PX, TILE_PX).shifted(row * TILE_PX, column * TILE_PX)
        return tile.intersection(extent) if tile.intersection(extent).area else None

    def slide_tile(self, box: Box, halvings: int) -> bytes:
        """JPEG."""
        ground, pixel = self.ground, 2.0**halvings
        assert ground is not None
        if is_costly(box.shape, pixel, ground.slide.levels):
            whole = self._once("whole", lambda: whole_slide(self.result, ground))
            pixels = enlarged(whole, self.result.frame, box, pixel)
        else:
            pixels = ground.read(box, pixel)
        pixels = np.ascontiguousarray(pixels)
        return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="444"))

    def mask_tile(self, box: Box, halvings: int, shown: NDArray[np.bool_], of: str) -> bytes:
        """PNG with the outlines of the classes that are ``shown``."""
        diameter_px = 24.0 * self.result.frame.downsample
        with suppress(InputError, LookupError):
            if (areas := self.result.summary.area_px) is not None:
                diameter_px = max(1.0, math.sqrt(areas.median))
        return mask_tile(
            self._pyramid(of).levels,
            self.result.frame,
            box,
            2.0**halvings,
            of_label=self.of_label(),
            shown=shown,
            colours=self.colours,
            diameter_px=diameter_px,
        )

    def _pyramid(self, of: str) -> PatchedPyramid:
        """The masks of nuclei, or of cells around them; a ValueError of anything else."""
        if of == "nuclei":
            return self.corrected.pyramid
        if of != "cells":
            raise ValueError(f"no masks are called {of!r}")
        return self._once("around", lambda: PatchedPyramid(self.result.labels("cells")))

    def cell_at(self, y: float, x: float, of: str) -> dict[str, Any] | None:
        """The cell at a point, level-0 px, 0 at the slide's corner; None where there is none."""
        step = self.result.frame.downsample
        row, column = int(y // step), int(x // step)
        pyramid = self._pyramid(of)
        label = pyramid.label_at(row, column)
        if not label:
            return None
        point = Box(row, column, row + 1, column + 1)
        found = pyramid.mask_of(label, point.widened(REACH_PX))
        assert found is not None
        values = self.corrected.row(label) if label in self.corrected else pd.Series(dtype=object)
        return {
            "label": label,
            "outline": [np.round(line * step, 2).tolist() for line in contours(*found)],
            "values": [
                [str(name), told(value)]
                for name, value in values.items()
                if name not in ("label", "image")
            ],
        }
