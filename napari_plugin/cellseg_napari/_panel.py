"""The base of panels and tabs: errors are told, work runs in threads, a closed panel lets go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar

import napari
from napari.qt.threading import GeneratorWorkerSignals, WorkerBase
from napari.utils.notifications import show_error, show_info
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, QSize, Qt, QThreadPool, QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from cellseg.errors import CellsegError, Notice, unexpected_text
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.result.publish import TABLE
from cellseg.table.taught import TaughtClasses
from cellseg_napari._inspect import Inspector
from cellseg_napari._words import in_fields, warn

logger = logging.getLogger(__name__)

T = TypeVar("T")
Action = tuple[str, str, Callable[[], object]]  # The text of a button, its tip, what it does.

WIDTH_PX, LEAST_PX = 380, 320
"""A panel asks for no more width, so that the picture keeps its place, and for so much height."""


def attempt(action: Callable[[], object], *_: object) -> None:
    """Do it, or say why not; what a Qt signal adds is left out."""
    try:
        action()
    except Exception as error:
        tell(error)


def tell(error: Exception) -> str:
    """Show an error in napari's corner, and log an unforeseen one. Returns what was said."""
    if isinstance(error, CellsegError):
        warn(error)
        return in_fields(error)
    logger.error("unexpected", exc_info=error)
    said = in_fields(unexpected_text(error))
    show_error(said)
    return said


class Job(WorkerBase):  # type: ignore[misc]
    """An iterator that is worked off in a thread; its items arrive in the window's own.

    napari's own workers do not close a generator that they stop, and keep a RuntimeError (torch
    raises no other) to themselves; a run of cellseg holds a lock and a journal. Once ``owner`` is
    deleted, the job stops and nothing more arrives; ``ended`` gets the exception that ended it.
    """

    def __init__(
        self,
        owner: QObject,
        items: Iterator[T],
        *,
        each: Callable[[T], object],
        ended: Callable[[Exception | None], object],
    ) -> None:
        super().__init__(SignalsClass=GeneratorWorkerSignals)
        self._items = items
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self._error: Exception | None = None
        self.yielded.connect(lambda item: each(item) if isalive(owner) else None)
        self.finished.connect(lambda: ended(self._error) if isalive(owner) else None)
        owner.destroyed.connect(lambda: self.quit())

    @property
    def is_paused(self) -> bool:
        """Whether it rests, or will after the item that is under way."""
        return not self._may_go_on.is_set()

    def toggle_pause(self) -> None:
        """Rest after the item that is under way, or go on."""
        if self.is_paused:
            self._may_go_on.set()
        else:
            self._may_go_on.clear()

    def quit(self) -> None:
        """End after the item that is under way."""
        super().quit()
        self._may_go_on.set()

    def work(self) -> None:
        # A count takes long: other work need not wait for it where the pool has one thread.
        QThreadPool.globalInstance().releaseThread()
        try:
            with closing(self._items) as items:  # type: ignore[type-var]
                for item in items:
                    self.yielded.emit(item)
                    self._may_go_on.wait()
                    if self.abort_requested:
                        return
        except Exception as error:
            self._error = error
        finally:
            QThreadPool.globalInstance().reserveThread()


class DockPanel(QWidget):  # type: ignore[misc]
    """A dock widget that follows the viewer's layers until it is closed.

    ``content`` holds the panel's own widgets. It scrolls where the window is too low for it; a
    window that had to make room would grow beyond the screen.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.closed = False
        self.content = QWidget()
        scroll = QScrollArea()
        scroll.setWidget(self.content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        # It fills its dock; to others, napari adds empty space at the bottom.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        # A dock that is moved takes its widget along by way of no parent at all, so the parent
        # is looked at a moment later. The timer dies with the widget; a single shot would not.
        self._moved = QTimer(self, singleShot=True)
        self._moved.timeout.connect(self._look_at_parent)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_event)
        self.destroyed.connect(lambda: self.let_go())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's
        """As wide as the picture allows; labels wrap."""
        return QSize(WIDTH_PX, self.content.sizeHint().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's
        """No widget is cut off at the side, and two panels have room below one another."""
        least = self.content.minimumSizeHint()
        return QSize(min(least.width(), WIDTH_PX), min(least.height(), LEAST_PX))

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's
        """Napari takes a closed panel out of its dock and does not delete it."""
        if event.type() == QEvent.Type.ParentChange:
            self._moved.start(0)
        super().changeEvent(event)

    def _look_at_parent(self) -> None:
        if self.parent() is None and not self.closed:
            self.leave()
            self.let_go()

    def _layers_event(self, _: object) -> None:
        if not self.closed:
            self.layers_changed()

    def layers_changed(self) -> None:
        """A layer came or went."""

    def leave(self) -> None:
        """The panel was closed, the window is there: take away what it shows."""

    def let_go(self) -> None:
        """From now on, touch neither widgets nor layers."""
        self.closed = True
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            with suppress(ValueError, RuntimeError):
                event.disconnect(self._layers_event)


def button(text: str, tip: str, action: Callable[[], object]) -> QPushButton:
    """A button whose action may fail."""
    found = QPushButton(text)
    found.setToolTip(tip)
    found.clicked.connect(partial(attempt, action))
    return found


def choice(tip: str, *, editable: bool = False) -> QComboBox:
    """A list to choose from, as narrow as the panel wants it."""
    found = QComboBox()
    found.setToolTip(tip)
    found.setEditable(editable)
    found.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return found


def fill(box: QComboBox, entries: Iterable[tuple[str, Any]], place: int = 0) -> None:
    """Other entries for a list, (text, data), and which is chosen; nobody hears of it."""
    with QSignalBlocker(box):
        box.clear()
        for text, data in entries:
            box.addItem(text, data)
        box.setCurrentIndex(place)


def wrapped(text: str = "") -> QLabel:
    """Text that may take several lines."""
    found = QLabel(text)
    found.setWordWrap(True)
    return found


class Tab(QWidget):  # type: ignore[misc]
    """A tab of a result's panel.

    ``actions`` make its buttons; ``keys`` says what keys do while the tab is in sight. ``saved``
    tells the result folder, whose table and record are new.
    """

    saved = Signal(object)

    def __init__(
        self, inspector: Inspector, actions: Iterable[Action] = (), *, columns: int = 3
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
