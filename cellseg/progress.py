"""How far a count is: a bar on a terminal, a line in a notebook."""

from __future__ import annotations

import sys
from html import escape
from typing import IO, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cellseg.events import Event, Started, TileDone


class CountProgress:
    """Tiles and cells of one count, with the time that is left.

    Parameters
    ----------
    stream : file
        Gets a bar where it is a terminal.

    Attributes
    ----------
    bar : rich.progress.Progress
    """

    def __init__(self, stream: IO[str], *, is_wanted: bool = True) -> None:
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[so_far]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
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

    def show(self, event: Event) -> None:
        """Take one event of a run."""
        if isinstance(event, Started):
            self.bar.update(self._task, description="counting", total=event.tiles)
        elif isinstance(event, TileDone):
            self.bar.update(
                self._task,
                description="counting" if event.done < event.total else "writing",
                completed=event.done,
                so_far=event.so_far,
            )
            if self._notebook is not None:
                share = f'<progress value="{event.done / event.total:.3f}"></progress> '
                plain = {"text/plain": event.line, "text/html": share + escape(event.line)}
                self._notebook.update(plain, raw=True)


def _notebook_line() -> Any:  # noqa: ANN401
    """A display to write over, where IPython runs with a kernel, as Jupyter has it."""
    module = sys.modules.get("IPython")
    if module is None or not hasattr(module.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
