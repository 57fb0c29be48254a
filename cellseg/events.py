"""What a run says while it goes on and at its end, and a bar that shows how far it is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import IO, Any, Self

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

    ``instances`` are what the detector found there, on the slide's lattice, before merging.
    ``done`` and ``total`` include tiles of an earlier, interrupted run. ``cells`` are settled so
    far: merged with those of the tiles around, and counted; they only grow, never beyond the
    result. ``seconds_left`` is the time to the last tile, None until there is enough to go by.
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

    ``result`` is as it lies in the result folder. ``uploaded`` is that folder's URL, None if the
    output is on this machine. ``counted_before``: nothing was left to count. ``made_anew``: what
    was asked for besides was derived.
    """

    image: Location
    result: Result
    seconds: float
    uploaded: RemotePath | None = None
    counted_before: bool = False
    made_anew: bool = False

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
        """Why the totals may be wrong, a line each."""
        return self.result.warnings

    @property
    def tiles_failed(self) -> int:
        """Tiles that did not decode."""
        return len(self.result.section("tiles").get("failed", ()))

    def as_dict(self) -> dict[str, object]:
        """The run's end ready for JSON; null where unknown."""
        summary, tiles = self.summary, self.result.section("tiles")
        median = None if summary.area_um2 is None else summary.area_um2.median
        known = (
            str(self.image), str(self.uploaded or self.folder), summary.cells,
            summary.cells_per_class, summary.tissue_mm2, summary.density_per_mm2,
            median, summary.as_dict()["regions"], tiles.get("all"),
            tiles.get("skipped"), self.tiles_failed, round(self.seconds, 2), list(self.warnings),
        )  # fmt: skip
        return dict(zip(JSON_KEYS, known, strict=True))


Event = Notice | Started | TileDone | CountResult


class ProgressBar:
    """What is being done, how far it is, and the time that is left.

    ``stream`` gets a bar where it is a terminal.
    """

    def __init__(self, stream: IO[str], *, is_wanted: bool = True) -> None:
        from rich import progress as rich  # late: napari has its own
        from rich.console import Console

        self.bar = rich.Progress(
            rich.SpinnerColumn(),
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.TextColumn("{task.fields[so_far]}"),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
            disable=not (is_wanted and stream.isatty()),
        )
        self._task = self.bar.add_task("reading", total=None, so_far="")
        self._notebook = _notebook_line() if is_wanted else None

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self._notebook is not None:
            self._notebook.update({"text/plain": "", "text/html": ""}, raw=True)

    def update(self, share: float, doing: str, so_far: str, line: str) -> None:
        """Move the bar to a share of all; ``line`` says the same, with the time that is left."""
        self.bar.update(self._task, total=1.0, completed=share, description=doing, so_far=so_far)
        if self._notebook is not None:
            html = f'<progress value="{share:.3f}"></progress> {escape(line)}'
            self._notebook.update({"text/plain": line, "text/html": html}, raw=True)

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self.bar.update(self._task, description="counting")
        elif isinstance(event, TileDone):
            doing = "counting" if event.done < event.total else "writing"
            self.update(event.done / event.total, doing, event.so_far, event.line)


def _notebook_line() -> Any:  # noqa: ANN401
    """A display to write over, where IPython runs with a kernel, as Jupyter has it."""
    module = sys.modules.get("IPython")
    if module is None or not hasattr(module.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
