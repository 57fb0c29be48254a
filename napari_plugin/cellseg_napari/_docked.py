"""When a panel is closed: napari takes it out of its dock and does not delete it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget


class WhenClosed(QObject):  # type: ignore[misc]
    """Calls once, when a widget that was in a dock has lost it.

    Parameters
    ----------
    widget : QWidget
        Owns this object.
    then : callable
    """

    def __init__(self, widget: QWidget, then: Callable[[], object]) -> None:
        super().__init__(widget)
        self._widget, self._then = widget, then
        self._was_docked = False
        # A timer of its own, which dies with the widget: a single shot would outlive it. A dock
        # that is moved takes its widget along by way of no parent at all.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._look)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Qt's own."""
        if event.type() == QEvent.Type.ParentChange:
            self._timer.start()
        return False

    def _look(self) -> None:
        docked = self._widget.parent() is not None
        if self._was_docked and not docked:
            self._was_docked = False
            self._then()
        self._was_docked = self._was_docked or docked
