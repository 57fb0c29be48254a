"""The table of cells as Qt shows it: only the rows in sight are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt

from cellseg.text import visible
from cellseg_napari._opened import Opened

if TYPE_CHECKING:
    import pandas as pd

PAGE = 64
KEPT = 4096

_NO_INDEX = QModelIndex()


class CellTable(QAbstractTableModel):  # type: ignore[misc]
    """Rows of the cells that are shown, in any order.

    Attributes
    ----------
    labels : ndarray, int64
        Of the rows, from the top.
    """

    def __init__(self, opened: Opened, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._opened = opened
        # The image's name is the same for all of them.
        self.columns = [name for name in opened.rows.names if name != "image"]
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._known: dict[int, list[str]] = {}

    def set_labels(self, labels: NDArray[np.int64]) -> None:
        """Other rows, or rows that changed."""
        self.beginResetModel()
        self.labels = labels
        self._known.clear()
        self.endResetModel()

    def place_of(self, label: int) -> int | None:
        """The row of a cell; None where it is not shown."""
        found = np.flatnonzero(self.labels == label)
        return int(found[0]) if len(found) else None

    # Qt asks

    def rowCount(self, parent: QModelIndex = _NO_INDEX) -> int:  # noqa: N802
        return 0 if parent.isValid() else len(self.labels)

    def columnCount(self, parent: QModelIndex = _NO_INDEX) -> int:  # noqa: N802
        return 0 if parent.isValid() else len(self.columns)

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:  # noqa: ANN401
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return self.columns[section]

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        if not index.isValid() or role != Qt.ItemDataRole.DisplayRole:
            return None
        label = int(self.labels[index.row()])
        if label not in self._known:
            self._read(index.row())
        return self._known[label][index.column()]

    def _read(self, row: int) -> None:
        """The page around a row."""
        if len(self._known) > KEPT:
            self._known.clear()
        first = row // PAGE * PAGE
        wanted = self.labels[first : first + PAGE]
        corrections = self._opened.corrections
        touched = {} if corrections is None else corrections.touched
        plain = np.array([n for n in wanted.tolist() if n not in touched], np.int64)
        if plain.size:
            for _, found in self._opened.rows.take(np.sort(plain) - 1).iterrows():
                self._known[int(found["label"])] = self._texts(found)
        for label in wanted.tolist():
            if label in touched:
                self._known[label] = self._texts(self._opened.row(label))

    def _texts(self, row: pd.Series[Any]) -> list[str]:
        return [_text(row[name]) for name in self.columns]


def _text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.5g}"
    return visible(str(value))
