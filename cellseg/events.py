"""What a run says while it goes on, and at its end; a :class:`Notice` may come at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellseg.errors import Notice
from cellseg.geometry import Frame, Tile
from cellseg.instances import Instances
from cellseg.result import Result
from cellseg.storage import Location, RemotePath
from cellseg.table.summary import Summary
from cellseg.text import time_left

JSON_KEYS = (
    "image", "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
    "median_area_um2", "regions", "tiles", "tiles_skipped", "tiles_failed", "seconds", "warnings",
)  # fmt: skip
"""What is told of an image as JSON."""


@dataclass(frozen=True)
class Started:
    """The network starts; ``tiles`` are left after the prefilter, ``text`` is for a person."""

    image: Location
    tiles: int
    text: str
    frame: Frame


@dataclass(frozen=True, eq=False)
class TileDone:
    """A tile is done.

    Attributes
    ----------
    instances : Instances
        What the detector found there, on the slide's lattice, before merging.
    done, total : int
        Those of an earlier, interrupted run included.
    cells : int
        Cells that are settled so far: merged with those of the tiles around, and counted. It only
        grows, and never beyond the result.
    seconds_left : float or None
        To the last tile; None until there is enough to go by.
    """

    tile: Tile
    instances: Instances
    done: int
    total: int
    cells: int
    seconds_left: float | None = None

    @property
    def so_far(self) -> str:
        """Tiles and cells in words."""
        return f"{self.done:,}/{self.total:,} tiles, {self.cells:,} cells so far"

    @property
    def line(self) -> str:
        """Tiles, cells and the remaining time in words."""
        if self.seconds_left is None:
            return self.so_far
        return f"{self.so_far}, {time_left(self.seconds_left)}"


@dataclass(frozen=True, eq=False)
class CountResult:
    """The end of a run: everything is written.

    Attributes
    ----------
    result : Result
        As it lies in the result folder.
    uploaded : RemotePath or None
        Where the result folder is, if its place is a URL.
    counted_before : bool
        Nothing was left to do.
    """

    image: Location
    result: Result
    seconds: float
    uploaded: RemotePath | None = None
    counted_before: bool = False

    @property
    def folder(self) -> Path:
        """The result folder on this machine."""
        return self.result.path

    @property
    def summary(self) -> Summary:
        """The slide's totals."""
        return self.result.summary

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of them."""
        return self.result.warnings

    @property
    def tiles_failed(self) -> int:
        """Tiles that did not decode."""
        return len(self.result.section("tiles").get("failed", ()))

    def as_dict(self) -> dict[str, object]:
        """The run's end ready for JSON; null where unknown."""
        summary, tiles = self.summary, self.result.section("tiles")
        known = (
            str(self.image), str(self.uploaded or self.folder), summary.cells,
            summary.cells_per_class, summary.tissue_mm2, summary.density_per_mm2,
            summary.median_area_um2, summary.as_dict()["regions"], tiles.get("all"),
            tiles.get("skipped"), self.tiles_failed, round(self.seconds, 2), list(self.warnings),
        )  # fmt: skip
        return dict(zip(JSON_KEYS, known, strict=True))


Event = Notice | Started | TileDone | CountResult
