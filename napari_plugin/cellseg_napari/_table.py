"""The table of cells: in step with what is selected; only the rows in sight are read."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QSignalBlocker,
    Qt,
)
from qtpy.QtWidgets import QAbstractItemView, QTableView

from cellseg.table.summary import told
from cellseg_napari._inspect import MARKED, Inspector
from cellseg_napari._opened import Opened
from cellseg_napari._panel import attempt
from cellseg_napari._words import by_interest

PAGE, PAGES_KEPT = 64, 64
"""Rows that are read at once, and how many times as many are kept."""

_NO_INDEX = QModelIndex()


class CellRows(QAbstractTableModel):  # type: ignore[misc]
    """Rows of the cells that are shown; ``labels`` are theirs, from the top."""

    def __init__(self, opened: Opened, parent: QTableView) -> None:
        super().__init__(parent)
        self._opened = opened
        # The image's name is the same for all of them.
        self.columns = by_interest([name for name in opened.rows.names if name != "image"])
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._pages: dict[int, list[list[str]]] = {}

    def set_labels(self, labels: NDArray[np.int64]) -> None:
        """Other rows, or rows that changed."""
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
    """Rows of the cells that are shown; a click on a column's name sorts them."""

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
