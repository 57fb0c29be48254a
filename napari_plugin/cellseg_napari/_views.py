"""Two views of all cells: their table, and a histogram of a measurement with handles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QRectF,
    QSignalBlocker,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QAbstractItemView, QTableView, QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

from cellseg.derive.threshold import histogram
from cellseg.palette import RGB
from cellseg.table.summary import told
from cellseg_napari._inspect import MARKED, Inspector
from cellseg_napari._opened import Opened
from cellseg_napari._panel import attempt
from cellseg_napari._words import by_interest

PAGE, PAGES_KEPT = 64, 64
"""Rows that are read at once, and how many times as many are kept."""

BINS = 64
WAIT_MS = 150

BARS_PX, SLIDER_PX = 64, 44
"""Heights; the slider does not ask itself for what the numbers above its handles need."""

MARGIN_PX, INSET_PX = 12, 21
"""Room for a handle's number beside the slider; where the middle of the first handle can be."""

BRIGHT, DIM = (76, 155, 232), (90, 98, 108)

_NO_INDEX = QModelIndex()


class CellRows(QAbstractTableModel):  # type: ignore[misc]
    """Rows of the cells that are shown, ``labels`` from the top; read only where in sight."""

    def __init__(self, opened: Opened, parent: QTableView) -> None:
        super().__init__(parent)
        self._opened = opened
        # The image's name is the same for all of them.
        self.columns = by_interest([name for name in opened.rows.names if name != "image"])
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._pages: dict[int, list[list[str]]] = {}

    def set_labels(self, labels: NDArray[np.int64]) -> None:
        self.beginResetModel()
        self.labels = labels
        self._pages.clear()
        self.endResetModel()

    def row_of(self, label: int) -> int | None:
        """The row of a cell; None where it is not shown."""
        found = np.flatnonzero(self.labels == label)
        return int(found[0]) if len(found) else None

    def rowCount(self, parent: QModelIndex = _NO_INDEX) -> int:  # noqa: N802 - Qt's
        return 0 if parent.isValid() else len(self.labels)

    def columnCount(self, parent: QModelIndex = _NO_INDEX) -> int:  # noqa: N802 - Qt's
        return 0 if parent.isValid() else len(self.columns)

    def headerData(  # noqa: N802 - Qt's
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return self.columns[section]

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> str | None:
        if not index.isValid() or role != Qt.ItemDataRole.DisplayRole:
            return None
        page, row = divmod(index.row(), PAGE)
        if page not in self._pages:
            if len(self._pages) >= PAGES_KEPT:
                self._pages.clear()
            labels = self.labels[page * PAGE : (page + 1) * PAGE]
            rows = self._opened.cells.take(labels.tolist())[self.columns]
            self._pages[page] = [[*map(told, values)] for values in rows.itertuples(index=False)]
        text: str = self._pages[page][row][index.column()]
        return text


class CellTable(QTableView):  # type: ignore[misc]
    """The table, in step with what is selected; a click on a column's name sorts it."""

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector
        self._sorted = ("label", False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setToolTip("Click a row to fly to its cell; click a column's name to sort by it")
        self.horizontalHeader().sectionClicked.connect(self.sort)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(20)
        self.setMinimumHeight(120)
        self.cells = CellRows(inspector.opened, self)
        self.setModel(self.cells)
        self.selectionModel().selectionChanged.connect(self._row_clicked)
        self.refill()
        self.horizontalHeader().setResizeContentsPrecision(PAGE)
        self.resizeColumnsToContents()

    def refill(self) -> None:
        """The cells that are shown now, in the order that was asked for."""
        name, falling = self._sorted
        place = self.verticalScrollBar().value()
        opened = self.inspector.opened
        shown = opened.is_shown()
        labels = opened.cells.labels()[shown]
        if name != "label":
            labels = labels[np.argsort(opened.column(name)[shown], kind="stable")]
        self.cells.set_labels(labels[::-1] if falling else labels)
        self.verticalScrollBar().setValue(place)

    def sort(self, section: int) -> None:
        """By a column; by the same one again, the other way round."""
        name = self.cells.columns[section]
        self._sorted = (name, self._sorted == (name, False))
        attempt(self.refill)

    def step(self, by: int) -> None:
        """Fly to the next row's cell, or the one before; to the first where none is selected."""
        if not len(self.cells.labels):
            return
        chosen = self.inspector.selected
        row = self.cells.row_of(chosen[-1]) if chosen else None
        place = 0 if row is None else (row + by) % len(self.cells.labels)
        self.inspector.fly_to(int(self.cells.labels[place]))

    def show_selection(self) -> None:
        if not self.inspector.selected:
            self.clearSelection()
            return
        if len(self.inspector.selected) > MARKED:
            return
        chosen = QItemSelection()
        found = [self.cells.row_of(label) for label in self.inspector.selected]
        rows = [row for row in found if row is not None]
        for row in rows:
            last = self.cells.index(row, self.cells.columnCount() - 1)
            chosen.select(self.cells.index(row, 0), last)
        selection = self.selectionModel()
        with QSignalBlocker(selection):
            selection.select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if len(rows) == 1:
            self.scrollTo(self.cells.index(rows[0], 0))
        self.viewport().update()

    def _row_clicked(self, *_: object) -> None:
        """One row flies to its cell; several are selected where they are."""
        # By ranges: asking row by row takes minutes for a million.
        parts = self.selectionModel().selection()
        found = [self.cells.labels[part.top() : part.bottom() + 1].tolist() for part in parts]
        labels = list(dict.fromkeys(label for part in found for label in part))
        if len(labels) == 1:
            attempt(partial(self.inspector.fly_to, labels[0]))
        elif labels:
            attempt(partial(self.inspector.select, labels))


class HistogramSlider(QWidget):  # type: ignore[misc]
    """Bars, and a slider under them; the handles can be dragged in either.

    The bars are painted here: matplotlib takes a second to load, and too long for a drag.
    ``moved`` tells at once where the handles are, ``settled`` when they have rested for a moment.
    """

    moved = Signal(tuple)
    settled = Signal(tuple)

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.slider = QLabeledDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.slider.setEdgeLabelMode(self.slider.EdgeLabelMode.NoLabel)
        room = self.slider.layout().contentsMargins()
        self.slider.layout().setContentsMargins(MARGIN_PX, room.top(), MARGIN_PX, room.bottom())
        self.slider.setMinimumHeight(SLIDER_PX)
        self.slider.valueChanged.connect(self._moved)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, BARS_PX, 0, 0)
        layout.addWidget(self.slider)
        self._timer = QTimer(self, singleShot=True, interval=WAIT_MS)
        self._timer.timeout.connect(lambda: self.settled.emit(self.handles))
        self.bounds = (0.0, 1.0)
        self._heights: NDArray[np.float64] = np.zeros(0)
        self._middles: NDArray[np.float64] = np.zeros(0)
        self._parts: Sequence[RGB] = ()

    def draw(
        self, values: NDArray[Any], parts: Sequence[RGB], handles: Sequence[float] | None = None
    ) -> None:
        """Show the distribution of values, with handles, at its ends where none are given.

        ``parts`` are colours below, between and above the handles. Bars grow with the root of the
        counts, so that a few cells are seen beside many.
        """
        seen = histogram(values, BINS)
        self.bounds = low, high = float(seen.edges[0]), float(seen.edges[-1])
        self._heights = np.sqrt(seen.counts / max(1, seen.counts.max()))
        self._middles, self._parts = seen.centres, parts
        handles = self.bounds if handles is None else handles
        with QSignalBlocker(self.slider):
            decimals = max(0, int(np.ceil(2 - np.log10(high - low))))
            self.slider.setDecimals(decimals)
            self.slider.setRange(low, high)
            self.slider.setValue(tuple(np.clip(handles, low, high).tolist()))
            self.slider.setDecimals(decimals)  # of handles that are new, too
        self.update()

    @property
    def handles(self) -> tuple[float, ...]:
        return tuple(map(float, self.slider.value()))

    @property
    def range(self) -> tuple[float, float]:
        """Between which values two handles lie; at an end, a handle lets everything through."""
        low, high = self.handles
        step = (self.bounds[1] - self.bounds[0]) * 1e-3
        return (
            -np.inf if low <= self.bounds[0] + step else low,
            np.inf if high >= self.bounds[1] - step else high,
        )

    def _moved(self, _: object) -> None:
        self.update()
        self.moved.emit(self.handles)
        self._timer.start()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's
        painter = QPainter(self)
        wide = (self.width() - 2 * INSET_PX) / max(1, len(self._heights))
        places = np.searchsorted(self.handles, self._middles, side="right").tolist()
        for number, (height, place) in enumerate(zip(self._heights, places, strict=True)):
            high = float(height) * (BARS_PX - 1)
            left = INSET_PX + number * wide
            bar = QRectF(left, BARS_PX - 1 - high, max(1.0, wide - 1), high)
            painter.fillRect(bar, QColor(*self._parts[place]))
        painter.fillRect(QRectF(0, BARS_PX - 1, self.width(), 1), QColor(*DIM))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's
        """The nearest handle follows the pointer."""
        low, high = self.bounds
        share = (event.position().x() - INSET_PX) / max(1, self.width() - 2 * INSET_PX)
        value = float(np.clip(low + share * (high - low), low, high))
        handles = list(self.handles)
        handles[int(np.argmin(np.abs(np.array(handles) - value)))] = value
        self.slider.setValue(tuple(sorted(handles)))

    mouseMoveEvent = mousePressEvent  # noqa: N815 - Qt's
