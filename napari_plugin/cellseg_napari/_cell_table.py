"""The table of cells: sorted by a click on a column's name, in step with what is selected."""

from __future__ import annotations

from functools import partial

import numpy as np
from qtpy.QtCore import QItemSelection, QItemSelectionModel, QSignalBlocker
from qtpy.QtWidgets import QAbstractItemView, QTableView

from cellseg_napari._attempt import attempt
from cellseg_napari._columns import ColumnReader
from cellseg_napari._inspect import MARKED, Inspector
from cellseg_napari._table import CellTable


class CellTableView(QTableView):  # type: ignore[misc]
    """Rows of the cells that are shown."""

    def __init__(self, columns: ColumnReader) -> None:
        super().__init__()
        self._columns = columns
        self.inspector: Inspector | None = None
        self._sorted = ("label", False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setToolTip("Click a row to fly to its cell; click a column's name to sort by it")
        self.horizontalHeader().sectionClicked.connect(self.sort)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(20)
        self.setMinimumHeight(120)

    def show_result(self, inspector: Inspector) -> None:
        """The cells of this one from now on."""
        self.inspector = inspector
        self._sorted = ("label", False)
        self.cells = CellTable(inspector.opened, self)
        self.setModel(self.cells)
        self.selectionModel().selectionChanged.connect(self._row_clicked)
        self.refill()

    def leave(self) -> None:
        """No result."""
        self.inspector = None
        self.setModel(None)

    def refill(self) -> None:
        """The cells that are shown now, in the order that was asked for."""
        if self.inspector is None:
            return
        name, falling = self._sorted
        place = self.verticalScrollBar().value()
        opened, shown = self.inspector.opened, self.inspector.shown_mask()
        labels = opened.labels()[shown]
        if name != "label" and opened.rows.has([name]):
            labels = labels[np.argsort(opened.column(name)[shown], kind="stable")]
        self.cells.set_labels(labels[::-1] if falling else labels)
        self.verticalScrollBar().setValue(place)

    def sort(self, section: int) -> None:
        """By a column; by the same one again, the other way round."""
        if self.inspector is None:
            return
        name = self.cells.columns[section]
        self._columns.then([name], partial(self._sort_by, name, self._sorted == (name, False)))

    def _sort_by(self, name: str, falling: bool) -> None:
        self._sorted = (name, falling)
        self.refill()

    def step(self, by: int) -> None:
        """Fly to the next row's cell, or the one before; to the first where none is selected."""
        if self.inspector is None or not len(self.cells.labels):
            return
        chosen = self.inspector.selected
        row = self.cells.place_of(chosen[-1]) if chosen else None
        place = 0 if row is None else (row + by) % len(self.cells.labels)
        self.inspector.fly_to(int(self.cells.labels[place]))

    def show_selection(self) -> None:
        """Mark the selected cells' rows."""
        if self.inspector is None or not self.inspector.selected:
            self.clearSelection()
            return
        chosen = QItemSelection()
        wide = self.cells.columnCount() - 1
        rows = [self.cells.place_of(label) for label in self.inspector.selected[:MARKED]]
        for row in rows:
            if row is not None:
                chosen.select(self.cells.index(row, 0), self.cells.index(row, wide))
        if len(self.inspector.selected) <= MARKED:
            selection = self.selectionModel()
            with QSignalBlocker(selection):
                selection.select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if rows[-1] is not None and len(rows) == 1:
            self.scrollTo(self.cells.index(rows[-1], 0))
        self.viewport().update()

    def _row_clicked(self, *_: object) -> None:
        """One row flies to its cell; several are selected where they are."""
        if self.inspector is None:
            return
        # By ranges: asking row by row takes minutes for a million.
        parts = self.selectionModel().selection()
        found = [self.cells.labels[part.top() : part.bottom() + 1].tolist() for part in parts]
        labels = list(dict.fromkeys(label for part in found for label in part))
        if len(labels) == 1:
            attempt(partial(self.inspector.fly_to, labels[0]))
        elif labels:
            attempt(partial(self.inspector.select, labels))
