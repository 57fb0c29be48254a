"""How a run shows itself on a terminal, or in a log file."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cellseg.cli._shared import option, say
from cellseg.errors import Notice, hinted
from cellseg.events import CountResult, Started
from cellseg.progress import ProgressBar
from cellseg.slide.formats import image_name
from cellseg.table.summary import lines

if TYPE_CHECKING:
    from cellseg.events import Event
    from cellseg.storage import Location


class Reporter(ProgressBar):
    """Lines above a bar on a terminal; elsewhere also how far it is, a line every ``quiet_s``.

    Notices that are ``known`` from the images before are not said again; of several time points
    each line says which, ``t``.
    """

    def __init__(
        self,
        *,
        err: bool = True,
        quiet_s: float = 15.0,
        known: set[str] | None = None,
        t: int | None = None,
    ) -> None:
        super().__init__(sys.stderr if err else sys.stdout)
        self._err, self._quiet_s, self._last = err, quiet_s, time.monotonic()
        self._said = set() if known is None else known
        self._point = "" if t is None else f", t {t}"

    def say(self, text: str) -> None:
        say(text, err=self._err, console=None if self.bar.disable else self.bar.console)

    def update(self, share: float, doing: str, so_far: str, line: str) -> None:
        """Move the bar, or print the line where there is none."""
        super().update(share, doing, so_far, line)
        if self.bar.disable and time.monotonic() - self._last > self._quiet_s:
            self.say(line)
            self._last = time.monotonic()

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Notice):
            if event not in self._said:
                self.say(Notice(f"  {event}", hint=event.hint))
            self._said.add(str(event))
        elif isinstance(event, Started):
            self.say(f"{image_name(event.image)}{self._point}: {event.text}")
        elif isinstance(event, CountResult):
            self.say(f"{image_name(event.image)}{self._point}: {event.summary}")
            told = [text for text in event.warnings if text not in self._said]
            for text in [*lines(event.summary.regions, event.summary.object), *told]:
                self.say(Notice(f"  {text}", hint=getattr(text, "hint", "")))
            self.say(f"  results in {event.uploaded or event.folder}")

    def fail(self, image: Location, error: BaseException, name: str) -> None:
        text = hinted(error, option)
        if text.startswith(f"{image.name}: "):
            text = name + text.removeprefix(image.name)
        elif image.name not in text:
            text = f"{image if name == image.name else name}: {text}"
        self.say(f"cellseg: {text}")
