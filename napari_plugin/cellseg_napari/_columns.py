"""Columns of long tables, read in a thread before something that needs them goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from qtpy.QtCore import QObject, Signal

from cellseg_napari._attempt import attempt, tell
from cellseg_napari._background import in_background
from cellseg_napari._opened import FEATURES_LIMIT, Opened


class ColumnReader(QObject):  # type: ignore[misc]
    """Belongs to a panel: once that is deleted, nothing goes on any more.

    Attributes
    ----------
    opened : Opened or None
        The result that is shown; what arrives for another one is dropped.
    reading : Signal(bool)
        A long table is being read, or has been.
    """

    reading = Signal(bool)

    def __init__(self, owner: QObject) -> None:
        super().__init__(owner)
        self.opened: Opened | None = None
        # Kept: PySide holds a timer's bound method weakly, and with it all that would answer.
        self._jobs: list[object] = []

    def then(self, names: Sequence[str], action: Callable[[], object]) -> None:
        """Go on when columns are read: at once, or for long tables in a thread."""
        if (opened := self.opened) is None:
            return
        rows = opened.rows
        known = {*rows.names}
        wanted = [name for name in names if name in known]
        if len(rows) <= FEATURES_LIMIT or rows.has(wanted):

            def now() -> None:
                rows.keep(wanted)
                action()

            attempt(now)
            return
        self.reading.emit(True)

        def arrived(_: object) -> None:
            if self.opened is opened:
                attempt(action)
                self.reading.emit(False)

        load = partial(rows.keep, wanted)
        self._jobs.append(in_background(self, load, done=arrived, failed=tell))
