"""What a run says while it goes on, and at its end; a :class:`Notice` may come at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cellseg.errors import InputError, Notice
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
    """The network starts; ``tiles`` are left after the prefilter.

    Attributes
    ----------
    text : str
        One line for a person.
    frame : Frame
        The slide's size, and how the lattice of ``TileDone`` lies on it.
    """

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
        Tiles done and to do, those of an earlier, interrupted run included.
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
    folder : Path
        The result folder.
    summary : Summary
        The slide's totals.
    warnings : tuple of str
        What a person should know of them.
    counted_before : bool
        Nothing was left to do.
    uploaded : RemotePath or None
        Where the result folder is, if its place is a URL.
    """

    image: Location
    folder: Path
    summary: Summary
    warnings: tuple[str, ...]
    tiles: int
    tiles_skipped: int
    tiles_failed: int
    seconds: float
    uploaded: RemotePath | None = None
    counted_before: bool = False

    @classmethod
    def of(cls, image: Location, result: Result, *, counted_before: bool = False) -> Self:
        """The end of the run that left a result.

        Raises
        ------
        InputError
            If its record does not say all of it.
        """
        try:
            tiles, run = result.run["tiles"], result.run
            return cls(
                image=image,
                folder=result.path,
                summary=result.summary,
                warnings=result.warnings,
                tiles=int(tiles["all"]),
                tiles_skipped=int(tiles["skipped"]),
                tiles_failed=len(tiles["failed"]),
                seconds=float(run["seconds"]["total"]),
                counted_before=counted_before,
            )
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(f"{result.path}: run.json is damaged: {error!r}") from error

    def as_dict(self) -> dict[str, object]:
        """The run's end ready for JSON; null where unknown."""
        summary = self.summary
        known = (
            str(self.image), str(self.uploaded or self.folder), summary.cells,
            summary.cells_per_class, summary.tissue_mm2, summary.density_per_mm2,
            summary.median_area_um2, summary.as_dict()["regions"], self.tiles, self.tiles_skipped,
            self.tiles_failed, round(self.seconds, 2), list(self.warnings),
        )  # fmt: skip
        return dict(zip(JSON_KEYS, known, strict=True))


Event = Notice | Started | TileDone | CountResult
