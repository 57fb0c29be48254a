"""One result as the page shows it: its slide, its masks, its table, as corrected."""

from __future__ import annotations

import math
from contextlib import suppress
from threading import Lock
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
import simplejpeg
from numpy.typing import NDArray
from skimage.measure import find_contours

from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections, PatchedPyramid
from cellseg.draw import RGB, as_hex, colours
from cellseg.errors import CellsegError, InputError
from cellseg.geometry import Box
from cellseg.result import Result
from cellseg.result.publish import CORRECTIONS, OVERVIEW
from cellseg.serve._cells import Cells
from cellseg.serve._ground import SlidePicture, coarsest_halving
from cellseg.serve._masks import mask_tile
from cellseg.storage import Location
from cellseg.text import visible

TILE_PX = 256
QUALITY = 88

FARTHEST_PX = 1024
"""The coarsest view: the slide's longer side has no more pixels."""

REACH_PX = 512
"""A cell's outline is looked for so far around the point that was asked about, lattice pixels."""

CHUNKS = 8
"""Of each level of the label image that stay decoded; 4 MB each."""

LINE_POINTS = 20_000
"""Of the borders of regions and tissue; drawn by the page, so simplified to about as many."""

Of = Literal["nuclei", "cells"]


class Shown:
    """A finished result, open.

    Parameters
    ----------
    image : Path or RemotePath, optional
        Where the slide is by now.

    Attributes
    ----------
    picture : SlidePicture or None
        None where the slide is gone.
    notes : list of str
        What a person should know of what is shown.
    """

    def __init__(self, result: Result, image: Location | None = None) -> None:
        self.result = result
        self.notes: list[str] = []
        self._pyramids: dict[Of, PatchedPyramid] = {}
        self._cells: Cells | None = None
        # Two: the table takes seconds, and masks need not wait for it.
        self._lock, self._reading = Lock(), Lock()
        self.corrections = self._corrected()
        self.picture: SlidePicture | None = None
        try:
            self.picture = SlidePicture.open(result, image)
        except CellsegError as error:
            self._say(f"{error}; the masks are shown without it")
        else:
            if self.picture.is_coarse:
                is_drawn = result.file(OVERVIEW).is_file()
                afar = "nothing" if not is_drawn else "what overview.png has"
                self._say(f"the slide has no pyramid: from afar {afar} is shown of it")

    def close(self) -> None:
        """Close the slide."""
        if self.picture is not None:
            self.picture.slide.close()

    def _say(self, text: str) -> None:
        self.notes.append(visible(text))

    def _corrected(self) -> Corrections | None:
        """What a person changed, where it was not saved as a result of its own."""
        if not (self.result.path / CORRECTIONS).is_file() or "corrected_from" in self.result.run:
            return None
        try:
            found = Corrections(self.result, only_look=True)
        except CellsegError as error:
            self._say(f"{error}; shown as counted")
            return None
        if not found.edits:
            return None
        self._say(f"shown with {len(found.edits):,} corrections that were made by hand")
        return found

    # The table

    @property
    def cells(self) -> Cells:
        """Where all cells lie; read once, which takes seconds for a million.

        Raises
        ------
        InputError
            If the table cannot be read.
        """
        with self._reading:
            if self._cells is None:
                self._cells = Cells.read(self.result, self.corrections)
            return self._cells

    @property
    def of_label(self) -> NDArray[np.uint16] | None:
        """Each label's class, as :class:`Cells` has it; None where there is one class alone."""
        return self.cells.of_label if self._by_label else None

    @property
    def _by_label(self) -> bool:
        """Whether outlines have to wait for the table."""
        return len(self.names) != 1 or self.corrections is not None

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        if self.corrections is not None:
            return list(self.corrections.classes)
        return self.result.class_names

    @property
    def colours(self) -> list[RGB]:
        """Of the classes."""
        return colours(self.names, self.result.stain)

    def about(self) -> dict[str, Any]:
        """What the page says and needs before any tile."""
        frame, run = self.result.frame, self.result.run
        counted = _section(_section(run, "summary"), "cells_per_class")
        known = self.corrections is None
        return {
            "name": visible(self.result.path.name),
            "image": self.result.image_name,
            "object": visible(str(run.get("object", "cell"))),
            "height": frame.height,
            "width": frame.width,
            "mpp": frame.mpp,
            "tile": TILE_PX,
            "halvings": coarsest_halving(frame.height, frame.width, FARTHEST_PX),
            "slide": self.picture is not None,
            "dark": self.picture is not None and self.picture.ground.is_dark,
            "classes": [
                {"name": visible(name), "colour": as_hex(colour),
                 "cells": counted.get(name) if known else None}
                for name, colour in zip(self.names, self.colours, strict=True)
            ],
            "grown": known and self.result.is_expanded,
            "outlined": self._cells is not None or not self._by_label,
            "corrected": "corrected_from" in run or self.corrections is not None,
            "notes": [*self.notes, *self._warnings()],
            "lines": self._lines(),
        }  # fmt: skip

    def _warnings(self) -> list[str]:
        """What the run said, and what it could not do."""
        run = self.result.run
        found = [] if self.result.is_complete else ["the count is not complete: some tiles failed"]
        for key in ("doubts", "warnings"):
            texts = run.get(key)
            found += [visible(str(text)) for text in texts] if isinstance(texts, list) else []
        return list(dict.fromkeys(found))

    def _lines(self) -> list[dict[str, Any]]:
        """Borders of the regions that were counted in, and of the tissue; (x, y), level-0 px."""
        try:
            regions, tissue = self.result.regions(), self.result.tissue()
        except CellsegError as error:
            return [{"kind": "fault", "name": visible(str(error)), "rings": []}]
        found = [("region", region) for region in regions or ()]
        found += [] if tissue is None else [("tissue", tissue)]
        return [
            {"kind": kind, "name": region.name, "rings": self._rings(region, len(found))}
            for kind, region in found[:LINE_POINTS // 4]
        ]  # fmt: skip

    def _rings(self, region: Region, among: int) -> list[list[list[float]]]:
        frame = self.result.frame
        whole = shapely.clip_by_rect(region.shape, 0, 0, frame.width, frame.height)
        shape, step = whole, max(frame.height, frame.width) / 8192
        while shapely.get_num_coordinates(shape) > LINE_POINTS // among and step < 1e9:
            shape, step = shapely.simplify(whole, step), 2 * step
        return [
            np.round(shapely.get_coordinates(ring), 1).tolist()
            for polygon in shapely.get_parts(shape)
            if isinstance(polygon, shapely.Polygon)
            for ring in (polygon.exterior, *polygon.interiors)
            if not ring.is_empty
        ]

    # Tiles

    def box_of(self, halvings: int, row: int, column: int) -> Box | None:
        """Of a tile, on the lattice of 2**halvings; None where there is no such tile."""
        frame = self.result.frame
        if halvings > coarsest_halving(frame.height, frame.width, FARTHEST_PX):
            return None
        step = 2**halvings
        extent = Box(0, 0, -(-frame.height // step), -(-frame.width // step))
        y, x = row * TILE_PX, column * TILE_PX
        if y >= extent.y1 or x >= extent.x1:
            return None
        return Box(y, x, y + TILE_PX, x + TILE_PX).intersection(extent)

    def slide_tile(self, box: Box, halvings: int) -> bytes:
        """JPEG.

        Raises
        ------
        RegionError
            If the slide is damaged there.
        """
        assert self.picture is not None
        pixels = np.ascontiguousarray(self.picture.read(box, 2.0**halvings))
        return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="444"))

    def mask_tile(self, box: Box, halvings: int, shown: NDArray[np.bool_], of: Of) -> bytes:
        """PNG with the outlines of the classes that are ``shown``."""
        return mask_tile(
            self._pyramid(of).levels,
            self.result.frame,
            box,
            2.0**halvings,
            of_label=self.of_label,
            shown=shown,
            colours=self.colours,
            diameter_px=self._diameter(),
        )

    def _pyramid(self, of: Of) -> PatchedPyramid:
        if of == "nuclei" and self.corrections is not None:
            return self.corrections.pyramid
        with self._lock:
            if of not in self._pyramids:
                levels = self.result.labels(of)
                if levels[0].shape != (
                    self.result.frame.lattice_height, self.result.frame.lattice_width
                ):  # fmt: skip
                    raise InputError(f"{self.result.path}: its masks are no image of this slide")
                self._pyramids[of] = PatchedPyramid(levels, decoded=CHUNKS)
            return self._pyramids[of]

    def _diameter(self) -> float:
        """Of a usual cell, level-0 pixels."""
        with suppress(InputError, LookupError):
            if (areas := self.result.summary.area_px) is not None:
                return max(1.0, math.sqrt(areas.median))
        return 24.0 * self.result.frame.downsample

    # One cell

    def at(self, y: float, x: float, of: Of) -> dict[str, Any] | None:
        """The cell at a point of the slide; None where there is none.

        Parameters
        ----------
        y, x : float
            Level-0 pixels, 0 at the corner of the first pixel.
        """
        step = self.result.frame.downsample
        row, column = int(y // step), int(x // step)
        pyramid = self._pyramid(of)
        label = pyramid.label_at(row, column)
        if not label:
            return None
        point = Box(row, column, row + 1, column + 1)
        found = pyramid.mask_of(label, point.widened(REACH_PX))
        assert found is not None
        box, mask = found
        lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
        return {
            "label": label,
            "outline": [
                np.round((line[:, ::-1] + (box.x0 - 0.5, box.y0 - 0.5)) * step, 2).tolist()
                for line in lines
            ],
            "values": self._values(label),
        }

    def _values(self, label: int) -> list[list[str]]:
        """Names and values of its row, for people; empty where it has no row."""
        row: pd.Series[Any]
        try:
            if self.corrections is not None:
                row = self.corrections.row(label)
            else:
                row = self.result.table.take([label - 1]).iloc[0]
        except (CellsegError, IndexError):
            return []
        return [
            [str(name), _told(value)]
            for name, value in row.items()
            if name not in ("label", "image")
        ]


def _section(found: dict[str, Any], name: str) -> dict[str, Any]:
    inner = found.get(name)
    return inner if isinstance(inner, dict) else {}


def _told(value: object) -> str:
    """A value of the table, short."""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return visible(str(value))
