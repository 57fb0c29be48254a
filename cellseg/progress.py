"""How a count shows itself from Python: one line that is written over."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from html import escape
from typing import Any

from cellseg.counting.remaining import in_words
from cellseg.events import Event, Started, TileDone
from cellseg.text import visible


class ProgressLine:
    """A line in a notebook's output or on a terminal; nothing elsewhere."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        self._write = (_in_notebook() or _on_terminal()) if is_wanted else None
        self._name = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._write is not None:
            self._write("", None)

    def show(self, event: Event) -> None:
        """Take one event of a run."""
        if self._write is None:
            return
        if isinstance(event, Started):
            self._name = visible(event.image.name)
            self._write(f"{self._name}: {event.tiles:,} tiles", 0.0)
        elif isinstance(event, TileDone):
            left = "" if event.seconds_left is None else f", {in_words(event.seconds_left)}"
            said = f"{event.done:,}/{event.total:,} tiles, {event.cells:,} cells so far{left}"
            self._write(f"{self._name}: {said}", event.done / event.total)


_Write = Callable[[str, float | None], None]
"""Shows a text and the share that is done; an empty text at the end."""


def _in_notebook() -> _Write | None:
    """Where IPython runs with a kernel, as Jupyter has it."""
    module = sys.modules.get("IPython")
    if module is None or not hasattr(module.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    handle: Any = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def write(text: str, share: float | None) -> None:
        bar = "" if share is None else f'<progress value="{share:.3f}"></progress> '
        handle.update({"text/plain": text, "text/html": bar + escape(text)}, raw=True)

    return write


def _on_terminal() -> _Write | None:
    stream = sys.stderr
    if not stream.isatty():
        return None

    def write(text: str, share: float | None) -> None:
        width = shutil.get_terminal_size().columns - 1
        stream.write(f"\r{text[:width]:<{width}}" + ("" if text else "\r"))
        stream.flush()

    return write
