"""How far a count is: a bar on a terminal, a line in a notebook."""

from __future__ import annotations

import sys
from html import escape
from typing import IO, Any, Self

from rich import progress as rich
from rich.console import Console

from cellseg.events import Event, Started, TileDone


class ProgressBar:
    """What is being done, how far it is, and the time that is left.

    ``stream`` gets a bar where it is a terminal.
    """

    def __init__(self, stream: IO[str], *, is_wanted: bool = True) -> None:
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
        """Take one event of a run."""
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
