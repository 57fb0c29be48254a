"""How a run shows itself on a terminal, or in a log file."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from cellseg.cli._say import option, say
from cellseg.errors import hinted
from cellseg.slide.formats import image_name
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.events import Event, TileDone

QUIET_SECONDS = 15.0


class Reporter:
    """Prints events: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self.last = time.monotonic()
        self.said: set[str] = set()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[so_far]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(file=stream),
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task("reading", total=None, so_far="", left="")

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        # Here and not above: what makes events takes seconds to load.
        from cellseg.errors import Notice
        from cellseg.events import CountResult, Started
        from cellseg.table.regions import lines

        if isinstance(event, Notice):
            self.said.add(str(event))
            self._line(Notice(f"  {event}", hint=event.hint))
        elif isinstance(event, Started):
            self._line(f"{image_name(event.image)}: {event.text}")
            self.bar.update(self.task, description="counting", total=event.tiles)
        elif isinstance(event, CountResult):
            self._line(f"{image_name(event.image)}: {event.summary}")
            for text in lines(event.summary.regions, event.summary.object):
                self._line(f"  {text}")
            for text in event.warnings:
                if text not in self.said:
                    self._line(f"  {text}")
            self._line(f"  results in {event.uploaded or event.folder}")
        else:
            self._tile(event)

    def _tile(self, event: TileDone) -> None:
        from cellseg.counting.remaining import in_words

        left = "" if event.seconds_left is None else in_words(event.seconds_left)
        so_far = f"{event.done:,}/{event.total:,} tiles, {event.cells:,} cells so far"
        self.bar.update(
            self.task,
            description="counting" if event.done < event.total else "writing",
            completed=event.done,
            total=event.total,
            so_far=so_far,
            left=left,
        )
        if not self.live and time.monotonic() - self.last > QUIET_SECONDS:
            self._line(f"  {so_far}, {left}" if left else f"  {so_far}")
            self.last = time.monotonic()

    def fail(self, image: Location, error: BaseException | None) -> None:
        """Say that one file could not be counted."""
        text = hinted(error, option)
        self._line(f"cellseg: {text if image.name in text else f'{image}: {text}'}")

    def _line(self, text: str) -> None:
        say(text, err=True, console=self.bar.console if self.live else None)
