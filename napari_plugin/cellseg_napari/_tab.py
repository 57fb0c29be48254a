"""The base of a result's tabs: its buttons, a text, and what happens while the tab is in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QWidget

from cellseg.errors import Notice
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.result.publish import TABLE
from cellseg.table.taught import TaughtClasses
from cellseg_napari._inspect import Inspector
from cellseg_napari._panel import Job, button, tell, wrapped
from cellseg_napari._words import in_fields

T = TypeVar("T")


class Tab(QWidget):  # type: ignore[misc]
    """A tab of a result's panel.

    ``actions`` are the names of its buttons, their tooltips and what they do; ``keys`` what keys
    do while it is in sight. ``saved`` tells the result folder, whose table and record are new.
    """

    saved = Signal(object)

    def __init__(
        self,
        inspector: Inspector,
        actions: Iterable[tuple[str, str, Callable[[], object]]] = (),
        *,
        columns: int = 3,
    ) -> None:
        super().__init__()
        self.inspector, self.opened = inspector, inspector.opened
        self.keys: dict[str, Callable[[], object]] = {}
        self.state = wrapped()
        self.buttons = {name: button(name, tip, action) for name, tip, action in actions}
        self.grid = QGridLayout()
        for number, one in enumerate(self.buttons.values()):
            self.grid.addWidget(one, *divmod(number, columns))

    def begin(self) -> None:
        """The tab comes in sight."""

    def edited(self) -> None:
        """Cells were corrected."""

    def clicked(self, label: int) -> None:
        """A cell was clicked."""

    def in_thread(self, work: Callable[[], T], done: Callable[[T], object]) -> None:
        """Work in a thread, the buttons off meanwhile; ``done`` gets what it returns."""

        def once() -> Iterator[T]:
            yield work()

        def ended(error: Exception | None) -> None:
            self.busy(False)
            if error is not None:
                tell(error)

        self.busy(True)
        Job(self, once(), each=done, ended=ended).start()

    def busy(self, busy: bool) -> None:
        """Whether something is under way: which buttons can be pressed."""
        for one in self.buttons.values():
            one.setEnabled(not busy)

    def save_classes(
        self, *, markers: tuple[Marker, ...] = (), taught: TaughtClasses | None = None
    ) -> None:
        """Give the result's cells these classes; without any, the model's are back."""
        from cellseg.run import change  # late: counting and its libraries come with it

        notices = list[Notice]()

        def done(new: Result) -> None:
            said = [f"classes saved in {new.file(TABLE)}", *map(in_fields, notices)]
            show_info("\n".join(said))
            self.saved.emit(new.path)

        path, hear = self.opened.result.path, notices.append
        self.in_thread(partial(change, path, on_notice=hear, markers=markers, taught=taught), done)
