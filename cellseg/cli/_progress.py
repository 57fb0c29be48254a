"""How a run shows itself on a terminal, or in a log file."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from cellseg.cli._say import option, say
from cellseg.errors import Notice, hinted
from cellseg.events import CountResult, Started
from cellseg.progress import CountProgress
from cellseg.slide.formats import image_name
from cellseg.table.regions import lines

if TYPE_CHECKING:
    from cellseg.events import Event
    from cellseg.storage import Location

QUIET_SECONDS = 15.0


class Reporter(CountProgress):
    """Events as lines: above a bar on a terminal, with lines about tiles elsewhere."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._last = time.monotonic()
        self._said: set[str] = set()

    def show(self, event: Event) -> None:
        """Show one event."""
        super().show(event)
        if isinstance(event, Notice):
            self._said.add(str(event))
            self._line(Notice(f"  {event}", hint=event.hint))
        elif isinstance(event, Started):
            self._line(f"{image_name(event.image)}: {event.text}")
        elif isinstance(event, CountResult):
            self._line(f"{image_name(event.image)}: {event.summary}")
            told = [text for text in event.warnings if text not in self._said]
            for text in [*lines(event.summary.regions, event.summary.object), *told]:
                self._line(f"  {text}")
            self._line(f"  results in {event.uploaded or event.folder}")
        elif self.bar.disable and time.monotonic() - self._last > QUIET_SECONDS:
            self._line(f"  {event.line}")
            self._last = time.monotonic()

    def fail(self, image: Location, error: BaseException) -> None:
        """Say that one file could not be counted."""
        text = hinted(error, option)
        self._line(f"cellseg: {text if image.name in text else f'{image}: {text}'}")

    def _line(self, text: str) -> None:
        say(text, err=True, console=None if self.bar.disable else self.bar.console)
